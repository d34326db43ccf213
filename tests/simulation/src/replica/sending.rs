//! Events that are made here.

use std::sync::Arc;

use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::cursor::Place;
use maru_protocol::destinations;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::gap::timeline;
use maru_protocol::ingest::{Head, Outcome};
use maru_protocol::key::SigningKey;
use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::version::RoomVersion;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::Value;

use super::{Writer, advance, at};
use crate::database::{Database, Record, Room, Stored};

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

/// Builds an event of a local user on the head; none where the rules forbid it.
pub(crate) fn propose(database: &Database, key: &SigningKey, act: Act) -> Option<Arc<Event>> {
    let room = database.room.as_ref()?;
    let links = links(database, room, &act)?;
    let event = built(&room.room_id, room.version, links, key, act)?;
    let in_slot = |slot: &StateSlot| at(database, &slot.event_type, &slot.state_key);
    auth::check(&event, room.version, in_slot).ok()?;
    Some(event)
}

/// Builds an event of a local user on the head and takes it in; none where the rules forbid it.
pub(crate) fn send(on: &mut impl Writer, key: &SigningKey, act: Act) -> Option<Arc<Event>> {
    let event = propose(on.database(), key, act)?;
    let mut room = on.database().room.clone()?;
    let place = timeline::next_place(room.last_place, false);
    room.last_place = place;
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
        place: Some(place),
        state: Some(state.clone()),
        replaces,
        own: true,
        current: [room.head.state.clone(), state.clone()],
    })];
    let head = Head::at(event.id.clone(), state);
    change.extend(advance(on, room, head, &event));
    on.write(change);
    Some(event)
}

/// Where an event hangs that somebody wants to make in a room.
pub(super) fn links(database: &Database, room: &Room, act: &Act) -> Option<Links> {
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

pub(super) fn built(
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
        census: destinations::Census::new(),
        depth: event.depth,
        last_place: Place::FIRST_LIVE,
    };
    on.write(vec![
        Record::Event(Stored {
            event,
            nid,
            outcome: Outcome::Accepted,
            place: Some(Place::FIRST_LIVE),
            state: Some(state.clone()),
            replaces: None,
            own: true,
            current: [State::default(), state],
        }),
        Record::Room(room),
    ]);
    Some(())
}
