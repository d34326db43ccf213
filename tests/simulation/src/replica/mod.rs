//! One server's copy of the room: runs the steps of [`maru_protocol::ingest`] and [`maru_protocol::destinations`] on the model
//! database, as `server/src/rooms` runs them on the real one.
//!
//! - [`sending`]: events that are made here.
//! - [`entering`]: how a server comes into the room through another.
//! - [`answers`]: what a peer is told that asks.

pub(crate) mod answers;
pub(crate) mod entering;
pub(crate) mod sending;

use std::collections::BTreeMap;
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::Place;
use maru_protocol::destinations;
use maru_protocol::event::Event;
use maru_protocol::gap::timeline::{self, Filling};
use maru_protocol::gap::{Offer, order};
use maru_protocol::ingest::{self, Facts, Head, Outcome, Outlier, Received, Step};
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedServerName, UserId};

use crate::database::{Database, Gap, Record, Room, Stored};

/// What became of an event.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    Known(Outcome),
    Stored(Outcome),
    Lacks {
        prev_events: Vec<OwnedEventId>,
        auth_events: Vec<OwnedEventId>,
    },
    Broken,
}

/// Writes changes: the newest state of a server's database, with what is on its way to the disk.
pub(crate) trait Writer {
    fn database(&self) -> &Database;
    fn next_nid(&mut self) -> i64;
    fn write(&mut self, change: Vec<Record>);
    /// Whether what is written from now on is one change.
    fn together(&mut self, is_one: bool);
    fn own(&self) -> &OwnedServerName;
}

/// A verified event for the room.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) event: Arc<Event>,
    /// The state before it, where a peer had to tell.
    pub(crate) before: Option<State>,
    /// The row of the inbox that goes with it.
    pub(crate) row: Option<i64>,
    /// Whether it is older than what the room goes on from.
    pub(crate) backfilled: bool,
    /// Whether a server in the room has let it in already.
    pub(crate) accepted: bool,
    /// Whether this server made it.
    pub(crate) own: bool,
}

impl Incoming {
    /// An event that the room goes on with.
    pub(crate) fn live(event: Arc<Event>) -> Self {
        Self {
            event,
            before: None,
            row: None,
            backfilled: false,
            accepted: false,
            own: false,
        }
    }
}

/// Takes a page of the past in, oldest first, before the event after a gap, as `server/src/rooms/ingest/backfill.rs` does it. How
/// many events of it were new; none where a told state is none.
pub(crate) fn take_in_past(on: &mut impl Writer, gap: &Gap, offers: Vec<Offer>) -> Option<usize> {
    let mut page = Vec::with_capacity(offers.len());
    for offer in offers {
        let mut incoming = Incoming::live(offer.event);
        incoming.backfilled = true;
        if let Some(ids) = &offer.told {
            incoming.before = Some(told_state(on, ids)?);
        }
        page.push(incoming);
    }
    let mut filling = Filling::new(gap.before, &gap.missing, page.len());
    let mut count = 0;
    on.together(true);
    for (incoming, place) in page.into_iter().zip(filling.places()) {
        let event = Arc::clone(&incoming.event);
        let is_stored = matches!(take_in_at(on, incoming, Some(place)), Taken::Stored(_));
        filling.took(&event, is_stored);
        count += usize::from(is_stored);
    }
    let moved = filling.moved(on.database().missing_of(filling.named()));
    let mut change = vec![Record::Closed(moved.from)];
    if !moved.missing.is_empty() {
        change.push(Record::Opened(Gap {
            before: moved.to,
            missing: moved.missing,
        }));
    }
    on.write(change);
    on.together(false);
    Some(count)
}

/// The gap that is met who goes back along the timeline from a place. One in which nothing is missing any more is closed.
pub(crate) fn gap_back_from(on: &mut impl Writer, mut place: Place) -> Option<Gap> {
    loop {
        let gap = on.database().gap_back_from(place)?;
        if !gap.missing.is_empty() {
            return Some(gap);
        }
        place = Place(gap.before.0 - 1);
        on.write(vec![Record::Closed(gap.before)]);
    }
}

/// Takes an event into the room, at the end of its timeline.
pub(crate) fn take_in(on: &mut impl Writer, incoming: Incoming) -> Taken {
    take_in_at(on, incoming, None)
}

/// Takes an event into the room, at a given place of the timeline or at its end.
fn take_in_at(on: &mut impl Writer, incoming: Incoming, place: Option<Place>) -> Taken {
    let Incoming {
        event,
        before,
        row,
        backfilled,
        accepted,
        own,
    } = incoming;
    let ingested = row.map(Record::Ingested);
    let known = on.database().event(&event.id).cloned();
    let settled = |known: &Stored| known.state.is_some() || known.outcome == Outcome::Rejected;
    if let Some(known) = known.as_ref().filter(|known| settled(known)) {
        on.write(ingested.into_iter().collect());
        return Taken::Known(known.outcome);
    }
    let Some(mut room) = on.database().room.clone() else {
        return Taken::Broken;
    };
    let nid = known.map_or_else(|| EventNid(on.next_nid()), |outlier| outlier.nid);
    let received = Received {
        event: Arc::clone(&event),
        nid,
        before,
        backfilled,
        accepted,
    };
    let done = match judge(on, &received, room.version, &room.head) {
        Ok(done) => done,
        Err(taken) => {
            if matches!(taken, Taken::Broken) {
                on.write(ingested.into_iter().collect());
            }
            return taken;
        }
    };
    let outcome = done.verdict.outcome;
    let head = done.head.unwrap_or_else(|| room.head.clone());
    let mut missing = Vec::new();
    if outcome == Outcome::Accepted && !backfilled {
        missing = on.database().missing_before(&event);
    }
    let at_the_end = timeline::next_place(room.last_place, !missing.is_empty());
    let place = (outcome == Outcome::Accepted).then(|| place.unwrap_or(at_the_end));
    room.last_place = room.last_place.max(place.unwrap_or(room.last_place));
    let mut change = vec![Record::Event(Stored {
        event: Arc::clone(&event),
        nid,
        outcome,
        place,
        state: Some(done.state_after),
        replaces: done.replaces,
        own,
        current: [room.head.state.clone(), head.state.clone()],
    })];
    let gap = place.filter(|_| !missing.is_empty());
    change.extend(gap.map(|before| Record::Opened(Gap { before, missing })));
    change.extend(advance(on, room, head, &event));
    change.extend(ingested);
    on.write(change);
    Taken::Stored(outcome)
}

/// Asks the rules, loading what they want.
fn judge(
    on: &mut impl Writer,
    received: &Received,
    version: RoomVersion,
    head: &Head,
) -> Result<ingest::Ingested, Taken> {
    let mut facts = Facts::default();
    loop {
        let mut number = || StateNid(on.next_nid());
        match ingest::ingest(received, version, head, &mut facts, &mut number) {
            Ok(Step::Load(wanted)) => on.database().load(&mut facts, &wanted),
            Ok(Step::Lacks {
                prev_events,
                auth_events,
            }) => {
                return Err(Taken::Lacks {
                    prev_events,
                    auth_events,
                });
            }
            Ok(Step::Done(done)) => return Ok(*done),
            Err(_) => return Err(Taken::Broken),
        }
    }
}

/// The room with a new head after an event, and the interests that change with it. It may be part of the new state and is not
/// stored yet.
fn advance(on: &impl Writer, mut room: Room, head: Head, taken: &Arc<Event>) -> Vec<Record> {
    let mut records = Vec::new();
    let database = on.database();
    for (slot, after) in room.head.state.changes_to(&head.state) {
        let before = room
            .head
            .state
            .get(&slot)
            .and_then(|nid| database.events.get(&nid));
        let after = after.map(|nid| database.events.get(&nid).map_or(taken, |stored| &stored.event));
        let before = before.map(|stored| &*stored.event);
        if let Some((server, change)) =
            destinations::recount(&mut room.census, before, after.map(|event| &**event))
            && server != *on.own()
            && change.is_by(taken, after.map(|event| &**event))
        {
            records.push(Record::Interest(server, change));
        }
    }
    room.depth = room.depth.max(taken.depth);
    room.head = head;
    records.push(Record::Room(room));
    records
}

/// Keeps verified events of an auth chain or a state.
pub(crate) fn keep(on: &mut impl Writer, version: RoomVersion, events: Vec<Arc<Event>>) {
    for event in order::by_auth(events) {
        if on.database().event(&event.id).is_some() {
            continue;
        }
        let mut facts = Facts::default();
        let outcome = loop {
            match ingest::judge_outlier(&event, version, &facts) {
                Outlier::Load(wanted) => on.database().load(&mut facts, &wanted),
                Outlier::Lacks(_) => break None,
                Outlier::Done(verdict) => break Some(verdict.outcome),
            }
        };
        if let Some(outcome) = outcome {
            let nid = EventNid(on.next_nid());
            on.write(vec![Record::Event(Stored {
                event,
                nid,
                outcome,
                place: None,
                state: None,
                replaces: None,
                own: false,
                current: [State::default(), State::default()],
            })]);
        }
    }
}

/// A told state as this replica numbers it; none where it is not one.
pub(crate) fn told_state(on: &mut impl Writer, ids: &[OwnedEventId]) -> Option<State> {
    let mut slots = BTreeMap::new();
    for stored in ids.iter().filter_map(|id| on.database().event(id)) {
        if stored.outcome != Outcome::Rejected {
            let slot = StateSlot::of(&stored.event)?;
            if slots.insert(slot.hash(), Some(stored.nid)).is_some() {
                return None;
            }
        }
    }
    Some(State::default().with(StateNid(on.next_nid()), slots))
}

/// The newest event in a slot of the room's state.
pub(crate) fn at(database: &Database, event_type: &str, state_key: &str) -> Option<Arc<Event>> {
    let slot = StateSlot::new(event_type, state_key).hash();
    let nid = database.room.as_ref()?.head.state.get(&slot)?;
    database.events.get(&nid).map(|stored| Arc::clone(&stored.event))
}

/// What a user is in the room, by a replica's current state.
pub(crate) fn membership(database: &Database, user_id: &UserId) -> Option<String> {
    at(database, "m.room.member", user_id.as_str()).and_then(|event| destinations::membership(&event))
}
