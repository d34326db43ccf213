//! One listening user's share of the recent log, in memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maru_protocol::cursor::Position;
use ruma::OwnedUserId;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::RoomUnread;
use crate::push::{IGNORED_USERS, ignored_users};
use crate::store::accounts::account_data::{AccountData, GLOBAL};
use crate::store::encryption::to_device::ToDevice;
use crate::store::log::Record;
use crate::store::rooms::events::{NewTransaction, StoredEvent};
use crate::store::rooms::notifications::NewNotification;
use crate::store::rooms::receipts::Receipt;

/// Deliveries that an inbox holds. Older ones are dropped and read from the database by who still needs them.
const DELIVERIES: usize = 512;

/// Something that the user may have to hear of.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event in a room the user is in, or about the user's own membership.
    Event(Arc<StoredEvent>),
    /// One of the user's devices sent an event under this transaction id.
    Sent(Arc<NewTransaction>),
    /// The user's push rules say this of an event (its room and place).
    Notified(Arc<NewNotification>),
    /// Somebody read.
    Receipt(Arc<Receipt>),
    /// The user's own account data.
    AccountData(Arc<AccountData>),
    /// A message to one of the user's devices.
    ToDevice(Arc<ToDevice>),
    /// Somebody who shares a room, or the user, has changed devices.
    DeviceList(OwnedUserId),
}

/// An item and when it entered the log.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its position.
    pub position: Position,
    /// What it is.
    pub item: Item,
}

/// What a session has not seen of an inbox.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// Durable items, oldest first.
    pub deliveries: Vec<Delivery>,
    /// Rooms whose typing users changed (rooms.nid).
    pub typing: Vec<i64>,
    /// Users whose presence changed.
    pub presence: Vec<OwnedUserId>,
    /// The log position up to which `deliveries` is complete.
    pub position: Position,
    /// The counter of what lives in memory only.
    pub ephemeral: u64,
}

impl Fresh {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.typing.is_empty() && self.presence.is_empty()
    }
}

/// When somebody began to count in the database: see [`UserInbox::remember_unread`].
#[derive(Clone, Copy, Debug)]
pub struct CountingSince {
    unread_lost: u64,
    newest: Position,
}

#[derive(Debug, Default)]
struct Contents {
    deliveries: VecDeque<Delivery>,
    /// Everything after this position is here.
    floor: Position,
    /// Every change of what lives in memory only after this counter is in `typing` and `presence`.
    ephemeral_floor: u64,
    typing: HashMap<i64, u64>,
    presence: HashMap<OwnedUserId, u64>,
    /// The newest counter in `typing` and `presence`.
    latest_ephemeral: u64,
    unread: HashMap<i64, RoomUnread>,
    /// How often counts became unknown.
    unread_lost: u64,
    ignored: Option<Arc<HashSet<OwnedUserId>>>,
}

/// The inbox of one user, shared by all the user's sessions.
#[derive(Debug)]
pub struct UserInbox {
    user_id: OwnedUserId,
    contents: Mutex<Contents>,
    changed: Notify,
    /// How often the sessions had to look at their tokens again.
    recalls: AtomicU64,
    sessions: AtomicI64,
    /// When a session last used it, in milliseconds since 1970.
    used_at: AtomicU64,
}

impl UserInbox {
    /// An inbox that is complete from `floor` on, and of what lives in memory only from `ephemeral_floor` on.
    pub(super) fn new(user_id: OwnedUserId, floor: Position, ephemeral_floor: u64) -> Self {
        Self {
            user_id,
            contents: Mutex::new(Contents {
                floor,
                ephemeral_floor,
                ..Contents::default()
            }),
            changed: Notify::new(),
            recalls: AtomicU64::new(0),
            sessions: AtomicI64::new(0),
            used_at: AtomicU64::new(0),
        }
    }

    /// What came after a session's cursor, up to `position`; none when the inbox does not reach back that far.
    pub fn after(
        &self,
        since: Position,
        since_ephemeral: u64,
        position: Position,
        ephemeral: u64,
    ) -> Option<Fresh> {
        let contents = self.lock();
        if since < contents.floor || since_ephemeral < contents.ephemeral_floor {
            return None;
        }
        // What a session has not seen is the end of the queue, and mostly one item: looked for from there.
        let newer = contents.deliveries.iter().rev();
        let unseen = newer.take_while(|delivery| delivery.position > since).count();
        let deliveries = contents
            .deliveries
            .range(contents.deliveries.len() - unseen..)
            .take_while(|delivery| delivery.position <= position);
        let mut fresh = Fresh {
            deliveries: deliveries.cloned().collect(),
            position,
            ephemeral,
            ..Fresh::default()
        };
        // Most of the time nobody's presence or typing has changed: then the maps are not looked through.
        if contents.latest_ephemeral > since_ephemeral {
            let newer = |counter: &u64| *counter > since_ephemeral && *counter <= ephemeral;
            let typing = contents.typing.iter().filter(|(_, at)| newer(at));
            fresh.typing = typing.map(|(room, _)| *room).collect();
            let presence = contents.presence.iter().filter(|(_, at)| newer(at));
            fresh.presence = presence.map(|(user, _)| user.clone()).collect();
        }
        Some(fresh)
    }

    /// Whether [`UserInbox::after`] has something to show, or cannot tell.
    pub fn has_after(
        &self,
        since: Position,
        since_ephemeral: u64,
        position: Position,
        ephemeral: u64,
    ) -> bool {
        let contents = self.lock();
        let newest = contents
            .deliveries
            .back()
            .map_or(contents.floor, |delivery| delivery.position);
        since < contents.floor
            || since_ephemeral < contents.ephemeral_floor
            || newest > since && position > since
            || contents.latest_ephemeral > since_ephemeral && ephemeral > since_ephemeral
    }

    /// Completes at the next delivery. Make it before looking at [`UserInbox::after`], so that nothing falls between.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Adds a durable item.
    pub(super) fn deliver(&self, position: Position, item: Item) {
        let mut contents = self.lock();
        self.count_unread(&mut contents, &item);
        if let Item::AccountData(data) = &item
            && data.room == GLOBAL
            && data.data_type == IGNORED_USERS
        {
            contents.ignored = Some(Arc::new(ignored_users(&data.content)));
        }
        if contents.deliveries.len() >= DELIVERIES
            && let Some(dropped) = contents.deliveries.pop_front()
        {
            contents.floor = dropped.position;
        }
        contents.deliveries.push_back(Delivery { position, item });
    }

    /// Keeps the unread counts current. What moves the place from which the user counts makes those of the room unknown:
    /// a receipt of the user's own, or that the user comes or goes. So does a redaction.
    fn count_unread(&self, contents: &mut Contents, item: &Item) {
        let lost = match item {
            // What was redacted counts no more, wherever it stood.
            Item::Event(stored) if &*stored.event.event_type == "m.room.redaction" => stored.room,
            Item::Event(stored) if stored.event.is_state_at("m.room.member", self.user_id.as_str()) => {
                stored.room
            }
            Item::Receipt(receipt) if receipt.user_id == self.user_id => receipt.room,
            Item::Event(stored) => {
                if let Some(room) = contents.unread.get_mut(&stored.room) {
                    room.count(stored, &self.user_id);
                }
                return;
            }
            Item::Notified(notification) => {
                if let Some(room) = contents.unread.get_mut(&notification.room) {
                    room.correct(notification.place, notification.notify);
                }
                return;
            }
            _ => return,
        };
        contents.unread.remove(&lost);
        contents.unread_lost += 1;
    }

    /// Everything after this position is in the inbox.
    pub fn floor(&self) -> Position {
        self.lock().floor
    }

    /// Whom the user ignores, where it is known.
    pub fn ignored(&self) -> Option<Arc<HashSet<OwnedUserId>>> {
        self.lock().ignored.clone()
    }

    /// Remembers whom the user ignores, as the database says, which what was delivered meanwhile has overtaken; who it is.
    pub fn remember_ignored(&self, ignored: HashSet<OwnedUserId>) -> Arc<HashSet<OwnedUserId>> {
        let mut contents = self.lock();
        Arc::clone(contents.ignored.get_or_insert_with(|| Arc::new(ignored)))
    }

    /// The user's unread counts of a room, where they are known.
    pub fn unread(&self, room: i64) -> Option<RoomUnread> {
        self.lock().unread.get(&room).cloned()
    }

    /// To be called before unread counts are read from the database.
    pub fn begin_counting(&self) -> CountingSince {
        let contents = self.lock();
        let newest = contents.deliveries.back();
        CountingSince {
            unread_lost: contents.unread_lost,
            newest: newest.map_or(contents.floor, |delivery| delivery.position),
        }
    }

    /// Adds to unread counts from the database what was delivered meanwhile, and remembers them, unless counts became
    /// unknown since they began to be read: they may be from before that.
    pub fn remember_unread(&self, room: i64, mut counts: RoomUnread, since: CountingSince) -> RoomUnread {
        let mut contents = self.lock();
        for delivery in &contents.deliveries {
            match &delivery.item {
                Item::Event(stored) if stored.room == room => {
                    counts.count(stored, &self.user_id);
                }
                Item::Notified(item) if item.room == room => counts.correct(item.place, item.notify),
                _ => {}
            }
        }
        if contents.unread_lost == since.unread_lost && contents.floor <= since.newest {
            contents.unread.insert(room, counts.clone());
        }
        counts
    }

    /// Forgets what it knows of what lives in memory only, up to a counter.
    pub(super) fn void_passing(&self, counter: u64) {
        let mut contents = self.lock();
        contents.ephemeral_floor = counter;
        contents.typing.clear();
        contents.presence.clear();
    }

    /// Notes that the typing users of a room changed.
    pub(super) fn typing_changed(&self, room: i64, counter: u64) {
        let mut contents = self.lock();
        contents.latest_ephemeral = contents.latest_ephemeral.max(counter);
        contents.typing.insert(room, counter);
    }

    /// Notes that somebody's presence changed.
    pub(super) fn presence_changed(&self, user_id: OwnedUserId, counter: u64) {
        let mut contents = self.lock();
        contents.latest_ephemeral = contents.latest_ephemeral.max(counter);
        contents.presence.insert(user_id, counter);
    }

    /// Wakes the sessions that wait.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Wakes the sessions that wait, and has them look at their tokens again.
    pub(super) fn recall(&self) {
        self.recalls.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// How often the sessions had to look at their tokens again.
    pub fn recalls(&self) -> u64 {
        self.recalls.load(Ordering::SeqCst)
    }

    /// A session begins to use the inbox, which is kept while it does.
    pub fn session_started(&self) {
        self.sessions.fetch_add(1, Ordering::AcqRel);
    }

    /// A session ends, at a time in milliseconds since 1970.
    pub fn session_ended(&self, now_ms: u64) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
        self.used_at.store(now_ms, Ordering::Release);
    }

    /// Whether nobody has used it since a time.
    pub(super) fn is_unused_since(&self, ms: u64) -> bool {
        self.sessions.load(Ordering::Acquire) == 0 && self.used_at.load(Ordering::Acquire) < ms
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    /// The item that a record is to a user, where it is one whatever the user.
    pub(super) fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Event(stored) => Self::Event(Arc::clone(stored)),
            Record::Transaction(transaction) => Self::Sent(Arc::new(transaction.clone())),
            Record::Notification(item) => Self::Notified(Arc::new(item.clone())),
            Record::Receipt(receipt) => Self::Receipt(Arc::new(receipt.clone())),
            Record::AccountData(data) => Self::AccountData(Arc::new(data.clone())),
            Record::ToDevice(message) => Self::ToDevice(Arc::new(message.clone())),
            Record::DeviceList(change) => Self::DeviceList(change.user_id.clone()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use maru_protocol::cursor::Place;
    use ruma::{event_id, user_id};

    use crate::live::user_stream_cache::*;
    use crate::store::rooms::notifications::Unread;

    const ROOM: i64 = 7;

    fn unread(notifications: u64) -> RoomUnread {
        let highlights = 0;
        let counts = Unread {
            notifications,
            highlights,
        };
        RoomUnread::new(Place(3), HashMap::from([(None, counts)]))
    }

    fn receipt_of(user_id: &ruma::UserId) -> Item {
        Item::Receipt(Arc::new(Receipt {
            room: ROOM,
            user_id: user_id.to_owned(),
            receipt_type: "m.read".to_owned(),
            thread: String::new(),
            event_id: event_id!("$event").to_owned(),
            place: Place(3),
            ts: 0,
            own: true,
        }))
    }

    #[test]
    fn counts_from_before_a_receipt_are_not_remembered() {
        let (alice, bob) = (user_id!("@alice:example.org"), user_id!("@bob:example.org"));
        let inbox = UserInbox::new(alice.to_owned(), Position::START, 0);
        let since = inbox.begin_counting();
        inbox.deliver(Position(1), receipt_of(alice));
        inbox.remember_unread(ROOM, unread(3), since);
        assert!(inbox.unread(ROOM).is_none());
        // What others read does not matter.
        let since = inbox.begin_counting();
        inbox.deliver(Position(2), receipt_of(bob));
        inbox.remember_unread(ROOM, unread(0), since);
        assert_eq!(
            inbox.unread(ROOM).map(|counts| counts.main),
            Some(Unread::default())
        );
    }

    #[test]
    fn counts_are_not_remembered_without_all_that_came_meanwhile() {
        let (alice, bob) = (user_id!("@alice:example.org"), user_id!("@bob:example.org"));
        let inbox = UserInbox::new(alice.to_owned(), Position::START, 0);
        let since = inbox.begin_counting();
        for position in (1..).take(DELIVERIES + 1) {
            inbox.deliver(Position(position), receipt_of(bob));
        }
        inbox.remember_unread(ROOM, unread(3), since);
        assert!(inbox.unread(ROOM).is_none());
    }
}
