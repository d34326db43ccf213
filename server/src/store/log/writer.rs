//! The log's writer: one task, one connection, commits shared by everybody who waits. This is the handle to it; what it does
//! is in `group_commit.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use maru_protocol::cursor::Position;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::follower::Follower;
use super::group_commit::GroupCommit;
use super::journal::Journal;
use super::unlogged::InTurn;
use super::writer_queue::{Job, Queue};
use super::{Change, CommitReader, Pending, Record};
use crate::store::engine::Connection;
use crate::store::engine::writer_connection::OwnConnection;
use crate::store::{CommitLimits, StoreError};

/// Changes that may wait; one more is refused as [`StoreError::Busy`].
const QUEUE_CHANGES: usize = 16_384;

/// Bytes that may wait.
const QUEUE_BYTES: usize = 64 << 20;

/// A piece of work that reads before it writes, in a transaction of its own.
pub(in crate::store) type Task = Box<dyn for<'t> FnOnce(&'t mut Transaction) -> Running<'t> + Send>;

/// The future of a [`Task`].
pub(in crate::store) type Running<'t> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 't>>;

/// An open transaction of the writer.
#[derive(Debug)]
pub(in crate::store) struct Transaction {
    pub(in crate::store) connection: Connection,
    pub(in crate::store) records: Vec<Record>,
}

impl Transaction {
    /// Adds a log record to the transaction.
    pub(in crate::store) fn push(&mut self, record: Record) {
        self.records.push(record);
    }
}

/// Who waits for a change hears by this where the log stood after it.
pub(in crate::store) type Answer = oneshot::Sender<Result<Position, StoreError>>;

/// The handle to the writer's task.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    jobs: mpsc::Sender<Job>,
    queued_bytes: Arc<AtomicUsize>,
    position: Arc<AtomicI64>,
    newest_for_peers: Arc<AtomicI64>,
    hinted: Arc<Notify>,
    moved: Arc<Notify>,
    _task: JoinHandle<()>,
}

impl Writer {
    /// Starts the task with an open connection to a log that stands at `position`.
    pub(in crate::store) fn start(
        connection: OwnConnection,
        position: Position,
        limits: CommitLimits,
        readers: Arc<dyn CommitReader>,
        journal: Journal,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_CHANGES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let committed = Arc::new(AtomicI64::new(position.0));
        // What was there before this run is not looked through: it may be anything.
        let newest_for_peers = Arc::new(AtomicI64::new(position.0));
        let (hinted, moved) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let task = GroupCommit {
            connection,
            queue: Queue::new(queue, Arc::clone(&queued_bytes)),
            position,
            limits,
            readers,
            journal,
            follower: None,
            hinted: Arc::clone(&hinted),
            committed: Arc::clone(&committed),
            moved: Arc::clone(&moved),
            newest_for_peers: Arc::clone(&newest_for_peers),
        };
        let task = tokio::spawn(task.run());
        Self {
            jobs,
            queued_bytes,
            position: committed,
            newest_for_peers,
            hinted,
            moved,
            _task: task,
        }
    }

    pub(in crate::store) fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// After this position there is nothing for peers but events.
    pub(in crate::store) fn newest_for_peers(&self) -> Position {
        Position(self.newest_for_peers.load(Ordering::Acquire))
    }

    /// Waits until the log has moved past a position.
    pub(in crate::store) async fn moved_past(&self, position: Position) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.position() > position {
                return;
            }
            moved.await;
        }
    }

    /// Has the writer look for what other nodes have committed.
    pub(in crate::store) fn hint(&self) {
        self.hinted.notify_one();
    }

    /// What has the writer look for what other nodes have committed, and how far it has come.
    pub(in crate::store) fn hints(&self) -> (Arc<Notify>, Arc<AtomicI64>) {
        (Arc::clone(&self.hinted), Arc::clone(&self.position))
    }

    /// From now on, `follower` hears of what other nodes commit.
    pub(in crate::store) async fn follow(&self, follower: Arc<dyn Follower>) -> Result<(), StoreError> {
        let sent = self.jobs.send(Job::Follow(follower)).await;
        sent.map_err(|_| StoreError::Unavailable("the store is closed".into()))
    }

    pub(in crate::store) fn append(&self, change: Change) -> Result<Pending, StoreError> {
        let (answer, pending) = oneshot::channel();
        self.push(change, answer).map_err(|(_, error)| error)?;
        Ok(Pending(pending))
    }

    /// Appends a change that somebody waits for already, who hears of a full queue too.
    pub(in crate::store) fn append_for(&self, change: Change, answer: Answer) {
        if let Err((Some(answer), error)) = self.push(change, answer) {
            let _ = answer.send(Err(error));
        }
    }

    fn push(&self, change: Change, answer: Answer) -> Result<(), (Option<Answer>, StoreError)> {
        let bytes = change.bytes();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES.max(bytes) {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err((Some(answer), StoreError::Busy));
        }
        self.jobs.try_send(Job::Change(change, answer)).map_err(|error| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let refusal = refused(&error);
            match error.into_inner() {
                Job::Change(_, answer) => (Some(answer), refusal),
                _ => (None, refusal),
            }
        })
    }

    pub(in crate::store) async fn run(&self, task: Task) -> Result<Position, StoreError> {
        let (answer, pending) = oneshot::channel();
        self.jobs
            .try_send(Job::Task(task, answer))
            .map_err(|error| refused(&error))?;
        Pending(pending).wait().await
    }

    /// Has a transaction beside the log run in its turn.
    pub(in crate::store) fn run_unlogged(&self, transaction: InTurn) -> Result<(), StoreError> {
        let job = Job::Unlogged(transaction);
        self.jobs.try_send(job).map_err(|error| refused(&error))
    }

    pub(in crate::store) async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

fn refused(error: &mpsc::error::TrySendError<Job>) -> StoreError {
    match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable("the store is closed".into()),
    }
}
