//! Which records of the log a service has to do with: those of its users, and those of rooms that are of interest to it for
//! their id, an alias, or a member.
//!
//! Who is in a room is known as it was at the record at hand, however far the log has come since: a service that comes back is
//! given what was said while its users were there, and not what was said after. Of a room that is met for the first time the
//! members are those of now, but for who has come or gone since; from there on they follow the records. Where the reader goes
//! on elsewhere than where it stopped, all is forgotten and met anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use maru_protocol::ingest::Outcome;
use maru_protocol::state::EventNid;
use maru_protocol::visibility::Membership;
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::Sources;
use crate::appservice_registrations::Registration;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::encryption::to_device::ToDevice;
use crate::store::log::{Committed, Record};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::Receipt;

/// Rooms that are remembered; beyond, all are forgotten and met anew.
const ROOMS: usize = 20_000;

/// Users of the service in all these rooms together, likewise.
const MEMBERS: usize = 200_000;

/// How many changes of one membership are followed back to find what it was.
const CHANGES: usize = 64;

/// What a service has to do with, as far as the reader has come.
#[derive(Debug)]
pub(super) struct Interest {
    service: Arc<Registration>,
    /// The last position whose records were walked.
    walked: Position,
    rooms: HashMap<i64, RoomInterest>,
    /// Rooms of the records at hand that have an alias of the service.
    aliased: HashSet<i64>,
}

#[derive(Debug)]
struct RoomInterest {
    room_id: OwnedRoomId,
    /// The service has to do with the room whoever is in it.
    is_by_id: bool,
    /// The service's users in it.
    members: HashSet<OwnedUserId>,
}

/// An event that a service is given.
#[derive(Clone, Debug)]
pub(super) enum Picked {
    /// A live event.
    Live(Arc<StoredEvent>),
    /// An invitation or the like in a room that this server is not in.
    Outside(EventNid),
}

/// What records hold for a service, in order.
#[derive(Debug, Default)]
pub(super) struct Picks {
    pub(super) events: Vec<Picked>,
    pub(super) receipts: Vec<(OwnedRoomId, Receipt)>,
    pub(super) to_device: Vec<ToDevice>,
    /// Users whose devices have changed.
    pub(super) device_lists: Vec<OwnedUserId>,
    /// Devices whose keys on the server have become more or fewer.
    pub(super) key_counts: HashSet<(OwnedUserId, String)>,
}

impl Interest {
    pub(super) fn new(service: Arc<Registration>) -> Self {
        Self {
            service,
            walked: Position::START,
            rooms: HashMap::new(),
            aliased: HashSet::new(),
        }
    }

    /// Brings what walking these records needs into memory: no query where their rooms are known, and otherwise a handful for
    /// all of them together.
    pub(super) async fn prepare(&mut self, sources: &Sources, records: &[Committed]) -> Result<(), Refusal> {
        let Some(first) = records.first() else {
            return Ok(());
        };
        let members = self.rooms.values().map(|room| room.members.len());
        let is_much = self.rooms.len() > ROOMS || members.sum::<usize>() > MEMBERS;
        if is_much || first.position != self.walked.next() {
            self.rooms.clear();
        }
        let named: HashSet<i64> = records
            .iter()
            .filter_map(|committed| room_of(&committed.record))
            .collect();
        let new = named
            .iter()
            .copied()
            .filter(|room| !self.rooms.contains_key(room));
        let new: Vec<i64> = new.collect();
        if !new.is_empty() {
            let before = Position(first.position.0 - 1);
            self.meet(sources, new, before).await?;
        }
        self.aliased.clear();
        if !self.service.aliases.is_empty() {
            // Also of those where somebody is who may leave within these records.
            let aliases = sources
                .store
                .rooms
                .aliases_of_rooms(named.into_iter().collect())
                .await?;
            let own = aliases
                .into_iter()
                .filter(|(_, alias)| self.service.aliases.contain(alias));
            self.aliased = own.map(|(room, _)| room).collect();
        }
        Ok(())
    }

    /// Meets rooms as they were at a position.
    async fn meet(&mut self, sources: &Sources, nids: Vec<i64>, at: Position) -> Result<(), Refusal> {
        for room in sources.rooms.repository.rooms_by_nid(&nids).await?.into_values() {
            let met = RoomInterest::of(&self.service, &room);
            self.rooms.insert(room.nid, met);
        }
        let changed = sources.store.rooms.memberships_since(nids, at).await?.into_iter();
        let changed = changed.map(|stored| stored.membership);
        let changed = changed.filter(|membership| self.service.is_for_user(&membership.user_id));
        let mut open: Vec<_> = changed
            .map(|membership| (membership.room, membership.user_id, membership.event))
            .collect();
        for _ in 0..CHANGES {
            if open.is_empty() {
                break;
            }
            let nids: Vec<EventNid> = open.iter().map(|(.., event)| *event).collect();
            let events = sources.rooms.repository.events(&nids).await?;
            let mut older = Vec::new();
            for (room, user_id, nid) in open {
                match events.get(&nid) {
                    Some(stored) if stored.position().is_none_or(|position| position > at) => {
                        match stored.replaces {
                            Some(before) => older.push((room, user_id, before)),
                            None => self.set_member(room, &user_id, false),
                        }
                    }
                    Some(stored) => {
                        let is_joined = Membership::of(&stored.event) == Some(Membership::Join);
                        self.set_member(room, &user_id, is_joined);
                    }
                    None => self.set_member(room, &user_id, false),
                }
            }
            open = older;
        }
        Ok(())
    }

    /// Goes over records in order; what of those after a position is for the service.
    pub(super) fn walk(&mut self, sources: &Sources, records: &[Committed], after: Position) -> Picks {
        let mut picks = Picks::default();
        let mut live = HashSet::new();
        let is_encrypting = self.service.encrypts;
        let is_told = self.service.ephemeral.is_wanted();
        for Committed { position, record } in records {
            let is_new = *position > after;
            match record {
                Record::Event(stored) if is_live(stored) => {
                    live.insert(stored.nid);
                    if is_new && self.picks_event(stored) {
                        picks.events.push(Picked::Live(Arc::clone(stored)));
                    }
                }
                Record::Membership(membership) if self.service.is_for_user(&membership.user_id) => {
                    let user_id = &membership.user_id;
                    self.set_member(membership.room, user_id, membership.membership == "join");
                    let is_outside = !live.contains(&membership.event) && sources.identity.is_local(user_id);
                    if is_new && is_outside {
                        picks.events.push(Picked::Outside(membership.event));
                    }
                }
                Record::Receipt(receipt) if is_new && is_told && receipt.receipt_type == "m.read" => {
                    let room = self.rooms.get(&receipt.room);
                    let room = room.filter(|_| self.is_of_interest(receipt.room));
                    let picked = room.map(|room| (room.room_id.clone(), receipt.clone()));
                    picks.receipts.extend(picked);
                }
                Record::ToDevice(message) if is_new && self.takes_message(message) => {
                    picks.to_device.push(message.clone());
                }
                Record::DeviceList(change) if is_new && is_encrypting && !change.for_one => {
                    let is_told = change
                        .tell
                        .iter()
                        .any(|user_id| self.service.is_for_user(user_id));
                    if is_told && !picks.device_lists.contains(&change.user_id) {
                        picks.device_lists.push(change.user_id.clone());
                    }
                }
                Record::KeyCounts(device)
                    if is_new && is_encrypting && self.service.is_for_user(&device.user_id) =>
                {
                    let device = (device.user_id.clone(), device.device_id.clone());
                    picks.key_counts.insert(device);
                }
                _ => {}
            }
        }
        self.walked = records.last().map_or(self.walked, |last| last.position);
        picks
    }

    /// Whether the service is given messages to devices, and this one.
    pub(super) fn takes_message(&self, message: &ToDevice) -> bool {
        let is_wanted = self.service.encrypts || self.service.ephemeral.is_wanted();
        // What it is given is dropped: people of a wider namespace have devices of their own that wait for theirs.
        is_wanted && self.service.has_user_alone(&message.user_id)
    }

    /// Whether what passes in a room now is for the service.
    pub(super) fn has_now(&self, room: &Room) -> bool {
        match self.rooms.contains_key(&room.nid) {
            true => self.is_of_interest(room.nid),
            false => RoomInterest::has_any(&self.service, room),
        }
    }

    fn picks_event(&self, stored: &StoredEvent) -> bool {
        let event = &stored.event;
        let subject = || {
            let is_member = &*event.event_type == "m.room.member";
            let subject = event.state_key.as_deref().filter(|_| is_member);
            subject.and_then(|subject| <&UserId>::try_from(subject).ok())
        };
        self.is_of_interest(stored.room)
            || self.service.is_for_user(&event.sender)
            || subject().is_some_and(|subject| self.service.is_for_user(subject))
            || self.service.is_for_room(&event.room_id)
    }

    fn is_of_interest(&self, room: i64) -> bool {
        let known = self.rooms.get(&room);
        known.is_some_and(|room| room.is_by_id || !room.members.is_empty()) || self.aliased.contains(&room)
    }

    fn set_member(&mut self, room: i64, user_id: &UserId, is_joined: bool) {
        // Of one that is not known all members are met later.
        if let Some(room) = self.rooms.get_mut(&room) {
            if is_joined {
                room.members.insert(user_id.to_owned());
            } else {
                room.members.remove(user_id);
            }
        }
    }
}

impl RoomInterest {
    /// A room as it is now. Costs grow with its members.
    fn of(service: &Registration, room: &Room) -> Self {
        let mut members = HashSet::new();
        room.for_each_member(|user_id| {
            if service.is_for_user(user_id) {
                members.insert(user_id.to_owned());
            }
        });
        Self {
            room_id: room.room_id.clone(),
            is_by_id: service.is_for_room(&room.room_id),
            members,
        }
    }

    fn has_any(service: &Registration, room: &Room) -> bool {
        service.is_for_room(&room.room_id)
            || room.find_member(|user_id| service.is_for_user(user_id)).is_some()
    }
}

/// Whether an event is a new part of its room.
fn is_live(stored: &StoredEvent) -> bool {
    stored.outcome == Outcome::Accepted && stored.place.is_some_and(Place::is_live)
}

/// The room (rooms.nid) whose interest a record depends on or changes.
fn room_of(record: &Record) -> Option<i64> {
    match record {
        Record::Event(stored) => is_live(stored).then_some(stored.room),
        Record::Membership(membership) => Some(membership.room),
        Record::Receipt(receipt) => (receipt.receipt_type == "m.read").then_some(receipt.room),
        _ => None,
    }
}
