//! What happens when a batch has become durable: rooms move on, inboxes fill, sessions wake.

use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use ruma::UserId;

use super::notifier::Delivering;
use super::peer_wakeups::PeerWakeups;
use super::user_stream_cache::Item;
use super::{EventWaiters, Notifier, RecentEvents};
use crate::nodes::bus::CommitSignal;
use crate::push::{CustomRules, IGNORED_USERS, PUSH_RULES};
use crate::rooms::RoomCache;
use crate::store::log::{CommitReader, Committed, Record};
use crate::store::rooms::events::StoredEvent;

/// Everything in memory that follows the log.
#[derive(Debug, Default)]
pub struct CommitListeners {
    /// Rooms and events in memory.
    pub room_cache: Arc<RoomCache>,
    /// Who is listening.
    pub notifier: Arc<Notifier>,
    /// Who has push rules of their own.
    pub custom_rules: Arc<CustomRules>,
    /// Other servers that have something to come.
    pub peer_wakeups: Arc<PeerWakeups>,
    /// The newest events of this server.
    pub recent_events: Arc<RecentEvents>,
    /// Events that receipts wait for.
    pub event_waiters: Arc<EventWaiters>,
    /// Whoever tells other nodes how far the log has come.
    pub commit_signal: Arc<CommitSignal>,
}

impl CommitReader for CommitListeners {
    fn committed(&self, batch: &[Committed], end: Position) {
        self.commit_signal.raise(end);
        self.show(batch, end, || ());
    }

    fn tells_nodes(&self) -> bool {
        self.commit_signal.is_carried()
    }
}

impl CommitListeners {
    /// Shows records to whoever they concern, in order. `then` is called before sessions read up to `end`.
    pub(super) fn show(&self, records: &[Committed], end: Position, then: impl FnOnce()) {
        self.recent_events.committed(records);
        let mut delivering = self.notifier.delivering();
        for committed in records {
            self.hand_out(committed, &mut delivering);
            self.apply(committed);
            self.send_on(&committed.record);
        }
        then();
        delivering.finish(end);
    }

    /// Moves what is in memory to where the database is.
    fn apply(&self, committed: &Committed) {
        match &committed.record {
            Record::Event(stored) => {
                self.room_cache.commit_event(stored);
                if stored.place.is_some() {
                    self.event_waiters.committed(&stored.event.id);
                }
            }
            Record::Placed(_) => self.room_cache.commit_place(),
            Record::Redaction(redaction) => self.room_cache.redact(redaction),
            Record::Head(head) => {
                if let Some(room) = self.room_cache.get(head.room) {
                    room.commit_head(head, committed.position);
                }
            }
            Record::Membership(membership) => {
                if let Some(room) = self.room_cache.get(membership.room) {
                    room.commit_membership(membership);
                }
                let is_joined = membership.membership == "join";
                self.custom_rules
                    .commit_membership(membership.room, &membership.user_id, is_joined);
            }
            Record::AccountData(data) if [PUSH_RULES, IGNORED_USERS].contains(&&*data.data_type) => {
                self.custom_rules.commit_rules(&data.user_id);
            }
            _ => {}
        }
    }

    /// Notes the servers that a record is for. Costs grow with the servers of its room.
    fn send_on(&self, record: &Record) {
        match record {
            Record::Event(stored) if stored.own && stored.place.is_some() => {
                let Some(room) = self.room_cache.get(stored.room) else {
                    return;
                };
                let head = room.head();
                if head.servers.len() > 1 {
                    self.peer_wakeups.add(head.servers.keys().map(AsRef::as_ref));
                }
            }
            Record::Interest(interest) => {
                self.peer_wakeups.add(std::iter::once(&*interest.server_name));
            }
            Record::Receipt(receipt) if receipt.own && receipt.receipt_type == "m.read" => {
                if let Some(room) = self.room_cache.get(receipt.room) {
                    self.peer_wakeups
                        .add(room.head().servers.keys().map(AsRef::as_ref));
                }
            }
            Record::DeviceList(change) => self.peer_wakeups.add(change.servers.iter().map(AsRef::as_ref)),
            Record::PeerMessage(message) => self.peer_wakeups.add(std::iter::once(&*message.server_name)),
            _ => {}
        }
    }

    /// Gives a record to the users whom it concerns. Costs grow with the members of its room.
    fn hand_out(&self, committed: &Committed, delivering: &mut Delivering<'_>) {
        if delivering.is_idle() {
            return;
        }
        let position = committed.position;
        // Of a room that this server is not in, or no longer, its users hear through their own memberships alone, by
        // events that have no place in a timeline.
        if let Record::Membership(membership) = &committed.record
            && let Some(stored) = self.room_cache.events.get(&membership.event)
            && (stored.place.is_none() || self.room_cache.get(membership.room).is_none())
        {
            delivering.give(&membership.user_id, position, &Item::Event(stored));
        }
        let Some(item) = Item::of(&committed.record) else {
            return;
        };
        match &committed.record {
            // Outliers and the past wake nobody.
            Record::Event(stored) if !stored.place.is_some_and(Place::is_live) => {}
            Record::Event(stored) => {
                self.to_members(stored.room, |user_id| delivering.give(user_id, position, &item));
                if let Some(subject) = subject(stored).filter(|subject| !self.is_member(stored.room, subject))
                {
                    delivering.give(subject, position, &item);
                }
            }
            Record::Receipt(receipt) if receipt.receipt_type != "m.read" => {
                delivering.give(&receipt.user_id, position, &item);
            }
            Record::Receipt(receipt) => {
                self.to_members(receipt.room, |user_id| delivering.give(user_id, position, &item));
            }
            Record::Transaction(transaction) => delivering.give(&transaction.user_id, position, &item),
            Record::Notification(item_of) => delivering.give(&item_of.user_id, position, &item),
            Record::AccountData(data) => delivering.give(&data.user_id, position, &item),
            Record::ToDevice(message) => delivering.give(&message.user_id, position, &item),
            Record::DeviceList(change) => {
                change
                    .tell
                    .iter()
                    .for_each(|user_id| delivering.give(user_id, position, &item));
            }
            _ => {}
        }
    }

    fn to_members(&self, room: i64, each: impl FnMut(&UserId)) {
        if let Some(room) = self.room_cache.get(room) {
            room.for_each_member(each);
        }
    }

    fn is_member(&self, room: i64, user_id: &UserId) -> bool {
        self.room_cache
            .get(room)
            .is_some_and(|room| room.is_joined(user_id))
    }
}

/// The user whose membership an event is about.
fn subject(stored: &StoredEvent) -> Option<&UserId> {
    let event = &stored.event;
    if &*event.event_type != "m.room.member" {
        return None;
    }
    event.state_key.as_deref()?.try_into().ok()
}
