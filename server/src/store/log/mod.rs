//! The log: every durable change in one order, which readers follow by position as they would a write-ahead log.
//!
//! Every durable change that a reader may have to hear of is a [`Record`]. A [`Change`] is the records that stand
//! or fall together. The writer gives records their positions in the transaction that stores them and, once they
//! are durable, shows them to the [`CommitReader`] in order.
//!
//! | file | what |
//! |---|---|
//! | `change.rs` | kinds of records, and changes made of them |
//! | `writer.rs`, `writer_queue.rs`, `group_commit.rs` | the one task that commits, what waits for it, what it does |
//! | `turn.rs` | one transaction: its turn among nodes, its positions, its commit |
//! | `apply.rs` | a batch of records put into the tables |
//! | `unlogged.rs` | transactions beside the log |
//! | `journal.rs` | what each commit held, for who follows the log |
//! | `listener.rs`, `follower.rs` | PostgreSQL's notifications: when to look for other nodes' commits; and who is shown them |
//! | `inbound_commit.rs` | what peers sent, in one commit with what deals with it |

mod apply;
mod change;
mod follower;
mod group_commit;
pub mod inbound_commit;
mod journal;
mod listener;
mod turn;
pub(super) mod unlogged;
pub(super) mod writer;
mod writer_queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use maru_protocol::cursor::{LogId, Position};
use tokio::sync::{broadcast, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::StoreError;
use super::engine::writer_connection::OwnConnection;
use super::engine::{Connection, query};

pub use change::{Change, DeviceListChange, DeviceName, Erased, HeadTicket, Record, SessionsEnded};
pub use follower::{Follower, Mirror};
pub(super) use journal::Journal;
pub use journal::{LogPage, PageLimits};
use listener::Listener;
pub use listener::Notification;
pub(in crate::store) use listener::channels;

/// Notifications that wait for who hears them; older ones are dropped.
const NOTIFICATIONS: usize = 256;

/// Local numbers of a block, as a power of two: a million million.
const NUMBER_BLOCK_BITS: u32 = 40;

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

/// The log of this server: its writer, and what has a place in its order before it is stored.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    writer: writer::Writer,
    unlogged: unlogged::Unlogged,
    numbers: AtomicI64,
    /// Which start of a process on this database this is; none where one process has it to itself.
    start: Option<u64>,
    journal: Journal,
    waiting: inbound_commit::Waiting,
    peer_logs: inbound_commit::PeerLogs,
    /// Hears of other nodes' commits, where there may be other nodes.
    listening: Option<AbortOnDropHandle<()>>,
    /// What it hears beside that.
    notifications: broadcast::Sender<Notification>,
}

impl Log {
    /// Reads where the log stands, or begins one under `fresh` in a new database, and starts the writer. `readers` hears of
    /// every commit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn open(
        mut own: OwnConnection,
        unlogged: unlogged::Unlogged,
        fresh: LogId,
        limits: CommitLimits,
        readers: Arc<dyn CommitReader>,
        journal: Journal,
    ) -> Result<Self, StoreError> {
        let mut connection = own.take().ok_or(StoreError::Busy)?;
        let (id, position) = read_or_start(&mut connection, fresh).await?;
        let first = first_number(&mut connection).await?;
        own.put(connection);
        let postgres = own.postgres();
        let start = postgres
            .as_ref()
            .and_then(|_| u64::try_from(first >> NUMBER_BLOCK_BITS).ok());
        let writer = writer::Writer::start(own, position, limits, readers, journal.clone());
        let (notifications, _) = broadcast::channel(NOTIFICATIONS);
        let listening = postgres.map(|options| {
            let (hint, committed) = writer.hints();
            let listener = Listener {
                hint,
                position: move || Position(committed.load(Ordering::Acquire)),
                notifications: notifications.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(listener.listen(options)))
        });
        Ok(Self {
            id,
            writer,
            listening,
            notifications,
            unlogged,
            numbers: AtomicI64::new(first),
            start,
            journal,
            waiting: inbound_commit::Waiting::default(),
            peer_logs: inbound_commit::PeerLogs::default(),
        })
    }

    /// The log's id: cursors of another log are not answered.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The number of this start among all that processes have made on this database, where several may share it: none is ever
    /// given twice.
    #[must_use]
    pub fn start_number(&self) -> Option<u64> {
        self.start
    }

    /// The newest position whose commit is durable and has reached the readers.
    #[must_use]
    pub fn position(&self) -> Position {
        self.writer.position()
    }

    /// After this position there is nothing for peers but events.
    pub(super) fn newest_for_peers(&self) -> Position {
        self.writer.newest_for_peers()
    }

    /// What the log holds after a position, in order and within limits: see [`PageLimits`]. Costs grow with the limits.
    ///
    /// # Errors
    /// [`StoreError::JournalDropped`] when the journal does not reach back that far; otherwise when the database cannot be
    /// read.
    pub async fn after(&self, position: Position, limits: PageLimits) -> Result<LogPage, StoreError> {
        let newest = self.position();
        let page = self.journal.after(position, limits).await?;
        // Not a single commit is kept, and there were some.
        if page.end == position && position < newest {
            return Err(StoreError::JournalDropped(position));
        }
        Ok(page)
    }

    /// Drops up to `most` commits from the journal, the oldest first, that are older than a time (milliseconds since 1970) and
    /// not after a position: what all have read who follow the log. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_journal(&self, before_ms: i64, read: Position, most: usize) -> Result<u64, StoreError> {
        self.transact_unlogged(move |transaction| {
            Journal::drop_before(transaction, before_ms, read, most).boxed()
        })
        .await
    }

    /// Waits until this process knows of something after a position.
    pub async fn moved_past(&self, position: Position) {
        self.writer.moved_past(position).await;
    }

    /// Has the writer look soon for what other nodes have committed: somebody says that the log has reached a position.
    pub fn hint(&self, position: Position) {
        if position > self.position() {
            self.writer.hint();
        }
    }

    /// What other nodes tell beside the log, from now on.
    pub(super) fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.notifications.subscribe()
    }

    /// Waits until this process has followed the log up to a position, no longer than `patience`. Whether it has.
    pub async fn reach(&self, position: Position, patience: Duration) -> bool {
        self.hint(position);
        let reached = self.moved_past(Position(position.0 - 1));
        tokio::time::timeout(patience, reached).await.is_ok()
    }

    /// Waits until this process knows all that the log holds now, whichever node has committed it, no longer than `patience`.
    /// Whether it does. For what must not miss what somebody was told elsewhere: costs a query where there may be other nodes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn catch_up(&self, patience: Duration) -> Result<bool, StoreError> {
        if self.listening.is_none() {
            return Ok(true);
        }
        let now = self.journal.position().await?;
        Ok(self.reach(now, patience).await)
    }

    /// Whether the log stands at a position or beyond it, also where only other nodes have come so far.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn has_reached(&self, position: Position) -> Result<bool, StoreError> {
        Ok(position <= self.position() || position <= self.journal.position().await?)
    }

    /// From now on, `follower` hears of what other nodes have committed since this log was opened. Before, a change is refused
    /// as [`StoreError::Busy`] when there is anything of theirs.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn follow(&self, follower: Arc<dyn Follower>) -> Result<(), StoreError> {
        self.writer.follow(follower).await
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
    pub async fn append(&self, change: Change) -> Result<Position, StoreError> {
        self.enqueue(change)?.wait().await
    }

    /// Like [`Log::append`], but fixes the change's order in the log now and lets the caller wait later: for use
    /// under a room's lock, where nothing may block. What a peer sent is stored before what deals with it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the writer's queue is full.
    pub fn enqueue(&self, change: Change) -> Result<Pending, StoreError> {
        let ingested = change.ingested();
        if !ingested.is_empty() {
            self.waiting.send(&ingested, &self.writer);
        }
        self.writer.append(change)
    }

    /// Runs work that reads before it writes in a transaction of its own, in order with the log's commits. The work
    /// may add log records. Nothing of it is stored when it fails.
    pub(super) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut writer::Transaction) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let (result, taken) = tokio::sync::oneshot::channel();
        let task: writer::Task = Box::new(move |transaction| {
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

    /// Runs work in a transaction that writes no record and takes no position, and so never waits for the log's turn on
    /// PostgreSQL. Nothing of it is stored when it fails, but for [`StoreError::Unavailable`]: then it is not known, and
    /// what the work did must do no harm when it is done again (ids, fencing numbers).
    pub(super) async fn transact_unlogged<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut unlogged::UnloggedTransaction) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let (result, taken) = oneshot::channel();
        let task: unlogged::Task = Box::new(move |transaction| {
            Box::pin(async move {
                let _ = result.send(work(transaction).await?);
                Ok(())
            })
        });
        self.unlogged.run(&self.writer, task).await?;
        let nothing = |_| StoreError::Unavailable("the writer has stopped".into());
        taken.await.map_err(nothing)
    }

    /// Waits for everything queued to be stored, then stops the writer. Later appends are refused.
    pub(super) async fn close(&self) {
        self.unlogged.close().await;
        if let Some(listening) = &self.listening {
            listening.abort();
        }
        self.writer.close().await;
    }
}

/// The first local number that this process may give. Several of them give numbers at once on PostgreSQL, each from a block
/// of its own: a process never needs more than a block, and there are more blocks than a server is ever started.
async fn first_number(connection: &mut Connection) -> Result<i64, StoreError> {
    if connection.is_sqlite() {
        return Ok(highest_number(connection).await? + 1);
    }
    let block =
        query("UPDATE log SET number_blocks = number_blocks + 1 WHERE one = 1 RETURNING number_blocks");
    let block = block.optional(connection).await?;
    let block: i64 = block
        .ok_or_else(|| StoreError::corrupt("log", "no row"))?
        .get(0)?;
    Ok(block << NUMBER_BLOCK_BITS)
}

/// The highest local number in use.
async fn highest_number(connection: &mut Connection) -> Result<i64, StoreError> {
    let highest = query(
        "SELECT MAX(nid) FROM (SELECT MAX(nid) AS nid FROM events UNION ALL SELECT MAX(nid) FROM rooms \
         UNION ALL SELECT MAX(nid) FROM states UNION ALL SELECT MAX(nid) FROM inbox) AS numbers",
    );
    let row = highest.optional(connection).await?;
    let highest = row.map_or(Ok(None), |row| row.get::<Option<i64>>(0))?;
    Ok(highest.unwrap_or(0))
}

async fn read_or_start(connection: &mut Connection, fresh: LogId) -> Result<(LogId, Position), StoreError> {
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

/// A record with its place in the log.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its position, or that of the record it describes.
    pub position: Position,
    /// What was stored.
    pub record: Record,
}

/// Gives positions to the records of a batch, counting on from `last`. They hold only once the batch is durable.
pub(in crate::store) fn place_records(
    records: impl IntoIterator<Item = Record>,
    last: Position,
) -> Vec<Committed> {
    let mut position = last;
    records
        .into_iter()
        .map(|record| {
            if record.takes_position() {
                position = Position(position.0 + 1);
            }
            Committed { position, record }
        })
        .collect()
}

/// Hears of every durable batch, in log order, on the writer's task: it must be quick and must not wait.
pub trait CommitReader: Send + Sync + std::fmt::Debug {
    /// These records are durable now, and the log stands at `end`: at the last of them or, where none has a position of its
    /// own, after it.
    fn committed(&self, batch: &[Committed], end: Position);

    /// Whether it tells other nodes now how far the log has come. Where it does not, the database does so with each commit.
    fn tells_nodes(&self) -> bool {
        false
    }
}

/// A change whose order in the log is fixed and which is not yet durable.
#[derive(Debug)]
#[must_use = "a change is acknowledged only after waiting for it"]
pub struct Pending(pub(in crate::store) oneshot::Receiver<Result<Position, StoreError>>);

impl Pending {
    /// Waits until the change is on disk; its last record's position.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn wait(self) -> Result<Position, StoreError> {
        self.0
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the writer has stopped".into())))
    }
}
