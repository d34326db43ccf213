//! The log in memory: what storage promises, in as few words as possible.
//!
//! [`Model`] takes the same records as the real store and answers the same questions, without a database, a clock or
//! a task. Changes wait until [`Model::commit`] makes them durable; [`Model::crash`] forgets what waits. The contract
//! suite compares both engines with it, and a simulation of many servers can run on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use maru::store::accounts::account_data::AccountData;
use maru::store::encryption::to_device::ToDevice;
use maru::store::log::{HeadTicket, Record};
use maru::store::rooms::events::{Direction, NewTransaction, StoredEvent};
use maru::store::rooms::receipts::Receipt;
use maru::store::rooms::state::NewState;
use maru::store::rooms::{Membership, NewAlias, NewRoom, RoomHead};
use maru_protocol::cursor::{Place, Position};
use maru_protocol::state::{EventNid, Run, State, StateNid};

/// Why a change was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// It repeats something that is unique.
    Conflict,
    /// It was built on a change that was not stored.
    StaleHead,
}

/// Records that stand or fall together.
#[derive(Clone, Debug, Default)]
pub struct NewChange {
    /// What to store, in order.
    pub records: Vec<Record>,
    /// The room heads it was built on.
    pub tickets: Vec<HeadTicket>,
}

/// A client's transaction id: user, device, scope, id.
type TransactionKey = (String, String, String, String);

/// A read receipt's place: room, user, type, thread.
type ReceiptKey = (i64, String, String, String);

/// The log and everything that is read from it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    durable: Contents,
    waiting: Vec<NewChange>,
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Contents {
    position: Position,
    rooms: HashMap<i64, NewRoom>,
    heads: HashMap<i64, RoomHead>,
    events: BTreeMap<EventNid, (Position, Arc<StoredEvent>)>,
    states: HashMap<StateNid, NewState>,
    memberships: BTreeMap<(i64, String), (Position, Membership)>,
    transactions: HashMap<TransactionKey, String>,
    aliases: HashMap<String, NewAlias>,
    receipts: BTreeMap<ReceiptKey, (Position, Receipt)>,
    account_data: BTreeMap<(String, i64, String), (Position, AccountData)>,
    to_device: BTreeMap<Position, ToDevice>,
}

impl Model {
    /// Fixes a change's place behind those that wait. It is not durable yet.
    pub fn append(&mut self, change: NewChange) {
        self.waiting.push(change);
    }

    /// Makes what waits durable, each change whole or not at all, and tells in order what became of each.
    pub fn commit(&mut self) -> Vec<Result<Position, NotStored>> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .map(|change| self.commit_one(change))
            .collect()
    }

    fn commit_one(&mut self, change: NewChange) -> Result<Position, NotStored> {
        let is_stale = |ticket: &HeadTicket| ticket.current.load(Ordering::SeqCst) != ticket.built_on;
        if change.tickets.iter().any(is_stale) {
            return Err(NotStored::StaleHead);
        }
        let mut after = self.durable.clone();
        for record in change.records {
            if let Err(error) = after.store(record) {
                for ticket in &change.tickets {
                    ticket.current.store(ticket.built_on + 1, Ordering::SeqCst);
                }
                return Err(error);
            }
        }
        self.durable = after;
        Ok(self.durable.position)
    }

    /// Forgets what was not committed.
    pub fn crash(&mut self) {
        self.waiting.clear();
    }

    /// The newest durable position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.durable.position
    }

    /// An event and its position.
    #[must_use]
    pub fn event(&self, event_id: &str) -> Option<(Position, Arc<StoredEvent>)> {
        let mut events = self.durable.events.values();
        events.find(|(_, stored)| stored.event.id == event_id).cloned()
    }

    /// What is newer than a position, in log order.
    #[must_use]
    pub fn events_after(&self, after: Position) -> Vec<(Position, Arc<StoredEvent>)> {
        let events = self
            .durable
            .events
            .values()
            .filter(|(position, _)| *position > after);
        let mut events: Vec<_> = events.cloned().collect();
        events.sort_by_key(|(position, _)| *position);
        events
    }

    /// Up to `limit` timeline events: below `from` going backward, at or above it going forward.
    #[must_use]
    pub fn timeline(
        &self,
        room: i64,
        from: Place,
        direction: Direction,
        limit: usize,
    ) -> Vec<Arc<StoredEvent>> {
        let in_room = self
            .durable
            .events
            .values()
            .filter(|(_, stored)| stored.room == room);
        let mut placed: Vec<_> = in_room
            .filter_map(|(_, stored)| Some((stored.place?, Arc::clone(stored))))
            .collect();
        placed.retain(|(place, _)| (*place < from) == (direction == Direction::Backward));
        placed.sort_by_key(|(place, _)| *place);
        if direction == Direction::Backward {
            placed.reverse();
        }
        placed.into_iter().take(limit).map(|(_, stored)| stored).collect()
    }

    /// A room state.
    #[must_use]
    pub fn state(&self, nid: StateNid) -> Option<State> {
        self.run(nid).map(State::from_run)
    }

    fn run(&self, nid: StateNid) -> Option<Arc<Run>> {
        let stored = self.durable.states.get(&nid)?;
        let below = match stored.below {
            Some(below) => Some(self.run(below)?),
            None => None,
        };
        Some(Arc::new(Run::from_bytes(nid, below, &stored.entries).ok()?))
    }

    /// A room's head.
    #[must_use]
    pub fn head(&self, room: i64) -> Option<&RoomHead> {
        self.durable.heads.get(&room)
    }

    /// What a transaction id became.
    #[must_use]
    pub fn transaction(&self, user: &str, device: &str, scope: &str, id: &str) -> Option<&str> {
        let key = (
            user.to_owned(),
            device.to_owned(),
            scope.to_owned(),
            id.to_owned(),
        );
        self.durable.transactions.get(&key).map(String::as_str)
    }

    /// A user's memberships, oldest first.
    #[must_use]
    pub fn memberships_of(&self, user: &str) -> Vec<(Position, Membership)> {
        let all = self.durable.memberships.iter().filter(|((_, of), _)| of == user);
        let mut found: Vec<_> = all.map(|(_, membership)| membership.clone()).collect();
        found.sort_by_key(|(position, _)| *position);
        found
    }

    /// The receipts of a room, oldest first.
    #[must_use]
    pub fn receipts(&self, room: i64) -> Vec<Receipt> {
        let mut found: Vec<_> = self
            .durable
            .receipts
            .values()
            .filter(|(_, receipt)| receipt.room == room)
            .collect();
        found.sort_by_key(|(position, _)| *position);
        found.into_iter().map(|(_, receipt)| receipt.clone()).collect()
    }

    /// A user's account data newer than a position, oldest first.
    #[must_use]
    pub fn account_data_after(&self, user: &str, after: Position) -> Vec<AccountData> {
        let all = self.durable.account_data.values();
        let mut found: Vec<_> = all
            .filter(|(position, data)| data.user_id == user && *position > after)
            .collect();
        found.sort_by_key(|(position, _)| *position);
        found.into_iter().map(|(_, data)| data.clone()).collect()
    }

    /// The messages to a device after a position, oldest first.
    #[must_use]
    pub fn to_device(&self, user: &str, device: &str, after: Position) -> Vec<(Position, String)> {
        let newer = self
            .durable
            .to_device
            .iter()
            .filter(|(position, _)| **position > after);
        let own = newer.filter(|(_, message)| message.user_id == user && message.device_id == device);
        own.map(|(position, message)| (*position, message.json.to_string()))
            .collect()
    }

    /// The room that an alias names.
    #[must_use]
    pub fn room_of_alias(&self, alias: &str) -> Option<i64> {
        self.durable.aliases.get(alias).map(|alias| alias.room)
    }
}

impl Contents {
    fn store(&mut self, record: Record) -> Result<(), NotStored> {
        if takes_position(&record) {
            self.position = self.position.next();
        }
        let at = self.position;
        match record {
            Record::Room(room) => {
                let known = self.rooms.values().any(|known| known.room_id == room.room_id);
                unique(!known && self.rooms.insert(room.nid, room).is_none())
            }
            Record::Event(stored) => self.store_event(at, stored),
            Record::State(state) => unique(self.states.insert(state.nid, state).is_none()),
            Record::Head(head) => replaced(self.heads.insert(head.room, head)),
            Record::Membership(membership) => {
                let key = (membership.room, membership.user_id.to_string());
                replaced(self.memberships.insert(key, (at, membership)))
            }
            Record::Redaction(redaction) => {
                if let Some((_, stored)) = self.events.get_mut(&redaction.target) {
                    *stored = Arc::new(stored.redacted(redaction.event, redaction.by));
                }
                Ok(())
            }
            Record::Transaction(transaction) => {
                let NewTransaction {
                    user_id,
                    device_id,
                    scope,
                    transaction_id,
                    event_id,
                    ..
                } = transaction;
                let key = (user_id.to_string(), device_id, scope, transaction_id);
                unique(self.transactions.insert(key, event_id.to_string()).is_none())
            }
            Record::Alias(alias) => unique(self.aliases.insert(alias.alias.to_string(), alias).is_none()),
            Record::Receipt(receipt) => {
                let (user, kind, thread) = (&receipt.user_id, &receipt.receipt_type, &receipt.thread);
                let key = (receipt.room, user.to_string(), kind.clone(), thread.clone());
                replaced(self.receipts.insert(key, (at, receipt)))
            }
            Record::AccountData(data) => {
                let key = (data.user_id.to_string(), data.room, data.data_type.clone());
                replaced(self.account_data.insert(key, (at, data)))
            }
            Record::ToDevice(message) => replaced(self.to_device.insert(at, message)),
            Record::DeviceList(_)
            | Record::Gap(_)
            | Record::Notification(_)
            | Record::Interest(_)
            | Record::Received(_)
            | Record::Ingested(_)
            | Record::PeerMessage(_)
            | Record::Delivered(_)
            | Record::HeardMessage(_)
            | Record::WaitingReceipt(_)
            | Record::SessionsEnded(_)
            | Record::KeyCounts(_)
            | Record::Erased(_)
            | Record::KnownServer(_)
            | Record::EarlyRedaction(_) => Ok(()),
            Record::Placed(nid) => {
                self.events.remove(&nid);
                Ok(())
            }
        }
    }

    fn store_event(&mut self, at: Position, stored: Arc<StoredEvent>) -> Result<(), NotStored> {
        let ids: HashSet<_> = self.events.values().map(|(_, known)| &known.event.id).collect();
        let places = self.events.values().map(|(_, known)| (known.room, known.place));
        let place_taken = stored.place.is_some()
            && places
                .into_iter()
                .any(|place| place == (stored.room, stored.place));
        if ids.contains(&stored.event.id) || place_taken {
            return Err(NotStored::Conflict);
        }
        unique(self.events.insert(stored.nid, (at, stored)).is_none())
    }
}

/// Whether a record stands at a position of its own; the others describe the one before them.
fn takes_position(record: &Record) -> bool {
    match record {
        Record::Event(_)
        | Record::Redaction(_)
        | Record::Receipt(_)
        | Record::AccountData(_)
        | Record::ToDevice(_)
        | Record::DeviceList(_)
        | Record::PeerMessage(_) => true,
        Record::Room(_)
        | Record::Gap(_)
        | Record::State(_)
        | Record::Head(_)
        | Record::Membership(_)
        | Record::Transaction(_)
        | Record::Notification(_)
        | Record::Interest(_)
        | Record::Received(_)
        | Record::Ingested(_)
        | Record::EarlyRedaction(_)
        | Record::Placed(_)
        | Record::Alias(_)
        | Record::Delivered(_)
        | Record::HeardMessage(_)
        | Record::WaitingReceipt(_)
        | Record::SessionsEnded(_)
        | Record::KeyCounts(_)
        | Record::Erased(_)
        | Record::KnownServer(_) => false,
    }
}

fn unique(is_new: bool) -> Result<(), NotStored> {
    if is_new { Ok(()) } else { Err(NotStored::Conflict) }
}

/// The last one wins.
fn replaced<T>(_before: Option<T>) -> Result<(), NotStored> {
    Ok(())
}
