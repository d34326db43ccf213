//! Group commit: the log's writer takes what waits, stores it in one transaction, and shows it to the readers.
//!
//! A batch that the database refuses is halved until the culprit stands alone. When the outcome of a commit is
//! unknown, because the connection broke, the journal tells on a new connection whether it happened; nothing
//! is tried again before that is known. Those whose change that is wait for it; those behind them are refused when it
//! takes long.
//!
//! What other nodes have committed is shown to this process in between, so that all of them see one log in one order. A
//! change that was built on a room's head which another node has moved on is built again, and its neighbours are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use maru_protocol::cursor::Position;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::follower::Follower;
use super::journal::{self, Commit, Journal, LogPage, PageLimits};
use super::turn::{self, Failure, Turn, finished, last_position, position_on};
use super::writer::{Answer, Task, Transaction};
use super::writer_queue::{Job, Queue};
use super::{Change, CommitReader, Committed, Record, place_records};
use crate::observe::metrics;
use crate::store::engine::Connection;
use crate::store::engine::writer_connection::{OwnConnection, PATIENCE, answered, rolled_back};
use crate::store::{CommitLimits, StoreError};

/// Waits between questions what became of a commit: from, to.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a turn is kept for changes that are built anew because another node has moved the heads under them.
const REBUILDING: Duration = Duration::from_millis(20);

/// How long the next of them is waited for: whoever waited for a change may have gone.
const REBUILT_AFTER: Duration = Duration::from_millis(5);

/// Positions that a node may be behind and still read while it has the turn: some tens of milliseconds.
const FAR_BEHIND: i64 = 2_048;

/// The writer's task.
pub(super) struct GroupCommit {
    pub(super) connection: OwnConnection,
    pub(super) queue: Queue,
    /// Everything up to here has been shown to the readers.
    pub(super) position: Position,
    pub(super) limits: CommitLimits,
    pub(super) readers: Arc<dyn CommitReader>,
    pub(super) journal: Journal,
    /// Hears of other nodes' commits; none while this process starts.
    pub(super) follower: Option<Arc<dyn Follower>>,
    pub(super) hinted: Arc<Notify>,
    pub(super) committed: Arc<AtomicI64>,
    pub(super) moved: Arc<Notify>,
    pub(super) newest_for_peers: Arc<AtomicI64>,
}

impl GroupCommit {
    /// Does what comes until the store is closed.
    pub(super) async fn run(mut self) {
        let hinted = Arc::clone(&self.hinted);
        loop {
            tokio::select! {
                biased;
                has_come = self.queue.fill(self.limits.changes) => if !has_come { return },
                () = hinted.notified() => {
                    self.look_for_news().await;
                    continue;
                }
            }
            match self.queue.waiting.pop_front() {
                Some(Job::Task(task, answer)) => self.perform(task, answer).await,
                Some(Job::Unlogged(transaction)) => {
                    let connection = self.connected().await;
                    if let Some(connection) = transaction.perform(connection).await {
                        self.connection.put(connection);
                    }
                }
                Some(Job::Follow(follower)) => self.follower = Some(follower),
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
        while let Some(mut part) = parts.pop() {
            refuse_stale(&mut part);
            if part.is_empty() {
                continue;
            }
            // What waits in the queue was built after the other parts.
            let is_last = parts.is_empty();
            match self.attempt(&mut part, is_last).await {
                Ok(_) if part.is_empty() => {}
                Ok(placed) => {
                    self.publish(&placed);
                    self.answer(part, &placed);
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

    /// Tells each change the position of its last record.
    fn answer(&self, part: Vec<(Change, Answer)>, placed: &[Committed]) {
        let mut end = 0;
        for (change, answer) in part {
            end += change.records.len();
            let last = placed.get(end.wrapping_sub(1));
            let _ = answer.send(Ok(last.map_or(self.position, |committed| committed.position)));
        }
    }

    /// One transaction; when its outcome is unknown, finds it out before returning. Changes that are built on heads which
    /// other nodes have moved on are refused, and leave the batch; what is built anew in a moment joins it, unless other
    /// parts of the batch come before that.
    async fn attempt(
        &mut self,
        part: &mut Vec<(Change, Answer)>,
        is_last: bool,
    ) -> Result<Vec<Committed>, StoreError> {
        let (mut connection, turn) = self.take_turn(positions(part)).await?;
        let refused = refuse_stale(part);
        if is_last {
            self.join_rebuilt(part, refused).await;
        }
        if part.is_empty() {
            self.give_up(connection).await;
            return Ok(Vec::new());
        }
        let records = part.iter().flat_map(|(change, _)| change.records.iter().cloned());
        let placed = place_records(records, turn.before);
        let commit = self.commit_of(&placed, turn.before);
        let is_embedded = connection.is_sqlite();
        let outcome = finished(is_embedded, turn.finish(&mut connection, &placed, commit)).await;
        self.settle(connection, outcome, commit).await?;
        Ok(placed)
    }

    /// Adds what is built anew on the heads as they are now: while this node has the turn, nobody moves them. So many are
    /// waited for, since those that miss this turn would find the heads moved again at the next one, and never get on
    /// where several nodes write to a room without pause.
    async fn join_rebuilt(&mut self, part: &mut Vec<(Change, Answer)>, refused: usize) {
        let end = Instant::now() + REBUILDING;
        let mut awaited = refused;
        while awaited > 0 {
            let limits = CommitLimits {
                changes: self.limits.changes.saturating_sub(part.len()),
                bytes: self.limits.bytes,
            };
            let patience = end.min(Instant::now() + REBUILT_AFTER);
            let coming = tokio::time::timeout_at(patience, self.queue.fill(limits.changes));
            if limits.changes == 0 || coming.await != Ok(true) {
                return;
            }
            let came = self.queue.gather(limits);
            if came.is_empty() {
                return;
            }
            awaited = awaited.saturating_sub(came.len());
            part.extend(came);
            awaited += refuse_stale(part);
        }
    }

    async fn perform(&mut self, task: Task, answer: Answer) {
        let result = self.perform_once(task).await;
        let _ = answer.send(result);
    }

    async fn perform_once(&mut self, task: Task) -> Result<Position, StoreError> {
        let (connection, turn) = self.take_turn(0).await?;
        let is_embedded = connection.is_sqlite();
        let mut transaction = Transaction {
            connection,
            records: Vec::new(),
        };
        let ran = answered(is_embedded, task(&mut transaction)).await;
        let Transaction {
            mut connection,
            records,
        } = transaction;
        let placed = place_records(records, turn.before);
        let commit = self.commit_of(&placed, turn.before);
        let outcome = match ran {
            Ok(()) => finished(is_embedded, turn.finish(&mut connection, &placed, commit)).await,
            Err(error) => Err(Failure::Refused(error)),
        };
        self.settle(connection, outcome, commit).await?;
        self.publish(&placed);
        Ok(self.position)
    }

    fn commit_of(&self, placed: &[Committed], before: Position) -> Commit {
        Commit {
            is_announced: !self.readers.tells_nodes(),
            id: rand::random(),
            before,
            last: last_position(placed, before),
        }
    }

    /// Begins a transaction, has its turn, and knows what other nodes have committed before. Where that is much, the turn is
    /// passed on first: nobody waits for a node that has to catch up.
    async fn take_turn(&mut self, positions: i64) -> Result<(Connection, Turn), StoreError> {
        loop {
            let mut connection = self.connected().await?;
            let is_embedded = connection.is_sqlite();
            let taking = Turn::take(&mut connection, self.position, positions);
            let taken = answered(is_embedded, taking).await;
            let (followed, is_behind) = match &taken {
                Ok(turn) if turn.before.0 - self.position.0 > FAR_BEHIND => (Ok(()), true),
                Ok(turn) => (self.follow_to(turn.before).await, false),
                Err(error) => (Err(error.clone()), false),
            };
            match (followed, taken) {
                (Ok(()), Ok(turn)) if is_behind => {
                    self.give_up(connection).await;
                    self.follow_to(turn.before).await?;
                }
                (Ok(()), Ok(turn)) => return Ok((connection, turn)),
                (Err(error), _) | (_, Err(error)) => {
                    self.put_back(connection, &error).await;
                    return Err(error);
                }
            }
        }
    }

    /// Ends a transaction that has nothing to store.
    async fn give_up(&mut self, mut connection: Connection) {
        if rolled_back(&mut connection).await {
            self.connection.put(connection);
        }
    }

    /// Keeps the connection of a transaction that was refused, if it can be used again.
    async fn put_back(&mut self, mut connection: Connection, error: &StoreError) {
        if !matches!(error, StoreError::Unavailable(_)) && rolled_back(&mut connection).await {
            self.connection.put(connection);
        }
    }

    /// Keeps or drops the connection after a transaction and turns its outcome into a certain one.
    async fn settle(
        &mut self,
        connection: Connection,
        outcome: Result<(), Failure>,
        commit: Commit,
    ) -> Result<(), StoreError> {
        match outcome {
            Ok(()) => {
                self.connection.put(connection);
                Ok(())
            }
            Err(Failure::Refused(error)) => {
                self.put_back(connection, &error).await;
                Err(error)
            }
            Err(Failure::Unknown(error)) => {
                drop(connection);
                match self.has_happened(commit).await {
                    true => Ok(()),
                    false => Err(error),
                }
            }
        }
    }

    /// Shows what this process has committed.
    fn publish(&mut self, placed: &[Committed]) {
        metrics::COMMITS.add(1);
        metrics::RECORDS.add(placed.len() as u64);
        for committed in placed {
            if let Record::Event(stored) = &committed.record {
                stored.set_position(committed.position);
            }
        }
        self.note_for_peers(placed);
        let end = last_position(placed, self.position);
        self.readers.committed(placed, end);
        self.move_to(end);
    }

    fn note_for_peers(&self, records: &[Committed]) {
        let newest = records.iter().rev().find(|one| one.record.is_for_peers());
        if let Some(committed) = newest {
            self.newest_for_peers
                .store(committed.position.0, Ordering::Release);
        }
    }

    fn move_to(&mut self, position: Position) {
        self.position = position;
        self.committed.store(position.0, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Shows what other nodes have committed, up to a position that the log has reached.
    async fn follow_to(&mut self, position: Position) -> Result<(), StoreError> {
        while self.position < position {
            let page = self.journal.after(self.position, PageLimits::default()).await?;
            if page.end <= self.position {
                return Err(StoreError::corrupt(
                    "commits",
                    format!("{} is missing", position.0),
                ));
            }
            self.follow(page).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, page: LogPage) -> Result<(), StoreError> {
        // Whoever reads what is stored before somebody follows is shown all that comes after the log's position at the start.
        let follower = self.follower.as_ref().ok_or(StoreError::Busy)?;
        follower.follow(&page).await?;
        metrics::RECORDS_FOLLOWED.add(page.records.len() as u64);
        self.note_for_peers(&page.records);
        self.move_to(page.end);
        Ok(())
    }

    /// Shows what other nodes have committed by now. What cannot be read now is read at the next chance.
    async fn look_for_news(&mut self) {
        while self.follower.is_some() {
            let page = self.journal.after(self.position, PageLimits::default()).await;
            let followed = match page {
                Ok(page) if page.end <= self.position => return,
                Ok(page) => self.follow(page).await,
                Err(error) => Err(error),
            };
            if let Err(error) = followed {
                tracing::warn!(%error, "what other nodes have committed cannot be read");
                return;
            }
        }
    }

    /// The connection, made anew when the last one broke.
    async fn connected(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let mut connection = self.connection.connect().await?;
                let found = position_on(&mut connection).await?;
                if found < self.position || (connection.is_sqlite() && found != self.position) {
                    return Err(turn::lost(found, self.position));
                }
                Ok(connection)
            }
        }
    }

    /// Asks the database whether a commit has happened, for as long as it takes to get an answer. When that is long, those
    /// who wait for their turn are refused, and so is whoever comes.
    async fn has_happened(&mut self, commit: Commit) -> bool {
        let asking = has_happened(&mut self.connection, commit);
        tokio::pin!(asking);
        match tokio::time::timeout(PATIENCE, &mut asking).await {
            Ok(has_happened) => has_happened,
            Err(_) => tokio::select! {
                has_happened = &mut asking => has_happened,
                never = self.queue.refuse() => match never {},
            },
        }
    }
}

/// Refuses the changes that were built on heads which are no longer; how many. They are built again.
fn refuse_stale(part: &mut Vec<(Change, Answer)>) -> usize {
    let (stale, fresh): (Vec<_>, Vec<_>) = std::mem::take(part)
        .into_iter()
        .partition(|(change, _)| change.is_stale());
    *part = fresh;
    let refused = stale.len();
    for (_, answer) in stale {
        let _ = answer.send(Err(StoreError::StaleHead));
    }
    refused
}

/// How many positions a batch takes.
fn positions(part: &[(Change, Answer)]) -> i64 {
    let records = part.iter().flat_map(|(change, _)| &change.records);
    let taken = records.filter(|record| record.takes_position()).count();
    i64::try_from(taken.max(1)).unwrap_or(i64::MAX)
}

/// Asks the database whether a commit has happened, again and again until it answers.
async fn has_happened(own: &mut OwnConnection, commit: Commit) -> bool {
    let mut wait = RETRY.0;
    loop {
        let asked = async {
            let mut connection = own.connect().await?;
            let holds = journal::holds(&mut connection, commit).await?;
            Ok::<_, StoreError>((connection, holds))
        };
        match asked.await {
            Ok((connection, holds)) => {
                own.put(connection);
                return holds;
            }
            Err(error) => {
                tracing::warn!(%error, "the outcome of a commit is unknown; asking again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}
