//! Storage: the only place with SQL. One concrete [`Store`] over embedded SQLite or PostgreSQL.
//!
//! Reads go through a pool of reading connections. Every write goes through the log's one writer ([`log`]), which
//! shares durable commits between everybody who waits. See `spec/architecture.md`, "Store and log".

pub mod accounts;
pub mod backup;
pub mod encryption;
mod engine;
pub mod federation;
pub mod log;
pub mod media;
pub mod rooms;
pub mod waiting_quota;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::BoxFuture;
use maru_protocol::cursor::{LogId, Position};
use thiserror::Error;

pub use engine::schema::VERSION as SCHEMA_VERSION;
use engine::{Address, Connection, Readers, query};

/// How many connections read at once.
const READERS: u32 = 6;

/// What went wrong in the database.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// A unique key is taken: somebody was faster.
    #[error("this exists already: {0}")]
    Conflict(String),
    /// The disk or the database's space is full.
    #[error("the database has no room left: {0}")]
    Full(String),
    /// The database does not answer, or not in time.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The batch that this change was built on was not stored; build it again.
    #[error("the room's head has changed, try again")]
    StaleHead,
    /// The writer's queue is full.
    #[error("the server is busy, try again")]
    Busy,
    /// A text with a NUL character: PostgreSQL holds none, so neither engine is asked.
    #[error("a text contains a NUL character")]
    Nul,
    /// A row that should be impossible.
    #[error("table {table} holds a row that this program cannot read: {what}")]
    Corrupt {
        /// Where it is.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A newer program has changed the database.
    #[error("the database has schema version {found}, this program knows {known}: use a newer program")]
    Newer {
        /// The version in the database.
        found: i64,
        /// The version this program makes.
        known: i64,
    },
    /// Another process uses this database.
    #[error("the database is in use by another process")]
    InUse,
    /// The database refused a statement, or this program made a wrong one.
    #[error("the database refused a statement: {0}")]
    Program(String),
}

impl StoreError {
    /// Whether the same change may succeed later without being altered.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Full(_) | Self::Unavailable(_) | Self::StaleHead | Self::Busy | Self::InUse
        )
    }

    fn encoding(error: impl std::fmt::Display) -> Self {
        Self::Program(error.to_string())
    }

    fn corrupt(table: &'static str, what: impl std::fmt::Display) -> Self {
        Self::Corrupt {
            table,
            what: what.to_string(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(db) if db.is_unique_violation() => Self::Conflict(text),
            sqlx::Error::Database(db) => match db.code().as_deref() {
                // SQLITE_FULL; PostgreSQL's disk_full and out_of_memory.
                Some("13" | "53100" | "53200") => Self::Full(text),
                // SQLite: busy, locked, I/O errors (a full disk shows as one too), cannot open.
                Some("5" | "6" | "14") => Self::Unavailable(text),
                Some(code) if code.parse::<i32>().is_ok_and(|c| c & 0xff == 10) => Self::Unavailable(text),
                // PostgreSQL: shutting down, crashed, starting up, connection failures.
                Some(code) if code.starts_with("57P") || code.starts_with("08") => Self::Unavailable(text),
                _ => Self::Program(text),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::Tls(_) => Self::Unavailable(text),
            _ => Self::Program(text),
        }
    }
}

/// Which database to open.
#[derive(Clone, Debug)]
pub enum Database {
    /// The embedded database in this file.
    Sqlite(std::path::PathBuf),
    /// A `postgres://` address.
    Postgres(String),
}

/// Bounds of a shared commit (`spec/limits.md`).
#[derive(Clone, Copy, Debug)]
pub struct CommitLimits {
    /// Changes in one commit.
    pub changes: usize,
    /// Bytes in one commit.
    pub bytes: usize,
}

impl Default for CommitLimits {
    fn default() -> Self {
        Self {
            changes: 512,
            bytes: 4 << 20,
        }
    }
}

/// The database of this server. Cheap to share.
#[derive(Debug)]
pub struct Store {
    readers: Readers,
    writer: log::writer::Writer,
    log_id: LogId,
    numbers: AtomicI64,
    runs: rooms::state::RunCache,
    waiting: log::inbound_commit::Waiting,
    peer_logs: log::inbound_commit::PeerLogs,
}

impl Store {
    /// Opens the database, brings its schema up to date and starts the writer. `fresh_log_id` is used when the
    /// database is new; `readers` hears of every commit, in order, before the writers' answers.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], or what opening met.
    pub async fn open(
        database: &Database,
        fresh_log_id: LogId,
        limits: CommitLimits,
        readers: Arc<dyn log::CommitReader>,
    ) -> Result<Arc<Self>, StoreError> {
        let address = match database {
            Database::Sqlite(path) => Address::sqlite(path),
            Database::Postgres(url) => Address::postgres(url)?,
        };
        let mut own = engine::writer_connection::OwnConnection::open(address.clone()).await?;
        let mut connection = own.take().ok_or(StoreError::Busy)?;
        engine::schema::migrate(&mut connection).await?;
        let (log_id, position) = read_or_start_log(&mut connection, fresh_log_id).await?;
        let highest = query(
            "SELECT MAX(nid) FROM (SELECT MAX(nid) AS nid FROM events UNION ALL SELECT MAX(nid) FROM rooms \
             UNION ALL SELECT MAX(nid) FROM states UNION ALL SELECT MAX(nid) FROM inbox) AS numbers",
        )
        .optional(&mut connection)
        .await?
        .map_or(Ok(None), |row| row.get::<Option<i64>>(0))?
        .unwrap_or(0);
        own.put(connection);
        Ok(Arc::new(Self {
            readers: address.readers(READERS),
            writer: log::writer::Writer::start(own, position, limits, readers),
            log_id,
            numbers: AtomicI64::new(highest + 1),
            runs: rooms::state::RunCache::default(),
            waiting: log::inbound_commit::Waiting::default(),
            peer_logs: log::inbound_commit::PeerLogs::default(),
        }))
    }

    /// An in-memory stand-in for tests is a database in a temporary folder: same code, same engine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_sqlite(
        folder: &Path,
        readers: Arc<dyn log::CommitReader>,
    ) -> Result<Arc<Self>, StoreError> {
        let database = Database::Sqlite(folder.join("maru.db"));
        Self::open(&database, LogId([7; 16]), CommitLimits::default(), readers).await
    }

    /// The log's id: cursors of another log are not answered.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The newest position whose commit is durable and has reached the readers.
    #[must_use]
    pub fn position(&self) -> Position {
        self.writer.position()
    }

    /// A local number for a new room, event, state or row of the inbox. Numbers of changes that were not stored stay unused.
    #[must_use]
    pub fn next_nid(&self) -> i64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Stores a change durably, together with whatever else waits, and returns the position of its last record.
    ///
    /// # Errors
    /// When it was not stored. A change whose fate is unknown is looked up before this returns.
    pub async fn append(&self, change: log::Change) -> Result<Position, StoreError> {
        self.enqueue(change)?.wait().await
    }

    /// Like [`Store::append`], but fixes the change's order in the log now and lets the caller wait later: for use
    /// under a room's lock, where nothing may block. What a peer sent is stored before what deals with it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the writer's queue is full.
    pub fn enqueue(&self, change: log::Change) -> Result<log::Pending, StoreError> {
        let ingested = change.ingested();
        if !ingested.is_empty() {
            self.waiting.send(&ingested, &self.writer);
        }
        self.writer.append(change)
    }

    /// Runs work that reads before it writes in a transaction of its own, in order with the log's commits. The work
    /// may add log records. Nothing of it is stored when it fails.
    async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut log::writer::Transaction) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let (result, taken) = tokio::sync::oneshot::channel();
        let task: log::writer::Task = Box::new(move |transaction| {
            Box::pin(async move {
                let _ = result.send(work(transaction).await?);
                Ok(())
            })
        });
        self.writer.run(task).await?;
        taken
            .await
            .map_err(|_| StoreError::Unavailable("the writer has stopped".into()))
    }

    /// Rooms' states that are in memory.
    #[must_use]
    pub fn runs(&self) -> &rooms::state::RunCache {
        &self.runs
    }

    fn is_sqlite(&self) -> bool {
        matches!(self.readers, Readers::Sqlite(_))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        query("SELECT one FROM log").all(&self.readers).await.map(drop)
    }

    /// Waits for everything queued to be stored, then closes. Later appends are refused.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}

async fn read_or_start_log(
    connection: &mut Connection,
    fresh: LogId,
) -> Result<(LogId, Position), StoreError> {
    query("INSERT INTO log (one, log_id, position) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING")
        .bind(fresh.to_string())
        .execute(connection)
        .await?;
    let row = query("SELECT log_id, position FROM log")
        .optional(connection)
        .await?;
    let row = row.ok_or_else(|| StoreError::corrupt("log", "no row"))?;
    let log_id = row
        .get::<String>(0)?
        .parse()
        .map_err(|error| StoreError::corrupt("log", error))?;
    Ok((log_id, Position(row.get(1)?)))
}
