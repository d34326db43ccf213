//! Named readers: what follows the log by itself, with a cursor in the database, and does work that must not be lost or done
//! twice.
//!
//! A reader is led by one node at a time, by a lease (`reader/<name>/<shard>`); what it does is stored together with its
//! cursor in a transaction that checks the lease, or carries ids by which a second time changes nothing. None holds up
//! another, nor live delivery: each is a task of its own.
//!
//! | file | what |
//! |---|---|
//! | `machine.rs`, `actions.rs` | what a reader does next: the pure machine, and what it wants done |
//! | `runner.rs` | the task that does it |
//! | `source.rs` | the log as readers see it |
//! | this file | what a reader is, and all of them: started, stopped, listed, paused, rewound |

pub mod actions;
pub mod machine;
mod runner;
mod source;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use maru_protocol::cursor::Position;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::nodes::Nodes;
use crate::store::StoreError;
use crate::store::log::Committed;
use crate::store::readers::{Effects, ReaderId, ReaderTables, SetAside, StoredReader};
use actions::Tuning;
use runner::{Changed, Runner};
pub use source::LogSource;

/// How long readers may take to store where they are when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// Something that follows the log.
pub trait Reader: Send + Sync + fmt::Debug {
    /// Its name, for good: the cursor is stored under it.
    fn name(&self) -> &str;

    /// How many share its work, each of which reads the whole log and deals with what is its own.
    fn shards(&self) -> u32 {
        1
    }

    /// Where it begins when it has never run.
    fn begins(&self) -> Begins;

    /// How it works.
    fn tuning(&self) -> Tuning {
        Tuning::default()
    }

    /// Deals with records, in order of position; those of one position come together. What it answers is stored together
    /// with the cursor. What it does elsewhere may have been done before, and carries ids.
    ///
    /// # Errors
    /// [`ReaderError::Unavailable`] is tried again for as long as it takes. After [`ReaderError::Failed`] the record that
    /// cannot be dealt with is searched for, and set aside.
    fn handle<'r>(
        &'r self,
        shard: u32,
        records: &'r [Committed],
    ) -> BoxFuture<'r, Result<Effects, ReaderError>>;
}

/// Where a reader begins that has never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With the first record of the log.
    AtStart,
    /// With what comes from now on.
    AtEnd,
    /// With all stored events, as they are now, in order of number; and then with what came meanwhile. It does so again
    /// when it is rewound beyond what the journal keeps. Meant for what is made of events alone, and comes out the same
    /// when it is made again.
    WithStoredEvents,
}

/// Why a reader did not deal with records.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReaderError {
    /// Something that it needs does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Perhaps there is a record among them that it cannot deal with.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for ReaderError {
    fn from(error: StoreError) -> Self {
        match error.is_temporary() {
            true => Self::Unavailable(error.to_string()),
            false => Self::Failed(error.to_string()),
        }
    }
}

/// All readers of this process.
#[derive(Debug)]
pub struct Readers {
    tables: Arc<ReaderTables>,
    source: Arc<dyn LogSource>,
    running: Vec<(ReaderId, Arc<Changed>)>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
    stop: CancellationToken,
}

impl Readers {
    /// Starts readers, each of which works while this node holds its lease.
    #[must_use]
    pub fn start(
        tables: &Arc<ReaderTables>,
        source: Arc<dyn LogSource>,
        clock: &Arc<Clock>,
        nodes: &Nodes,
        readers: Vec<Arc<dyn Reader>>,
    ) -> Arc<Self> {
        let stop = CancellationToken::new();
        let (mut running, mut tasks) = (Vec::new(), Vec::new());
        for reader in readers {
            for shard in 0..reader.shards() {
                let id = ReaderId {
                    name: reader.name().into(),
                    shard,
                };
                let changed = Arc::new(Changed::default());
                let runner = Runner {
                    reader: Arc::clone(&reader),
                    id: id.clone(),
                    source: Arc::clone(&source),
                    tables: Arc::clone(tables),
                    clock: Arc::clone(clock),
                    lease: nodes.want(&format!("reader/{id}")),
                    changed: Arc::clone(&changed),
                    stop: stop.clone(),
                };
                tasks.push(AbortOnDropHandle::new(tokio::spawn(runner.run())));
                running.push((id, changed));
            }
        }
        Arc::new(Self {
            tables: Arc::clone(tables),
            source,
            running,
            tasks: Mutex::new(tasks),
            stop,
        })
    }

    /// Stops them all, once they have stored where they are, or after some seconds.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("readers of the log did not stop in time; they go on where they are stored");
        }
    }

    /// All readers that ever were, each with how many positions it is behind. What one that works here has dealt with and
    /// not stored yet is not counted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all(&self) -> Result<Vec<(StoredReader, u64)>, StoreError> {
        let newest = self.source.newest();
        let all = self.tables.all().await?.into_iter();
        let lag = |stored: &StoredReader| u64::try_from(newest.0 - stored.position.0).unwrap_or(0);
        Ok(all
            .map(|stored| (lag(&stored), stored))
            .map(|(lag, stored)| (stored, lag))
            .collect())
    }

    /// Has the readers of a name stop where they stand, or go on from there. How many there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<usize, StoreError> {
        let all = self.named(name).await?;
        for id in &all {
            self.tables.set_paused(id, paused).await?;
            self.tell(id);
        }
        Ok(all.len())
    }

    /// Has the readers of a name read again what stands after a position; or where `may_skip` says so, go past what they
    /// have not read. How many there are that have moved.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rewind(&self, name: &str, to: Position, may_skip: bool) -> Result<usize, StoreError> {
        let mut moved = 0;
        let to = to.min(self.source.newest());
        for id in &self.named(name).await? {
            moved += usize::from(self.tables.rewind(id, to, may_skip).await?);
            self.tell(id);
        }
        Ok(moved)
    }

    /// Has the readers of a name try again at once what failed, where they work here.
    pub fn try_again(&self, name: &str) {
        let named = self.running.iter().filter(|(id, _)| &*id.name == name);
        named.for_each(|(_, changed)| changed.tell());
    }

    /// What the readers of a name went past.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn set_aside(&self, name: &str) -> Result<Vec<SetAside>, StoreError> {
        self.tables.set_aside(name).await
    }

    async fn named(&self, name: &str) -> Result<Vec<ReaderId>, StoreError> {
        let all = self.tables.all().await?.into_iter();
        Ok(all
            .map(|stored| stored.id)
            .filter(|id| &*id.name == name)
            .collect())
    }

    /// At once, where the reader works here; another node sees it within seconds.
    fn tell(&self, id: &ReaderId) {
        if let Some((_, changed)) = self.running.iter().find(|(running, _)| running == id) {
            changed.tell();
        }
    }
}
