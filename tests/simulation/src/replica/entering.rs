//! How a server comes into the room through another, as `server/src/peers/membership/remote_join.rs` and its answers do it.

use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::destinations;
use maru_protocol::event::{Event, Links};
use maru_protocol::gap::Answer;
use maru_protocol::ingest::{Head, Outcome, Received};
use maru_protocol::key::SigningKey;
use maru_protocol::state::EventNid;
use maru_protocol::version::RoomVersion;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName};

use super::answers::state_before;
use super::sending::{Act, built, links};
use super::{Writer, judge, told_state};
use crate::database::{Database, Gap, Record, Room, Stored};

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

/// The membership event that a template leads to.
pub(crate) fn membership_by(
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

/// Lets a room begin with a join that another server has accepted, and with the state that was told for it; false when that
/// does not allow it. Its events are kept already.
pub(crate) fn begin(
    on: &mut impl Writer,
    version: RoomVersion,
    state: &[OwnedEventId],
    join: &Arc<Event>,
) -> bool {
    let Some(before) = told_state(on, state) else {
        return false;
    };
    let here = on.database().event(&join.id).cloned();
    let nid = match &here {
        Some(here) if here.is_placed() => return false,
        Some(here) if here.state.is_none() => here.nid,
        _ => EventNid(on.next_nid()),
    };
    let received = Received {
        event: Arc::clone(join),
        nid,
        before: Some(before),
        backfilled: true,
        accepted: true,
    };
    let Ok(done) = judge(on, &received, version, &Head::default()) else {
        return false;
    };
    if done.verdict.outcome != Outcome::Accepted {
        return false;
    }
    let mut census = destinations::Census::new();
    for nid in done.state_after.events() {
        let event = on
            .database()
            .events
            .get(&nid)
            .map_or(join, |stored| &stored.event);
        destinations::recount(&mut census, None, Some(event));
    }
    let before_it = on.database().room.as_ref().map(|room| room.head.state.clone());
    let before_it = before_it.unwrap_or_default();
    // What happened before the join, or since this server was last in the room, is missing.
    let last = on.database().room.as_ref().map(|room| room.last_place);
    let place = last.map_or(Place::FIRST_LIVE, Place::next_stretch);
    let own = on.own().clone();
    let anew = destinations::anew(&census, &on.database().interested(), &own);
    let mut change: Vec<_> = here.map(|here| Record::Placed(here.nid)).into_iter().collect();
    change.push(Record::Event(Stored {
        event: Arc::clone(join),
        nid,
        outcome: Outcome::Accepted,
        place: Some(place),
        state: Some(done.state_after.clone()),
        replaces: done.replaces,
        own: true,
        current: [before_it, done.state_after.clone()],
    }));
    change.extend(
        anew.into_iter()
            .map(|(server, how)| Record::Interest(server, how)),
    );
    change.push(Record::Opened(Gap {
        before: place,
        missing: join.prev_events.clone(),
    }));
    change.push(Record::Room(Room {
        room_id: join.room_id.clone(),
        version,
        head: Head::at(join.id.clone(), done.state_after),
        census,
        depth: join.depth,
        last_place: place,
    }));
    on.write(change);
    true
}
