//! One server's copy of the room: runs the steps of [`maru_protocol::ingest`] and [`maru_protocol::interest`] on the model
//! database, as `server/src/rooms` runs them on the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::gap::{Answer, Question, order};
use maru_protocol::ingest::{self, Facts, Head, Outcome, Outlier, Received, Step};
use maru_protocol::interest;
use maru_protocol::key::SigningKey;
use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::version::RoomVersion;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde_json::Value;

use crate::database::{Database, Record, Room, Stored};

/// Most events of one answer.
const MOST_EVENTS: usize = 500;

/// What became of an event.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    Known,
    Stored(Outcome),
    Lacks {
        prev_events: Vec<OwnedEventId>,
        auth_events: Vec<OwnedEventId>,
    },
    Broken,
}

/// Something that a user does.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) sender: OwnedUserId,
    pub(crate) event_type: &'static str,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Value,
    /// By the clock of the server.
    pub(crate) now_ms: u64,
}

/// What a peer needs to build a membership event.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) version: RoomVersion,
    pub(crate) links: Links,
}

/// The room as a joining server is told it.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) answer: Answer,
    pub(crate) extremities: Vec<OwnedEventId>,
}

/// Writes changes: the newest state of a server's database, with what is on its way to the disk.
pub(crate) trait Writer {
    fn database(&self) -> &Database;
    fn next_nid(&mut self) -> i64;
    fn write(&mut self, change: Vec<Record>);
    fn own(&self) -> &OwnedServerName;
}

/// Takes a verified event into the room. `told` is the state before it, where a peer had to tell; `row` goes from the
/// inbox with it; `past` says that it lies before what the room goes on from.
pub(crate) fn take_in(
    on: &mut impl Writer,
    event: &Arc<Event>,
    told: Option<State>,
    row: Option<i64>,
    past: bool,
) -> Taken {
    let ingested = row.map(Record::Ingested);
    let known = on.database().event(&event.id).cloned();
    let settled = |known: &Stored| known.state.is_some() || known.outcome == Outcome::Rejected;
    if known.as_ref().is_some_and(settled) {
        on.write(ingested.into_iter().collect());
        return Taken::Known;
    }
    let Some(room) = on.database().room.clone() else {
        return Taken::Broken;
    };
    let nid = known.map_or_else(|| EventNid(on.next_nid()), |outlier| outlier.nid);
    let received = Received {
        event: Arc::clone(event),
        nid,
        before: told,
        backfilled: past,
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
    let mut change = vec![Record::Event(Stored {
        event: Arc::clone(event),
        nid,
        outcome,
        state: Some(done.state_after),
        replaces: done.replaces,
        own: false,
    })];
    let head = done.head.unwrap_or_else(|| room.head.clone());
    change.extend(advance(on, room, head, event));
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
            Ok(Step::Load(wanted)) => on.database().load(&mut facts, wanted),
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

/// The room with a new head, and the interests that change with it. `event` may be part of the new state and not stored yet.
fn advance(on: &impl Writer, mut room: Room, head: Head, event: &Arc<Event>) -> Vec<Record> {
    let mut records = Vec::new();
    let database = on.database();
    for (slot, after) in room.head.state.changes_to(&head.state) {
        let before = room
            .head
            .state
            .get(&slot)
            .and_then(|nid| database.events.get(&nid));
        let after = after.map(|nid| database.events.get(&nid).map_or(event, |stored| &stored.event));
        let before = before.map(|stored| &*stored.event);
        if let Some((server, change)) =
            interest::recount(&mut room.census, before, after.map(|event| &**event))
            && server != *on.own()
        {
            records.push(Record::Interest(server, change));
        }
    }
    room.depth = room.depth.max(event.depth);
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
                Outlier::Load(wanted) => on.database().load(&mut facts, wanted),
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
                state: None,
                replaces: None,
                own: false,
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
    at(database, "m.room.member", user_id.as_str()).and_then(|event| interest::membership(&event))
}

/// Builds an event of a local user on the head and takes it in; none where the rules forbid it.
pub(crate) fn send(on: &mut impl Writer, key: &SigningKey, act: Act) -> Option<Arc<Event>> {
    let room = on.database().room.clone()?;
    let links = links(on.database(), &room, &act)?;
    let event = built(&room.room_id, room.version, links, key, act)?;
    let in_slot = |slot: &StateSlot| at(on.database(), &slot.event_type, &slot.state_key);
    auth::check(&event, room.version, in_slot).ok()?;
    let nid = EventNid(on.next_nid());
    let (mut state, mut replaces) = (room.head.state.clone(), None);
    if let Some(slot) = StateSlot::of(&event) {
        replaces = state.get(&slot.hash());
        state = state.with(StateNid(nid.0), [(slot.hash(), Some(nid))]);
    }
    let mut change = vec![Record::Event(Stored {
        event: Arc::clone(&event),
        nid,
        outcome: Outcome::Accepted,
        state: Some(state.clone()),
        replaces,
        own: true,
    })];
    let head = Head::at(event.id.clone(), state);
    change.extend(advance(on, room, head, &event));
    on.write(change);
    Some(event)
}

/// Where an event hangs that somebody wants to make in a room.
fn links(database: &Database, room: &Room, act: &Act) -> Option<Links> {
    let content = Content::of(&act.content).ok()?;
    let slots = auth::auth_slots(
        act.event_type,
        &act.sender,
        act.state_key.as_deref(),
        &content,
        room.version,
    );
    let named = slots.ok()?.into_iter();
    let named = named.filter_map(|slot| Some(at(database, &slot.event_type, &slot.state_key)?.id.clone()));
    let tips = room.head.extremities.iter();
    Some(Links {
        prev_events: tips.map(|tip| tip.id.clone()).collect(),
        auth_events: named.collect(),
        depth: room.depth + 1,
    })
}

fn built(
    room_id: &OwnedRoomId,
    version: RoomVersion,
    links: Links,
    key: &SigningKey,
    act: Act,
) -> Option<Arc<Event>> {
    let server = act.sender.server_name().to_owned();
    let first = act.event_type == "m.room.create" && version.room_id_is_hash();
    let draft = Draft {
        room_id: (!first).then(|| room_id.clone()),
        sender: act.sender,
        event_type: act.event_type.into(),
        state_key: act.state_key.map(Into::into),
        content: Content::of(&act.content).ok()?,
        redacts: None,
        origin_server_ts: act.now_ms,
    };
    build(draft, links, version, DEFAULT_MAX_EVENT_BYTES, &server, key)
        .ok()
        .map(Arc::new)
}

/// Makes the room with its create event.
pub(crate) fn create(on: &mut impl Writer, version: RoomVersion, key: &SigningKey, act: Act) -> Option<()> {
    let named = format!("!room:{}", on.own());
    let room_id = OwnedRoomId::try_from(named).ok()?;
    let event = built(
        &room_id,
        version,
        Links {
            depth: 1,
            ..Links::default()
        },
        key,
        act,
    )?;
    let nid = EventNid(on.next_nid());
    let slot = StateSlot::of(&event)?;
    let state = State::default().with(StateNid(nid.0), [(slot.hash(), Some(nid))]);
    let room = Room {
        room_id: event.room_id.clone(),
        version,
        head: Head::at(event.id.clone(), state.clone()),
        census: interest::Census::new(),
        depth: event.depth,
        began: event.id.clone(),
    };
    on.write(vec![
        Record::Event(Stored {
            event,
            nid,
            outcome: Outcome::Accepted,
            state: Some(state),
            replaces: None,
            own: true,
        }),
        Record::Room(room),
    ]);
    Some(())
}

/// What a user of a peer needs to join, where this server is in the room.
pub(crate) fn template(
    database: &Database,
    own: &OwnedServerName,
    act: &Act,
) -> Option<(OwnedRoomId, Template)> {
    let room = database.room.as_ref()?;
    if !room.census.contains_key(own) {
        return None;
    }
    let template = Template {
        version: room.version,
        links: links(database, room, act)?,
    };
    Some((room.room_id.clone(), template))
}

/// The join that a template leads to.
pub(crate) fn join_by(
    template: Template,
    room_id: &OwnedRoomId,
    key: &SigningKey,
    act: Act,
) -> Option<Arc<Event>> {
    built(room_id, template.version, template.links, key, act)
}

/// What a server is told whose join was accepted.
pub(crate) fn admission(database: &Database, join: &EventId) -> Option<Admission> {
    let tips = database.room.as_ref()?.head.extremities.iter();
    Some(Admission {
        answer: state_before(database, join)?,
        extremities: tips.map(|tip| tip.id.clone()).collect(),
    })
}

/// Takes a room in by a join that another server has accepted; false when its told state does not allow that.
pub(crate) fn arrive(
    on: &mut impl Writer,
    version: RoomVersion,
    admission: Admission,
    join: &Arc<Event>,
) -> bool {
    keep(on, version, admission.answer.events);
    let Some(before) = told_state(on, &admission.answer.state) else {
        return false;
    };
    let known = on.database().event(&join.id).map(|stored| stored.nid);
    if known.is_some()
        && on
            .database()
            .event(&join.id)
            .is_some_and(|stored| stored.state.is_some())
    {
        return false;
    }
    let nid = known.unwrap_or_else(|| EventNid(on.next_nid()));
    let received = Received {
        event: Arc::clone(join),
        nid,
        before: Some(before),
        backfilled: true,
    };
    let Ok(done) = judge(on, &received, version, &Head::default()) else {
        return false;
    };
    if done.verdict.outcome != Outcome::Accepted {
        return false;
    }
    let mut census = interest::Census::new();
    for nid in done.state_after.events() {
        let event = on
            .database()
            .events
            .get(&nid)
            .map_or(join, |stored| &stored.event);
        interest::recount(&mut census, None, Some(event));
    }
    let own = on.own().clone();
    let anew = interest::anew(&census, &on.database().interested(), &own);
    let mut change = vec![Record::Event(Stored {
        event: Arc::clone(join),
        nid,
        outcome: Outcome::Accepted,
        state: Some(done.state_after.clone()),
        replaces: done.replaces,
        own: true,
    })];
    change.extend(
        anew.into_iter()
            .map(|(server, how)| Record::Interest(server, how)),
    );
    change.push(Record::Room(Room {
        room_id: join.room_id.clone(),
        version,
        head: Head::at(join.id.clone(), done.state_after),
        census,
        depth: join.depth,
        began: join.id.clone(),
    }));
    on.write(change);
    true
}

/// Answers a peer what it asks about the room, if it has or had a user there; none is a refusal.
pub(crate) fn answer(
    database: &Database,
    peer: &OwnedServerName,
    question: &Question,
    earliest: &[OwnedEventId],
) -> Option<Answer> {
    let told = told_up_to(database, peer)?;
    let may_see = |stored: &&Stored| told.is_none_or(|end| database.position_of(stored.nid) <= Some(end));
    match question {
        Question::Events(ids) => Some(Answer {
            events: given(database, ids)
                .filter(may_see)
                .map(|stored| Arc::clone(&stored.event))
                .collect(),
            state: Vec::new(),
        }),
        Question::Ancestors(latest) => {
            let mut events = ancestors(database, latest, earliest);
            events.retain(|event| database.event(&event.id).as_ref().is_some_and(may_see));
            Some(Answer {
                events,
                state: Vec::new(),
            })
        }
        Question::State(at) => {
            database.event(at).as_ref().filter(|stored| may_see(stored))?;
            state_before(database, at)
        }
    }
}

/// Up to which position a peer may be told of the room: `None` in it is to the end. The history of the room is shared.
fn told_up_to(database: &Database, peer: &OwnedServerName) -> Option<Option<i64>> {
    if database.room.as_ref()?.census.contains_key(peer) {
        return Some(None);
    }
    let intervals = database.interests.iter();
    let ended =
        intervals.filter(|interval| interval.server == *peer && interval.until != Some(interval.from));
    ended.filter_map(|interval| interval.until).max().map(Some)
}

fn given<'a>(database: &'a Database, ids: &'a [OwnedEventId]) -> impl Iterator<Item = &'a Stored> {
    let stored = ids.iter().filter_map(|id| database.event(id));
    stored.filter(|stored| stored.outcome != Outcome::Rejected)
}

/// From some events on towards the past, a generation at a time.
fn ancestors(database: &Database, latest: &[OwnedEventId], earliest: &[OwnedEventId]) -> Vec<Arc<Event>> {
    let limit = usize::try_from(maru_protocol::gap::AT_ONCE).unwrap_or(MOST_EVENTS);
    let stop: BTreeSet<_> = earliest.iter().chain(latest).cloned().collect();
    let mut found = BTreeMap::new();
    let named = |events: &[&Stored]| -> BTreeSet<OwnedEventId> {
        let named = events.iter().flat_map(|stored| stored.event.prev_events.iter());
        named.filter(|id| !stop.contains(*id)).cloned().collect()
    };
    let mut open = named(&given(database, latest).collect::<Vec<_>>());
    while !open.is_empty() && found.len() < limit {
        let ids: Vec<_> = open.into_iter().collect();
        let mut generation: Vec<_> = given(database, &ids).collect();
        generation.sort_by_key(|stored| std::cmp::Reverse(stored.event.depth));
        generation.truncate(limit - found.len());
        open = named(&generation);
        found.extend(
            generation
                .into_iter()
                .map(|stored| (stored.event.id.clone(), Arc::clone(&stored.event))),
        );
        open.retain(|id| !found.contains_key(id));
    }
    order::by_previous(found.into_values())
}

/// The state before an event, with its auth chain.
fn state_before(database: &Database, at: &EventId) -> Option<Answer> {
    let stored = database
        .event(at)
        .filter(|stored| stored.outcome != Outcome::Rejected)?;
    let after = stored.state.clone()?;
    let before = match StateSlot::of(&stored.event) {
        Some(slot) if after.get(&slot.hash()) == Some(stored.nid) => {
            after.with(StateNid(stored.nid.0), [(slot.hash(), stored.replaces)])
        }
        _ => after,
    };
    let state = database.whole(&before);
    let mut all: BTreeMap<_, _> = state
        .iter()
        .map(|stored| (stored.event.id.clone(), Arc::clone(&stored.event)))
        .collect();
    let mut open: Vec<_> = all.values().cloned().collect();
    while let Some(event) = open.pop() {
        for stored in given(database, &event.auth_events) {
            if all
                .insert(stored.event.id.clone(), Arc::clone(&stored.event))
                .is_none()
            {
                open.push(Arc::clone(&stored.event));
            }
        }
    }
    Some(Answer {
        events: all.into_values().collect(),
        state: state.iter().map(|stored| stored.event.id.clone()).collect(),
    })
}
