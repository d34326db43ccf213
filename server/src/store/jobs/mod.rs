//! The tables of jobs: work that must be done and not be done twice, each a row until it is finished.
//!
//! The row is the queue. A run claims jobs that are due, and holds each by its own number and that of the attempt: a
//! holder that has lost a job can store nothing of it. What becomes of an attempt is written in the transaction of its
//! effects where those are in this database. Nothing here is a record of the log; readers of the log make jobs in the
//! transaction that moves their cursor.
//!
//! | file | what |
//! |---|---|
//! | `enqueue.rs` | making jobs |
//! | `claim.rs` | which are due, and taking them |
//! | `settle.rs` | what became of an attempt, and the jobs of runs that ended |
//! | `attempts.rs` | the attempts that have ended, for some days |
//! | `admin_view.rs` | what the admin sees and does |

mod admin_view;
mod attempts;
mod claim;
pub(in crate::store) mod enqueue;
mod settle;

use std::sync::Arc;

use tokio::sync::Notify;

use super::engine::Readers;
use super::log::Log;
use super::nodes::RunId;

pub use admin_view::{JobCount, StoredJob};
pub use attempts::StoredAttempt;
pub use claim::{Head, Wanted};
pub use enqueue::NewJob;
pub use settle::{Ended, Outcome};

/// A job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub i64);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It is done when it is due.
    Waiting,
    /// A run has it.
    Running,
    /// Whether it was done is not known, and it may not be done twice: somebody has to look.
    Unknown,
    /// It failed too often, or for good.
    DeadLetter,
}

impl JobState {
    const fn number(self) -> i64 {
        match self {
            Self::Waiting => 0,
            Self::Running => 1,
            Self::Unknown => 2,
            Self::DeadLetter => 3,
        }
    }

    fn of(number: i64) -> Self {
        match number {
            0 => Self::Waiting,
            1 => Self::Running,
            2 => Self::Unknown,
            _ => Self::DeadLetter,
        }
    }

    /// Its name for the admin and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Unknown => "unknown",
            Self::DeadLetter => "dead letter",
        }
    }
}

/// A job that a run holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldJob {
    /// Its number.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// The key that no other job of the kind has until this one is finished.
    pub key: Option<String>,
    /// Whom it burdens.
    pub destination: String,
    /// Who holds it.
    pub run: RunId,
    /// Which attempt this is, from 1 on; with the run what its effects are checked by.
    pub attempt: i64,
    /// How many attempts in a row have failed before this one.
    pub failures: i64,
    /// What is to be done, as JSON.
    pub payload: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
}

/// The tables of jobs.
#[derive(Debug)]
pub struct JobTables {
    readers: Readers,
    log: Arc<Log>,
    woken: Notify,
}

impl JobTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self {
            readers,
            log,
            woken: Notify::new(),
        }
    }

    /// Wakes who runs jobs in this process: there is one that may be due. For whoever made jobs in a transaction of
    /// their own, once it is committed.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits until jobs may have been made in this process.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Whether jobs may be made by other processes too, of which nobody is woken here.
    #[must_use]
    pub fn are_shared(&self) -> bool {
        !self.readers.is_sqlite()
    }
}
