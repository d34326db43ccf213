//! Why the database did not do something.

use maru_protocol::cursor::Position;
use thiserror::Error;

use crate::node_name::NodeName;

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
    /// What a holder of this lease did was not stored: it was given back or taken since, or its run is over.
    #[error("the lease {0} is not held any more")]
    LeaseLost(String),
    /// What this reader of the log did was not stored: its cursor stands elsewhere by now, or it is paused.
    #[error("the cursor of {0} has moved or is paused")]
    CursorMoved(String),
    /// The job of this effect is not held any more: another run has it, or it is finished.
    #[error("the job is not held any more")]
    JobLost,
    /// The writer's queue is full.
    #[error("the server is busy, try again")]
    Busy,
    /// A reader of the log comes back too late: what came after this position has been dropped from the journal.
    #[error("the journal does not reach back to position {}", .0.0)]
    JournalDropped(Position),
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
    /// A node of this name uses this database.
    #[error("a node named `{0}` uses this database: give this one a `node_name` of its own")]
    NodeInUse(NodeName),
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
            Self::Full(_)
                | Self::Unavailable(_)
                | Self::StaleHead
                | Self::Busy
                | Self::InUse
                | Self::NodeInUse(_)
        )
    }

    pub(super) fn encoding(error: impl std::fmt::Display) -> Self {
        Self::Program(error.to_string())
    }

    pub(super) fn corrupt(table: &'static str, what: impl std::fmt::Display) -> Self {
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
                // PostgreSQL: another transaction stood in the way, by a deadlock or for too long; a session was given up.
                Some("40001" | "40P01" | "55P03" | "25P03") => Self::Unavailable(text),
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
