//! The commit journal: what each commit put into the log, in order of position (table `commits`).
//!
//! Whoever follows the log reads one range of one index, and then once each table that the range names. A row names events
//! and rooms, which have rows of their own for ever; what has not (a membership, a receipt, a message to a device) stands in
//! it whole. Old rows are dropped: see [`Journal::drop_before`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use ruma::{OwnedEventId, OwnedServerName};
use serde::{Deserialize, Serialize};

use super::listener::channels;
use super::unlogged::UnloggedTransaction;
use super::{Committed, DeviceListChange, DeviceName, Erased, Record, SessionsEnded};
use crate::store::StoreError;
use crate::store::accounts::account_data::AccountData;
use crate::store::encryption::to_device::ToDevice;
use crate::store::engine::{Connection, Readers, Row, query};
use crate::store::federation::destination_intervals::Interest;
use crate::store::federation::peer_messages::PeerMessage;
use crate::store::rooms::Membership;
use crate::store::rooms::event_sizes;
use crate::store::rooms::events::{self, NewTransaction, Redaction, StoredEvent};
use crate::store::rooms::notifications::NewNotification;
use crate::store::rooms::receipts::Receipt;

/// Commits that are read together, whatever they hold.
const COMMITS_OF_A_PAGE: usize = 256;

/// Events of a page whose sizes are not asked for: they are not much memory, however long they are.
const FEW_EVENTS: usize = 16;

/// Bounds of a page of the log. A commit is never cut, so the last of a page may exceed them.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Records.
    pub records: usize,
    /// Bytes of the journal, without the events that it names.
    pub bytes: usize,
    /// Bytes of those events: they are all in memory together.
    pub event_bytes: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self {
            records: 1_024,
            bytes: 1 << 20,
            event_bytes: 1 << 20,
        }
    }
}

/// A part of the log, in order of position.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Its records. What has no row any more is left out.
    pub records: Vec<Committed>,
    /// Rooms whose heads moved (rooms.nid).
    pub moved_rooms: Vec<i64>,
    /// Everything up to here has been read. Where the page began, when there is nothing new.
    pub end: Position,
}

/// A record as the journal holds it. Nodes of different versions read each other's rows: a kind that changes in a way that an
/// older program would misread is a new kind, and `READABLE_BY` moves.
#[derive(Debug, Serialize, Deserialize)]
enum Entry<'r> {
    #[serde(rename = "e")]
    Event(EventNid),
    #[serde(rename = "p")]
    Placed(EventNid),
    #[serde(rename = "h")]
    Head(i64),
    #[serde(rename = "x")]
    Redaction(EventNid, i64, Cow<'r, OwnedEventId>),
    /// Its row is found by its position.
    #[serde(rename = "t")]
    Transaction,
    #[serde(rename = "m")]
    Membership(Cow<'r, Membership>),
    #[serde(rename = "n")]
    Notification(Cow<'r, NewNotification>),
    #[serde(rename = "i")]
    Interest(Cow<'r, Interest>),
    #[serde(rename = "r")]
    Receipt(Cow<'r, Receipt>),
    #[serde(rename = "a")]
    AccountData(Cow<'r, AccountData>),
    #[serde(rename = "d")]
    ToDevice(Cow<'r, ToDevice>),
    #[serde(rename = "l")]
    DeviceList(Cow<'r, DeviceListChange>),
    #[serde(rename = "s")]
    PeerMessage(Cow<'r, PeerMessage>),
    #[serde(rename = "z")]
    SessionsEnded(Cow<'r, SessionsEnded>),
    #[serde(rename = "k")]
    KeyCounts(Cow<'r, DeviceName>),
    #[serde(rename = "q")]
    Erased(Cow<'r, Erased>),
    #[serde(rename = "w")]
    KnownServer(Cow<'r, OwnedServerName>),
}

impl<'r> Entry<'r> {
    /// What the journal says of a record; nothing of those that only the process which made them has to do with.
    fn of(record: &'r Record) -> Option<Self> {
        Some(match record {
            Record::Event(stored) => Self::Event(stored.nid),
            Record::Placed(nid) => Self::Placed(*nid),
            Record::Head(head) => Self::Head(head.room),
            Record::Redaction(redaction) => {
                Self::Redaction(redaction.target, redaction.room, Cow::Borrowed(&redaction.by))
            }
            Record::Transaction(_) => Self::Transaction,
            Record::Membership(membership) => Self::Membership(Cow::Borrowed(membership)),
            Record::Notification(notification) => Self::Notification(Cow::Borrowed(notification)),
            Record::Interest(interest) => Self::Interest(Cow::Borrowed(interest)),
            Record::Receipt(receipt) => Self::Receipt(Cow::Borrowed(receipt)),
            Record::AccountData(data) => Self::AccountData(Cow::Borrowed(data)),
            Record::ToDevice(message) => Self::ToDevice(Cow::Borrowed(message)),
            Record::DeviceList(change) => Self::DeviceList(Cow::Borrowed(change)),
            Record::PeerMessage(message) => Self::PeerMessage(Cow::Borrowed(message)),
            Record::SessionsEnded(ended) => Self::SessionsEnded(Cow::Borrowed(ended)),
            Record::KeyCounts(device) => Self::KeyCounts(Cow::Borrowed(device)),
            Record::Erased(erased) => Self::Erased(Cow::Borrowed(erased)),
            Record::KnownServer(name) => Self::KnownServer(Cow::Borrowed(name)),
            Record::Room(_)
            | Record::Gap(_)
            | Record::State(_)
            | Record::EarlyRedaction(_)
            | Record::Received(_)
            | Record::Ingested(_)
            | Record::Alias(_)
            | Record::Delivered(_)
            | Record::HeardMessage(_)
            | Record::WaitingReceipt(_) => return None,
        })
    }

    /// Whether its record took a position of its own, as [`Record::takes_position`] says.
    fn takes_position(&self) -> bool {
        matches!(
            self,
            Self::Event(_)
                | Self::Redaction(..)
                | Self::Receipt(_)
                | Self::AccountData(_)
                | Self::ToDevice(_)
                | Self::DeviceList(_)
                | Self::PeerMessage(_)
        )
    }
}

/// One commit, as the journal is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    /// Whether the database announces it to other nodes.
    pub(super) is_announced: bool,
    /// Random: whether it has happened is asked by this.
    pub(super) id: i64,
    /// Where the log stood before it.
    pub(super) before: Position,
    /// Where the log stands after it.
    pub(super) last: Position,
}

/// Writes a commit into the journal, in its transaction.
pub(super) async fn store(
    connection: &mut Connection,
    commit: Commit,
    records: &[Committed],
    now_ms: u64,
) -> Result<(), StoreError> {
    let entries: Vec<_> = records
        .iter()
        .filter_map(|committed| Entry::of(&committed.record))
        .collect();
    let entries = minicbor_serde::to_vec(entries).map_err(StoreError::encoding)?;
    // Announced with the commit: one a commit, since announcing takes a lock of the whole database server until then.
    let is_announced = commit.is_announced && !connection.is_sqlite();
    let storing = match is_announced {
        false => query(
            "INSERT INTO commits (position, first, commit_id, committed_at, entries) VALUES ($1, $2, $3, $4, $5)",
        ),
        true => query(
            "WITH announced AS (SELECT pg_notify($6, ($1::bigint)::text)) \
             INSERT INTO commits (position, first, commit_id, committed_at, entries) \
             SELECT $1::bigint, $2, $3, $4, $5 FROM announced",
        ),
    };
    let storing = storing
        .bind(commit.last.0)
        .bind(commit.before.0 + 1)
        .bind(commit.id)
        .bind(i64::try_from(now_ms).unwrap_or(i64::MAX))
        .bind(entries);
    let storing = match is_announced {
        false => storing,
        true => storing.bind(channels::COMMITS),
    };
    storing.run(connection).await
}

/// Whether a commit has happened.
pub(super) async fn holds(connection: &mut Connection, commit: Commit) -> Result<bool, StoreError> {
    let row = query("SELECT commit_id FROM commits WHERE position = $1").bind(commit.last.0);
    let row = row.optional(connection).await?;
    Ok(row.map_or(Ok(None), |row| row.get::<i64>(0).map(Some))? == Some(commit.id))
}

/// The commit journal of a database.
#[derive(Clone, Debug)]
pub(in crate::store) struct Journal {
    readers: Readers,
}

impl Journal {
    pub(in crate::store) fn new(readers: Readers) -> Self {
        Self { readers }
    }

    /// Where the log stands in the database.
    pub(in crate::store) async fn position(&self) -> Result<Position, StoreError> {
        let row = query("SELECT position FROM log").optional(&self.readers).await?;
        let row = row.ok_or_else(|| StoreError::corrupt("log", "no row"))?;
        Ok(Position(row.get(0)?))
    }

    /// What the log holds after a position, within limits, in order. Costs grow with the limits: one range of the journal,
    /// and one read of each table that it names.
    ///
    /// # Errors
    /// [`StoreError::JournalDropped`] when the journal does not reach back to `position`; otherwise when the database cannot be
    /// read.
    pub(in crate::store) async fn after(
        &self,
        position: Position,
        limits: PageLimits,
    ) -> Result<LogPage, StoreError> {
        let rows = query(
            "SELECT position, first, entries FROM commits WHERE position > $1 ORDER BY position LIMIT $2",
        );
        let most = limits.records.clamp(1, COMMITS_OF_A_PAGE);
        let rows = rows
            .bind(position.0)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .all(&self.readers)
            .await?;
        if let Some(row) = rows.first()
            && row.get::<i64>(1)? > position.0 + 1
        {
            return Err(StoreError::JournalDropped(position));
        }
        let mut read = Entries::new(position);
        for row in &rows {
            if read.bytes > 0 && (read.bytes >= limits.bytes || read.found.len() >= limits.records) {
                break;
            }
            read.add(row)?;
        }
        read.lighten(&self.readers, limits.event_bytes).await?;
        read.load(&self.readers).await
    }

    /// Drops commits that are older than a time, and none after a position: `most` at most, the oldest first. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub(in crate::store) async fn drop_before(
        transaction: &mut UnloggedTransaction,
        time_ms: i64,
        position: Position,
        most: usize,
    ) -> Result<u64, StoreError> {
        // By position, so that what goes is a beginning of the journal also where a clock was set back.
        query(
            "DELETE FROM commits WHERE position <= (SELECT MAX(oldest.position) FROM \
               (SELECT position, committed_at FROM commits WHERE position <= $1 ORDER BY position LIMIT $2) AS oldest \
               WHERE oldest.committed_at < $3)",
        )
        .bind(position.0)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .bind(time_ms)
        .execute(&mut transaction.connection)
        .await
    }
}

/// Entries of a page, on their way to records.
struct Entries {
    after: Position,
    end: Position,
    /// Where each commit ends in `found`, and in the log.
    commits: Vec<(usize, Position)>,
    found: Vec<(Position, Entry<'static>)>,
    /// Positions that have a transaction id: from, to.
    transactions: Option<(Position, Position)>,
    bytes: usize,
}

impl Entries {
    fn new(after: Position) -> Self {
        Self {
            after,
            end: after,
            commits: Vec::new(),
            found: Vec::new(),
            transactions: None,
            bytes: 0,
        }
    }

    /// Adds a commit; of the one in which the page begins, only what comes after that.
    fn add(&mut self, row: &Row) -> Result<(), StoreError> {
        let records: Vec<u8> = row.get(2)?;
        let entries: Vec<Entry<'static>> =
            minicbor_serde::from_slice(&records).map_err(|error| StoreError::corrupt("commits", error))?;
        self.bytes += records.len().max(1);
        let (first, last) = (row.get::<i64>(1)?, row.get::<i64>(0)?);
        let mut position = Position(first - 1);
        for entry in entries {
            position.0 += i64::from(entry.takes_position());
            // Those that describe the record before them share its position. What begins a commit and takes none has that of
            // the commit's first, so that who has read up to the commit before comes past it.
            let at = Position(position.0.max(first));
            if self.after.0 >= first && at <= self.after {
                continue;
            }
            if matches!(entry, Entry::Transaction) {
                let from = self.transactions.map_or(at, |(from, _)| from);
                self.transactions = Some((from, at));
            }
            self.found.push((at, entry));
        }
        self.end = Position(last);
        self.commits.push((self.found.len(), self.end));
        Ok(())
    }

    /// The events that the entries name.
    fn named(&self) -> Vec<EventNid> {
        let named = self.found.iter().filter_map(|(_, entry)| entry.event());
        named.collect()
    }

    /// Leaves commits for the next page whose events are too much to be held together, but for the first.
    async fn lighten(&mut self, readers: &Readers, most: usize) -> Result<(), StoreError> {
        let named = self.named();
        if named.len() <= FEW_EVENTS || self.commits.len() <= 1 {
            return Ok(());
        }
        let sizes = event_sizes::of(readers, &named).await?.into_iter();
        let sizes: HashMap<EventNid, usize> = sizes.map(|size| (size.nid, size.bytes)).collect();
        let (mut bytes, mut from) = (0, 0);
        let mut fitting = self.commits.iter().take_while(|(to, _)| {
            let commit = self.found.get(from..*to).unwrap_or_default().iter();
            let named = commit.filter_map(|(_, entry)| entry.event());
            bytes += named.filter_map(|nid| sizes.get(&nid)).sum::<usize>();
            from = *to;
            bytes <= most
        });
        let last = fitting.by_ref().last().or(self.commits.first());
        if let Some((to, end)) = last.copied() {
            self.found.truncate(to);
            self.end = end;
        }
        Ok(())
    }

    /// Reads what the entries name.
    async fn load(self, readers: &Readers) -> Result<LogPage, StoreError> {
        let named = self.named();
        let events = events::by_nid(readers, &named).await?;
        let mut transactions = match self.transactions {
            Some((from, to)) => events::transactions_between(readers, from, to).await?,
            None => BTreeMap::new(),
        };
        let mut page = LogPage {
            end: self.end,
            ..LogPage::default()
        };
        for (position, entry) in self.found {
            if let Entry::Head(room) = entry {
                page.moved_rooms.push(room);
                continue;
            }
            let record = record_of(position, entry, &events, &mut transactions);
            page.records
                .extend(record.map(|record| Committed { position, record }));
        }
        page.moved_rooms.sort_unstable();
        page.moved_rooms.dedup();
        Ok(page)
    }
}

impl Entry<'_> {
    /// The event that it names.
    fn event(&self) -> Option<EventNid> {
        match self {
            Self::Event(nid) | Self::Redaction(nid, ..) => Some(*nid),
            _ => None,
        }
    }
}

/// The record of an entry; none where its row is gone.
fn record_of(
    position: Position,
    entry: Entry<'static>,
    events: &HashMap<EventNid, Arc<StoredEvent>>,
    transactions: &mut BTreeMap<Position, NewTransaction>,
) -> Option<Record> {
    Some(match entry {
        Entry::Event(nid) => Record::Event(Arc::clone(events.get(&nid)?)),
        Entry::Placed(nid) => Record::Placed(nid),
        Entry::Redaction(target, room, by) => Record::Redaction(Redaction {
            target,
            room,
            event: Arc::clone(&events.get(&target)?.event),
            by: by.into_owned(),
        }),
        Entry::Transaction => Record::Transaction(transactions.remove(&position)?),
        Entry::Membership(membership) => Record::Membership(membership.into_owned()),
        Entry::Notification(notification) => Record::Notification(notification.into_owned()),
        Entry::Interest(interest) => Record::Interest(interest.into_owned()),
        Entry::Receipt(receipt) => Record::Receipt(receipt.into_owned()),
        Entry::AccountData(data) => Record::AccountData(data.into_owned()),
        Entry::ToDevice(message) => Record::ToDevice(message.into_owned()),
        Entry::DeviceList(change) => Record::DeviceList(change.into_owned()),
        Entry::PeerMessage(message) => Record::PeerMessage(message.into_owned()),
        Entry::SessionsEnded(ended) => Record::SessionsEnded(ended.into_owned()),
        Entry::KeyCounts(device) => Record::KeyCounts(device.into_owned()),
        Entry::Erased(erased) => Record::Erased(erased.into_owned()),
        Entry::KnownServer(name) => Record::KnownServer(name.into_owned()),
        Entry::Head(_) => return None,
    })
}
