//! The model of a server's database: what is committed survives a crash, what is not is forgotten.
//!
//! It keeps what `server/src/store` keeps for federation, in the same terms: a log of positions, events with their
//! outcomes and states, the room's head, intervals of interest, the inbox, and how far peers' logs were received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maru_protocol::cursor::{LogId, Place};
use maru_protocol::destinations;
use maru_protocol::destinations::{Census, Interested};
use maru_protocol::event::Event;
use maru_protocol::gap::Here;
use maru_protocol::gap::missing::{Found, Missing};
use maru_protocol::ingest::{After, Facts, Head, Known, Outcome, Wanted};
use maru_protocol::state::{EventNid, State};
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::limits::MAX_EXTREMITIES;
use maru_protocol::wire::message::Received;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};

/// An event as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) event: Arc<Event>,
    pub(crate) nid: EventNid,
    pub(crate) outcome: Outcome,
    /// Where it stands in the timeline, if it is accepted.
    pub(crate) place: Option<Place>,
    /// The state after it; none for an outlier.
    pub(crate) state: Option<State>,
    /// What it replaced in its slot.
    pub(crate) replaces: Option<EventNid>,
    /// Whether this server sends it.
    pub(crate) own: bool,
    /// The current state when it was stored, before and after. Of what was made on an older head, which is what another
    /// server had to agree to, the states around it say something else.
    pub(crate) current: [State; 2],
}

impl Stored {
    /// Whether clients are shown it.
    pub(crate) fn is_placed(&self) -> bool {
        self.outcome == Outcome::Accepted && self.state.is_some()
    }
}

/// A gap in the timeline.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// The place of the event after it.
    pub(crate) before: Place,
    /// What is missing there.
    pub(crate) missing: Vec<OwnedEventId>,
}

/// A room with its head.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) version: RoomVersion,
    pub(crate) head: Head,
    pub(crate) census: Census,
    pub(crate) depth: u64,
    /// Where its timeline ends.
    pub(crate) last_place: Place,
}

impl Room {
    /// The forward extremities.
    pub(crate) fn ends(&self) -> Vec<OwnedEventId> {
        self.head.extremities.iter().map(|tip| tip.id.clone()).collect()
    }
}

/// A server's interest in the room: from a position to another, both included.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) server: OwnedServerName,
    pub(crate) from: i64,
    pub(crate) until: Option<i64>,
}

/// An event as a peer sent it.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) from: OwnedServerName,
    pub(crate) json: Arc<str>,
}

/// A message of a user to a device of another server's, which is kept until that server has it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) to: OwnedServerName,
    pub(crate) id: String,
}

/// An invitation of a user into the room, while the server is not in it.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) event: Arc<Event>,
    /// Who is believed about its end: the servers whose users were shown with it.
    pub(crate) shown: BTreeSet<OwnedServerName>,
    /// Whether the user may still follow it.
    pub(crate) is_open: bool,
}

/// What waits in the log for a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting<'a> {
    Event(&'a Stored),
    Message(&'a Message),
}

/// What a change writes. Events and messages take a position; an interest has that of the event before it.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Event(Stored),
    /// Something is missing before this place.
    Opened(Gap),
    /// Nothing is any more.
    Closed(Place),
    /// An event that hung nowhere, or that the head did not let in, finds its place: it makes room for the one after.
    Placed(EventNid),
    Interest(OwnedServerName, Interested),
    Room(Room),
    Arrived(i64, Arrived),
    Received(OwnedServerName, Received),
    Ingested(i64),
    /// A message for a peer.
    Message(Message),
    /// A message of a peer's for a device here.
    Delivered(String),
    /// What has become of a user's invitation.
    Invitation(OwnedUserId, Invitation),
}

/// Everything that a server keeps.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) log_id: LogId,
    pub(crate) position: i64,
    pub(crate) log: BTreeMap<i64, EventNid>,
    pub(crate) events: BTreeMap<EventNid, Stored>,
    ids: BTreeMap<OwnedEventId, EventNid>,
    pub(crate) gaps: BTreeMap<Place, Vec<OwnedEventId>>,
    pub(crate) room: Option<Room>,
    pub(crate) interests: Vec<Interval>,
    pub(crate) inbox: BTreeMap<i64, Arrived>,
    pub(crate) received: BTreeMap<OwnedServerName, Received>,
    /// By position.
    pub(crate) messages: BTreeMap<i64, Message>,
    /// Messages that have come, by their ids.
    pub(crate) delivered: BTreeSet<String>,
    /// The newest of each user.
    pub(crate) invitations: BTreeMap<OwnedUserId, Invitation>,
    /// The highest number in use.
    pub(crate) last_nid: i64,
    /// Events that were given a second place in the log: there must be none.
    pub(crate) doubled: Vec<OwnedEventId>,
}

impl Database {
    pub(crate) fn new(log_id: LogId) -> Self {
        Self {
            log_id,
            position: 0,
            log: BTreeMap::new(),
            events: BTreeMap::new(),
            ids: BTreeMap::new(),
            gaps: BTreeMap::new(),
            room: None,
            interests: Vec::new(),
            inbox: BTreeMap::new(),
            received: BTreeMap::new(),
            messages: BTreeMap::new(),
            delivered: BTreeSet::new(),
            invitations: BTreeMap::new(),
            last_nid: 0,
            doubled: Vec::new(),
        }
    }

    pub(crate) fn next_nid(&mut self) -> i64 {
        self.last_nid += 1;
        self.last_nid
    }

    pub(crate) fn apply(&mut self, change: &[Record]) {
        for record in change {
            self.write(record);
        }
    }

    fn write(&mut self, record: &Record) {
        match record {
            Record::Event(stored) => {
                self.position += 1;
                self.use_number(stored.nid.0);
                self.use_number_of(stored.state.as_ref());
                let old = self.ids.insert(stored.event.id.clone(), stored.nid);
                if old.is_some_and(|old| self.events.get(&old).is_some_and(|old| old.state.is_some())) {
                    self.doubled.push(stored.event.id.clone());
                }
                if stored.state.is_some() {
                    self.log.insert(self.position, stored.nid);
                }
                self.events.insert(stored.nid, stored.clone());
            }
            Record::Placed(nid) => {
                if let Some(stored) = self.events.remove(nid) {
                    self.ids.remove(&stored.event.id);
                }
                self.log.retain(|_, placed| placed != nid);
            }
            Record::Opened(gap) => {
                self.gaps.insert(gap.before, gap.missing.clone());
            }
            Record::Closed(before) => drop(self.gaps.remove(before)),
            Record::Interest(server, change) => self.interest(server, *change),
            Record::Room(room) => {
                self.use_number_of(Some(&room.head.state));
                self.room = Some(room.clone());
            }
            Record::Arrived(row, arrived) => {
                self.use_number(*row);
                self.inbox.insert(*row, arrived.clone());
            }
            Record::Received(peer, received) => {
                self.received.insert(peer.clone(), received.clone());
            }
            Record::Ingested(row) => {
                self.inbox.remove(row);
            }
            Record::Message(message) => {
                self.position += 1;
                self.messages.insert(self.position, message.clone());
            }
            Record::Delivered(id) => {
                self.delivered.insert(id.clone());
            }
            Record::Invitation(user_id, invitation) => {
                self.invitations.insert(user_id.clone(), invitation.clone());
            }
        }
    }

    /// What is on disk keeps its number: after a crash no other event or state gets it.
    fn use_number(&mut self, number: i64) {
        self.last_nid = self.last_nid.max(number);
    }

    fn use_number_of(&mut self, state: Option<&State>) {
        if let Some(number) = state.and_then(State::nid) {
            self.use_number(number.0);
        }
    }

    fn interest(&mut self, server: &OwnedServerName, change: Interested) {
        let position = self.position;
        match change {
            Interested::From | Interested::Once => self.interests.push(Interval {
                server: server.clone(),
                from: position,
                until: (change == Interested::Once).then_some(position),
            }),
            Interested::Until => {
                let open = self.interests.iter_mut();
                open.filter(|interval| interval.server == *server && interval.until.is_none())
                    .for_each(|interval| interval.until = Some(position));
            }
        }
    }

    /// Lets a peer's interest begin anew after the present end.
    pub(crate) fn skip(&mut self, server: &OwnedServerName) {
        let from = self.position + 1;
        let open = self.interests.iter_mut();
        open.filter(|interval| interval.server == *server && interval.until.is_none())
            .for_each(|interval| interval.from = interval.from.max(from));
    }

    /// When a server's last interest ended, if it had any that lasted.
    pub(crate) fn ended(&self, server: &OwnedServerName) -> Option<i64> {
        let of_server = self
            .interests
            .iter()
            .filter(|interval| interval.server == *server);
        let lasted = of_server.filter(|interval| interval.until != Some(interval.from));
        lasted.filter_map(|interval| interval.until).max()
    }

    /// How a server went: the event with which it did, and what its users are since. Where a resolution ended its interest,
    /// the first alone may be one that it has.
    pub(crate) fn ends_of(&self, server: &OwnedServerName) -> Option<Vec<OwnedEventId>> {
        let until = self.ended(server)?;
        let last = self.log.get(&until).and_then(|nid| self.events.get(nid));
        let state = self.room.iter().flat_map(|room| self.whole(&room.head.state));
        let users = state.filter(|stored| destinations::is_membership_of(&stored.event, server));
        let users = users.filter(|stored| self.position_of(stored.nid).is_some_and(|at| at <= until));
        let ends: BTreeSet<_> = last
            .into_iter()
            .chain(users)
            .map(|stored| stored.event.id.clone())
            .collect();
        Some(ends.into_iter().take(MAX_EXTREMITIES).collect())
    }

    /// The servers whose interest has not ended.
    pub(crate) fn interested(&self) -> Vec<OwnedServerName> {
        let open = self.interests.iter().filter(|interval| interval.until.is_none());
        open.map(|interval| interval.server.clone()).collect()
    }

    /// This server's events that a peer is to be sent after a position, with their positions.
    pub(crate) fn events_for<'a>(
        &'a self,
        peer: &'a OwnedServerName,
        after: i64,
    ) -> impl Iterator<Item = (i64, &'a Stored)> {
        let placed = self.log.range(after + 1..);
        placed.filter_map(move |(position, nid)| {
            let stored = self.events.get(nid).filter(|stored| stored.own)?;
            let within = |interval: &Interval| {
                interval.server == *peer
                    && interval.from <= *position
                    && interval.until.is_none_or(|until| *position <= until)
            };
            self.interests.iter().any(within).then_some((*position, stored))
        })
    }

    /// What a peer is to be sent after a position, in log order.
    pub(crate) fn waiting_for<'a>(
        &'a self,
        peer: &'a OwnedServerName,
        after: i64,
    ) -> BTreeMap<i64, Waiting<'a>> {
        let events = self.events_for(peer, after);
        let events = events.map(|(position, stored)| (position, Waiting::Event(stored)));
        let messages = self.messages.range(after + 1..);
        let messages = messages.filter(|(_, message)| message.to == *peer);
        events
            .chain(messages.map(|(position, message)| (*position, Waiting::Message(message))))
            .collect()
    }

    /// Drops what was kept for a peer that has it now.
    pub(crate) fn drop_delivered(&mut self, peer: &OwnedServerName, up_to: i64) {
        self.messages
            .retain(|position, message| *position > up_to || message.to != *peer);
    }

    /// Where an event stands in the log.
    pub(crate) fn position_of(&self, nid: EventNid) -> Option<i64> {
        self.log
            .iter()
            .find(|(_, at)| **at == nid)
            .map(|(position, _)| *position)
    }

    pub(crate) fn event(&self, id: &EventId) -> Option<&Stored> {
        self.events.get(self.ids.get(id)?)
    }

    /// What is missing at the gaps of the timeline.
    fn at_gaps(&self) -> BTreeSet<OwnedEventId> {
        let named = self.gaps.values().flatten().cloned();
        self.missing_of(named).into_iter().collect()
    }

    /// The newest gap at a place or further back, with what is missing there now, which may be nothing.
    pub(crate) fn gap_back_from(&self, place: Place) -> Option<Gap> {
        let (before, named) = self.gaps.range(..=place).next_back()?;
        Some(Gap {
            before: *before,
            missing: self.missing_of(named.iter().cloned()),
        })
    }

    /// What is missing before an accepted event, where no gap stands for it yet.
    pub(crate) fn missing_before(&self, event: &Event) -> Vec<OwnedEventId> {
        let mut missing = self.missing_of(event.prev_events.iter().cloned());
        missing.retain(|id| !self.gaps.values().any(|named| named.contains(id)));
        missing
    }

    /// What is missing of events that accepted ones name, as `server/src/rooms/ingest/gaps.rs` finds it.
    pub(crate) fn missing_of(&self, named: impl IntoIterator<Item = OwnedEventId>) -> Vec<OwnedEventId> {
        let mut missing = Missing::of(named);
        while let Some(ids) = missing.next_generation() {
            for id in ids {
                let found = self.found(&id);
                missing.found(id, found);
            }
        }
        missing.end()
    }

    fn found(&self, id: &EventId) -> Found {
        match self.event(id) {
            Some(stored) if stored.is_placed() => Found::Accepted,
            Some(stored) if stored.state.is_some() || stored.outcome == Outcome::Rejected => {
                Found::TurnedDown(stored.event.prev_events.clone())
            }
            _ => Found::Not,
        }
    }

    /// Which of some events are here, and which stand at a gap.
    pub(crate) fn here(&self, ids: &BTreeSet<OwnedEventId>) -> Here {
        let mut here = Here {
            at_gaps: self.at_gaps().intersection(ids).cloned().collect(),
            ..Here::default()
        };
        for stored in ids.iter().filter_map(|id| self.event(id)) {
            if stored.state.is_some() || stored.outcome == Outcome::Rejected {
                here.settled.insert(stored.event.id.clone());
            }
            if stored.state.is_none() {
                here.outliers.insert(stored.event.id.clone());
            }
        }
        here
    }

    /// Loads what the rules want.
    pub(crate) fn load(&self, facts: &mut Facts, wanted: &Wanted) {
        let state_after = |stored: &Stored| match &stored.state {
            None => After::Nowhere,
            Some(state) => match state.nid() {
                Some(nid) if !wanted.with_state.contains(&stored.event.id) => After::Unread(nid),
                _ => After::State(state.clone()),
            },
        };
        let known = |stored: &Stored| {
            Arc::new(Known {
                event: Arc::clone(&stored.event),
                nid: stored.nid,
                outcome: stored.outcome,
                state_after: state_after(stored),
            })
        };
        for id in wanted.ids.iter().chain(&wanted.with_state) {
            match self.event(id) {
                Some(stored) => facts.learn(known(stored)),
                None => facts.lacks(id.clone()),
            }
        }
        for stored in wanted.nids.iter().filter_map(|nid| self.events.get(nid)) {
            facts.learn(known(stored));
        }
    }

    /// The events of a state, by number.
    pub(crate) fn whole(&self, state: &State) -> Vec<&Stored> {
        let numbers = state.events();
        numbers.iter().filter_map(|nid| self.events.get(nid)).collect()
    }
}
