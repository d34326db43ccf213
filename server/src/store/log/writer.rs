//! The log's writer: one task, one connection, commits shared by everybody who waits.
//!
//! A batch that the database refuses is halved until the culprit stands alone. When the outcome of a commit is
//! unknown, because the connection broke, the counter row tells on a new connection whether it happened; nothing
//! is tried again before that is known. Those whose change that is wait for it; those behind them are refused when it
//! takes long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use maru_protocol::cursor::Position;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::apply;
use super::unlogged::InTurn;
use super::writer_queue::{Job, Queue};
use super::{Change, CommitReader, Committed, Pending, Record, place_records};
use crate::observe::metrics;
use crate::store::engine::writer_connection::{OwnConnection, PATIENCE, answered, rolled_back};
use crate::store::engine::{Connection, query};
use crate::store::{CommitLimits, StoreError};

/// Changes that may wait; one more is refused as [`StoreError::Busy`].
const QUEUE_CHANGES: usize = 16_384;

/// Bytes that may wait.
const QUEUE_BYTES: usize = 64 << 20;

/// Waits between questions what became of a commit: from, to.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
    _task: JoinHandle<()>,
}

impl Writer {
    /// Starts the task with an open connection to a log that stands at `position`.
    pub(in crate::store) fn start(
        connection: OwnConnection,
        position: Position,
        limits: CommitLimits,
        readers: Arc<dyn CommitReader>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_CHANGES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let committed = Arc::new(AtomicI64::new(position.0));
        // What was there before this run is not looked through: it may be anything.
        let newest_for_peers = Arc::new(AtomicI64::new(position.0));
        let state = State {
            connection,
            queue: Queue::new(queue, Arc::clone(&queued_bytes)),
            position,
            limits,
            readers,
            committed: Arc::clone(&committed),
            newest_for_peers: Arc::clone(&newest_for_peers),
        };
        let task = tokio::spawn(state.run());
        Self {
            jobs,
            queued_bytes,
            position: committed,
            newest_for_peers,
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

/// A failed attempt to store a batch.
enum Failure {
    /// Nothing was stored, for sure.
    Refused(StoreError),
    /// The commit was asked for and not answered.
    Unknown(StoreError),
}

struct State {
    connection: OwnConnection,
    queue: Queue,
    position: Position,
    limits: CommitLimits,
    readers: Arc<dyn CommitReader>,
    committed: Arc<AtomicI64>,
    newest_for_peers: Arc<AtomicI64>,
}

impl State {
    async fn run(mut self) {
        while self.queue.fill(self.limits.changes).await {
            match self.queue.waiting.pop_front() {
                Some(Job::Task(task, answer)) => self.perform(task, answer).await,
                Some(Job::Unlogged(transaction)) => {
                    let connection = self.connected().await;
                    if let Some(connection) = transaction.perform(connection).await {
                        self.connection.put(connection);
                    }
                }
                Some(Job::Close(closed)) => {
                    if let Some(connection) = self.connection.take() {
                        let _ = connection.close().await;
                    }
                    let _ = closed.send(());
                    return;
                }
                Some(change) => {
                    self.queue.waiting.push_front(change);
                    let batch = self.queue.gather(self.limits);
                    self.store(batch).await;
                }
                None => {}
            }
            self.queue.accept();
        }
    }

    /// Stores a batch, halving it around changes that the database refuses.
    async fn store(&mut self, batch: Vec<(Change, Answer)>) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let (stale, mut part): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|(change, _)| change.is_stale());
            for (_, answer) in stale {
                let _ = answer.send(Err(StoreError::StaleHead));
            }
            if part.is_empty() {
                continue;
            }
            let ends: Vec<usize> = part.iter().map(|(change, _)| change.records.len()).collect();
            let records = part.iter().flat_map(|(change, _)| change.records.iter().cloned());
            let placed = place_records(records, self.position);
            match self.attempt(&placed).await {
                Ok(()) => {
                    self.publish(&placed);
                    let mut end = 0;
                    for ((_, answer), records) in part.into_iter().zip(ends) {
                        end += records;
                        let position = placed
                            .get(end.wrapping_sub(1))
                            .map_or(self.position, |c| c.position);
                        let _ = answer.send(Ok(position));
                    }
                }
                Err(error) if part.len() == 1 || error.is_temporary() => {
                    metrics::CHANGES_FAILED.add(part.len() as u64);
                    for (change, answer) in part {
                        change.tickets.iter().for_each(super::HeadTicket::fail);
                        let _ = answer.send(Err(error.clone()));
                    }
                }
                Err(_) => {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
            }
        }
    }

    /// One transaction; when its outcome is unknown, finds it out before returning.
    async fn attempt(&mut self, placed: &[Committed]) -> Result<(), StoreError> {
        let mut connection = self.connected().await?;
        let storing = finished(connection.is_sqlite(), async {
            connection.begin().await.map_err(Failure::Refused)?;
            finish(&mut connection, placed, self.position).await
        });
        let outcome = storing.await;
        self.settle(connection, outcome, placed).await
    }

    async fn perform(&mut self, task: Task, answer: Answer) {
        let result = self.perform_once(task).await;
        let _ = answer.send(result);
    }

    async fn perform_once(&mut self, task: Task) -> Result<Position, StoreError> {
        let mut connection = self.connected().await?;
        let is_embedded = connection.is_sqlite();
        if let Err(error) = answered(is_embedded, connection.begin()).await {
            return Err(self
                .settle(connection, Err(Failure::Refused(error)), &[])
                .await
                .err()
                .unwrap_or(StoreError::Busy));
        }
        let mut transaction = Transaction {
            connection,
            records: Vec::new(),
        };
        let ran = answered(is_embedded, task(&mut transaction)).await;
        let Transaction {
            mut connection,
            records,
        } = transaction;
        let placed = place_records(records, self.position);
        let outcome = match ran {
            Ok(()) => {
                let finishing = finish(&mut connection, &placed, self.position);
                finished(is_embedded, finishing).await
            }
            Err(error) => Err(Failure::Refused(error)),
        };
        self.settle(connection, outcome, &placed).await?;
        self.publish(&placed);
        Ok(self.position)
    }

    /// Keeps or drops the connection after a transaction and turns its outcome into a certain one.
    async fn settle(
        &mut self,
        mut connection: Connection,
        outcome: Result<(), Failure>,
        placed: &[Committed],
    ) -> Result<(), StoreError> {
        match outcome {
            Ok(()) => {
                self.connection.put(connection);
                Ok(())
            }
            Err(Failure::Refused(error)) => {
                if !matches!(error, StoreError::Unavailable(_)) && rolled_back(&mut connection).await {
                    self.connection.put(connection);
                }
                Err(error)
            }
            Err(Failure::Unknown(error)) => {
                drop(connection);
                let stored = self.position_in_database().await;
                if stored == last_position(placed, self.position) {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    fn publish(&mut self, placed: &[Committed]) {
        metrics::COMMITS.add(1);
        metrics::RECORDS.add(placed.len() as u64);
        self.position = last_position(placed, self.position);
        for committed in placed {
            if let Record::Event(stored) = &committed.record {
                stored.set_position(committed.position);
            }
            if committed.record.is_for_peers() {
                self.newest_for_peers
                    .store(committed.position.0, Ordering::Release);
            }
        }
        self.readers.committed(placed);
        self.committed.store(self.position.0, Ordering::Release);
    }

    /// The connection, made anew when the last one broke.
    async fn connected(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let mut connection = self.connection.connect().await?;
                let found = position_on(&mut connection).await?;
                if found != self.position {
                    let what = format!("the log stands at {} instead of {}", found.0, self.position.0);
                    return Err(StoreError::corrupt("log", what));
                }
                Ok(connection)
            }
        }
    }

    /// Asks the database where its log stands, for as long as it takes to get an answer. When that is long, those who
    /// wait for their turn are refused, and so is whoever comes.
    async fn position_in_database(&mut self) -> Position {
        let asking = position_in_database(&mut self.connection);
        tokio::pin!(asking);
        match tokio::time::timeout(PATIENCE, &mut asking).await {
            Ok(position) => position,
            Err(_) => tokio::select! {
                position = &mut asking => position,
                never = self.queue.refuse() => match never {},
            },
        }
    }
}

/// Asks the database where its log stands, again and again until it answers.
async fn position_in_database(own: &mut OwnConnection) -> Position {
    let mut wait = RETRY.0;
    loop {
        let asked = async {
            let mut connection = own.connect().await?;
            let position = position_on(&mut connection).await?;
            Ok::<_, StoreError>((connection, position))
        };
        match asked.await {
            Ok((connection, position)) => {
                own.put(connection);
                return position;
            }
            Err(error) => {
                tracing::warn!(%error, "the outcome of a commit is unknown; asking again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// Where the log stands after a batch. Every transaction takes at least one position, so that the counter always
/// tells whether it happened.
fn last_position(placed: &[Committed], before: Position) -> Position {
    let last = placed.last().map_or(before, |committed| committed.position);
    if last == before {
        Position(before.0 + 1)
    } else {
        last
    }
}

/// Waits for a transaction. Whether one that is not answered in time was committed is not known.
async fn finished(
    is_embedded: bool,
    transaction: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let known = answered(is_embedded, async { Ok(transaction.await) }).await;
    known.unwrap_or_else(|error| Err(Failure::Unknown(error)))
}

/// Stores the records of the open transaction and commits it.
async fn finish(connection: &mut Connection, placed: &[Committed], before: Position) -> Result<(), Failure> {
    advance(connection, before, last_position(placed, before))
        .await
        .map_err(Failure::Refused)?;
    apply::apply(connection, placed).await.map_err(Failure::Refused)?;
    let (begun, is_embedded) = (Instant::now(), connection.is_sqlite());
    // A statement that SQLite refuses is none of COMMIT, whose failures are all of the disk.
    let refused = |error: &StoreError| is_embedded && !error.is_temporary();
    connection.commit().await.map_err(|error| match refused(&error) {
        true => Failure::Refused(error),
        false => Failure::Unknown(error),
    })?;
    metrics::COMMIT_TIME.observe(begun.elapsed());
    Ok(())
}

/// Moves the counter: its row lock is the log's lock. A counter that stands elsewhere, because another process has
/// written to the log, has no number to move to, which the column refuses.
async fn advance(connection: &mut Connection, before: Position, last: Position) -> Result<(), StoreError> {
    query("UPDATE log SET position = CASE WHEN position = $2 THEN $1 ELSE NULL END WHERE one = 1")
        .bind(last.0)
        .bind(before.0)
        .run(connection)
        .await
}

async fn position_on(connection: &mut Connection) -> Result<Position, StoreError> {
    let row = query("SELECT position FROM log").optional(connection).await?;
    Ok(Position(
        row.ok_or_else(|| StoreError::corrupt("log", "no row"))?.get(0)?,
    ))
}
