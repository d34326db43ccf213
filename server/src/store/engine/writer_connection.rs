//! The connection that the log's writer holds: one at a time, on PostgreSQL with the session locks that keep off the database
//! who must not write to it beside this process.
//!
//! Nodes share the database, each under a name of its own. Whoever must be alone (a restore, a migration) shares it with nobody.
//!
//! A link may be gone without either side being told. So nobody waits for an answer of PostgreSQL for ever, and a session
//! that was given up is ended before the next one begins: it would keep the lock for as long as the database believes in it,
//! and might still commit.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;

use super::{Address, Connection, query};
use crate::node_name::NodeName;
use crate::store::StoreError;

/// The session lock ("maru"): shared by nodes, held alone by who must be alone.
const SESSION_LOCK: i64 = 0x6d61_7275;

/// Held by who brings the schema up to date, so that two nodes which start at once do not both.
const MIGRATION_LOCK: i64 = 0x6d61_7276;

/// How long PostgreSQL lets a node that says nothing keep a transaction open, in which it may have the log's turn: a node that
/// has stopped must not stop the others.
const SILENCE: &str = "SET idle_in_transaction_session_timeout = '3s'";

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

/// Beside whom this process writes to a PostgreSQL database. An embedded database it has for itself in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Beside nobody.
    Alone,
    /// Beside nodes of other names.
    Node(NodeName),
}

/// The writer's connection, made anew when the last one broke.
#[derive(Debug)]
pub(in crate::store) struct OwnConnection {
    address: Address,
    access: Access,
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
    /// [`StoreError::InUse`] or [`StoreError::NodeInUse`] while another process holds it, or [`StoreError::Unavailable`].
    pub(in crate::store) async fn open(address: Address, access: Access) -> Result<Self, StoreError> {
        let mut own = Self {
            address,
            access,
            held: None,
            session: None,
            failed: None,
        };
        let connection = own.connect().await?;
        own.held = Some(connection);
        Ok(own)
    }

    /// Where the database is, when other nodes may write to it.
    pub(in crate::store) fn postgres(&self) -> Option<PgConnectOptions> {
        match (&self.address, &self.access) {
            (Address::Postgres(options), Access::Node(_)) => Some((**options).clone()),
            _ => None,
        }
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
        connection.run(SILENCE).await?;
        let holding = hold(&mut connection, &self.access, self.session);
        self.session = Some(in_time(CONNECTING + LOCK_PATIENCE, holding).await?);
        Ok(connection)
    }
}

/// Does what may change the schema, while nobody else does. Nodes that run must not see it change: where `is_pending` says that
/// it will, this process has to be alone.
///
/// # Errors
/// [`StoreError::InUse`] when other nodes run, or what `migrating` failed with.
pub(in crate::store) async fn migrating(
    connection: &mut Connection,
    is_pending: impl AsyncFn(&mut Connection) -> Result<bool, StoreError>,
    migrate: impl AsyncFn(&mut Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if connection.is_sqlite() {
        return migrate(connection).await;
    }
    query("SELECT 1 FROM (SELECT pg_advisory_lock($1)) AS locked")
        .bind(MIGRATION_LOCK)
        .all(&mut *connection)
        .await?;
    let mut held = vec![MIGRATION_LOCK];
    if is_pending(connection).await? {
        lock_in_time(connection, TRY_ALONE, SESSION_LOCK, StoreError::InUse).await?;
        held.push(SESSION_LOCK);
    }
    migrate(connection).await?;
    for lock in held {
        query("SELECT 1 FROM (SELECT pg_advisory_unlock($1)) AS unlocked")
            .bind(lock)
            .all(&mut *connection)
            .await?;
    }
    Ok(())
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

const TRY_ALONE: &str = "SELECT CASE WHEN pg_try_advisory_lock($1) THEN 1::bigint ELSE 0::bigint END";
const TRY_SHARED: &str = "SELECT CASE WHEN pg_try_advisory_lock_shared($1) THEN 1::bigint ELSE 0::bigint END";

/// Takes the session locks, from the session before if that still has them.
async fn hold(
    connection: &mut Connection,
    access: &Access,
    before: Option<Session>,
) -> Result<Session, StoreError> {
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
    match access {
        Access::Alone => lock_in_time(connection, TRY_ALONE, SESSION_LOCK, StoreError::InUse).await?,
        Access::Node(name) => {
            lock_in_time(connection, TRY_SHARED, SESSION_LOCK, StoreError::InUse).await?;
            let taken = StoreError::NodeInUse(name.clone());
            lock_in_time(connection, TRY_ALONE, lock_of(name), taken).await?;
        }
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

/// The number of a node's session lock: names that differ have, but for a chance of one in 2⁶⁴, different ones.
fn lock_of(name: &NodeName) -> i64 {
    let hash = Sha256::digest(format!("maru node {name}"));
    let mut number = [0; 8];
    number.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    i64::from_be_bytes(number)
}

/// Takes a lock; `refusal` when others have it for longer than [`LOCK_PATIENCE`].
async fn lock_in_time(
    connection: &mut Connection,
    try_lock: &'static str,
    lock: i64,
    refusal: StoreError,
) -> Result<(), StoreError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let row = query(try_lock).bind(lock).optional(&mut *connection).await?;
        if row.map_or(Ok(0), |row| row.get::<i64>(0))? == 1 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(refusal);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
