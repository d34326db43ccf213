//! The connection that the log's writer holds: one at a time, on PostgreSQL with the session lock that keeps a second process
//! off the database.
//!
//! A link may be gone without either side being told. So nobody waits for an answer of PostgreSQL for ever, and a session
//! that was given up is ended before the next one begins: it would keep the lock for as long as the database believes in it,
//! and might still commit.

use std::time::{Duration, Instant};

use super::{Address, Connection, query};
use crate::store::StoreError;

/// The session lock ("maru").
const SESSION_LOCK: i64 = 0x6d61_7275;

/// How long to try for it, and the pause in between: PostgreSQL notices a moment later that the process before has ended.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How long PostgreSQL may take to let this process in, or to roll back.
const CONNECTING: Duration = Duration::from_secs(5);

/// How long PostgreSQL may take for one transaction, which is bounded in items and bytes.
const TRANSACTION: Duration = Duration::from_secs(20);

/// How long somebody waits behind a transaction of which it is not known whether it was committed.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(20);

/// How long after a failure to connect no other try is made: whoever comes meanwhile is told of that one.
const PAUSE: Duration = Duration::from_secs(1);

/// The writer's connection, made anew when the last one broke.
#[derive(Debug)]
pub(in crate::store) struct OwnConnection {
    address: Address,
    held: Option<Connection>,
    session: Option<Session>,
    failed: Option<(Instant, StoreError)>,
}

/// A session as PostgreSQL knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    pid: i64,
    /// In microseconds: process ids come again.
    started: i64,
}

impl OwnConnection {
    /// Connects, and holds the database for this process.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process holds it, or [`StoreError::Unavailable`].
    pub(in crate::store) async fn open(address: Address) -> Result<Self, StoreError> {
        let mut own = Self {
            address,
            held: None,
            session: None,
            failed: None,
        };
        let connection = own.connect().await?;
        own.held = Some(connection);
        Ok(own)
    }

    /// The connection that is held; none where it was taken, or has broken.
    pub(in crate::store) fn take(&mut self) -> Option<Connection> {
        self.held.take()
    }

    /// Holds a connection that works.
    pub(in crate::store) fn put(&mut self, connection: Connection) {
        self.held = Some(connection);
    }

    /// A new connection, once the session before is over. Fails at once shortly after a failure.
    ///
    /// # Errors
    /// As [`OwnConnection::open`], within some seconds.
    pub(in crate::store) async fn connect(&mut self) -> Result<Connection, StoreError> {
        if let Some((at, error)) = &self.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let connected = self.connect_once().await;
        self.failed = connected
            .as_ref()
            .err()
            .map(|error| (Instant::now(), error.clone()));
        connected
    }

    async fn connect_once(&mut self) -> Result<Connection, StoreError> {
        let Address::Postgres(_) = self.address else {
            return self.address.connect().await;
        };
        let mut connection = in_time(CONNECTING, self.address.connect()).await?;
        let holding = in_time(CONNECTING + LOCK_PATIENCE, hold(&mut connection, self.session));
        self.session = Some(holding.await?);
        Ok(connection)
    }
}

/// Waits for what is done in one transaction, or gives up a PostgreSQL that does not answer.
///
/// # Errors
/// What it failed with, or [`StoreError::Unavailable`]: then the connection is of no more use.
pub(in crate::store) async fn answered<T>(
    is_embedded: bool,
    transaction: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match is_embedded {
        true => transaction.await,
        false => in_time(TRANSACTION, transaction).await,
    }
}

/// Gives a transaction up. Whether the connection can be used again.
pub(in crate::store) async fn rolled_back(connection: &mut Connection) -> bool {
    match connection.is_sqlite() {
        true => connection.rollback().await.is_ok(),
        false => in_time(CONNECTING, connection.rollback()).await.is_ok(),
    }
}

async fn in_time<T>(
    patience: Duration,
    doing: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let done = tokio::time::timeout(patience, doing).await;
    done.unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer in time".into())))
}

/// Takes the session lock, from the session before if that still has it.
async fn hold(connection: &mut Connection, before: Option<Session>) -> Result<Session, StoreError> {
    if let Some(before) = before {
        let end = query(
            "SELECT CASE WHEN pg_terminate_backend(pid) THEN 1::bigint ELSE 0::bigint END FROM pg_stat_activity \
             WHERE pid = $1 AND (EXTRACT(EPOCH FROM backend_start) * 1000000)::bigint = $2",
        );
        end.bind(before.pid)
            .bind(before.started)
            .all(&mut *connection)
            .await?;
    }
    let deadline = Instant::now() + LOCK_PATIENCE;
    while !takes_lock(connection).await? {
        if Instant::now() >= deadline {
            return Err(StoreError::InUse);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let session = query(
        "SELECT pid::bigint, (EXTRACT(EPOCH FROM backend_start) * 1000000)::bigint FROM pg_stat_activity \
         WHERE pid = pg_backend_pid()",
    );
    let session = session.optional(connection).await?;
    let session = session.ok_or_else(|| StoreError::Unavailable("it does not know this session".into()))?;
    Ok(Session {
        pid: session.get(0)?,
        started: session.get(1)?,
    })
}

async fn takes_lock(connection: &mut Connection) -> Result<bool, StoreError> {
    let row = query("SELECT CASE WHEN pg_try_advisory_lock($1) THEN 1::bigint ELSE 0::bigint END")
        .bind(SESSION_LOCK)
        .optional(connection)
        .await?;
    Ok(row.map_or(Ok(0), |row| row.get::<i64>(0))? == 1)
}
