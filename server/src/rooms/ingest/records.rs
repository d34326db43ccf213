//! What a verdict writes.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::auth::SlotHash;
use maru_protocol::cursor::Place;
use maru_protocol::event::{Draft, Event};
use maru_protocol::ingest::{Facts, Ingested, Outcome};
use maru_protocol::state::{EventNid, State};

use crate::push::PushOutcome;
use crate::rooms::append::relation;
use crate::rooms::repository::members::membership_of;
use crate::store::log::Record;
use crate::store::rooms::RoomHead;
use crate::store::rooms::events::{Notify, StoredEvent};
use crate::store::rooms::notifications::NewNotification;
use crate::store::rooms::state::NewState;

/// An event of another server as it is stored.
pub(super) fn stored_event(
    event: &Arc<Event>,
    nid: EventNid,
    room: i64,
    place: Option<Place>,
    ingested: &Ingested,
    push: &PushOutcome,
) -> StoredEvent {
    let state = ingested.state_after.nid();
    let mut stored = StoredEvent::new(Arc::clone(event), nid, room, place, state);
    stored.own = false;
    stored.outcome = ingested.verdict.outcome;
    stored.replaces = ingested.replaces;
    (stored.relation, stored.thread) = relation::of(event);
    if stored.outcome == Outcome::Accepted && place.is_some_and(Place::is_live) {
        stored.notify = push.to_others;
    } else {
        stored.notify = Notify::Nothing;
    }
    stored
}

/// The states that are new with an event.
pub(super) fn states(room: i64, states: &[State]) -> impl Iterator<Item = Record> {
    states
        .iter()
        .filter_map(|state| state.top())
        .map(move |run| Record::State(NewState::of(room, run)))
}

/// What push rules say of an event to those to whom they say something else than to the others.
pub(super) fn notifications(stored: &StoredEvent, push: &PushOutcome) -> Vec<Record> {
    let Some(place) = stored
        .place
        .filter(|place| stored.outcome == Outcome::Accepted && place.is_live())
    else {
        return Vec::new();
    };
    push.exceptions
        .iter()
        .map(|(user_id, notify)| {
            Record::Notification(NewNotification {
                user_id: user_id.clone(),
                room: stored.room,
                place,
                notify: *notify,
                thread: stored.thread.as_ref().map(ToString::to_string),
            })
        })
        .collect()
}

/// The slots in which the current state changes, with the events before and after.
pub(super) type Changes = Vec<(SlotHash, Option<EventNid>, Option<EventNid>)>;

/// How the current state changes. Cheap where one state was made of the other.
pub(super) fn changes(before: &State, after: &State) -> Changes {
    if before.nid() == after.nid() {
        return Vec::new();
    }
    before
        .changes_to(after)
        .into_iter()
        .map(|(slot, event)| (slot, before.get(&slot), event))
        .collect()
}

/// Counts members anew after an event and writes the memberships that changed. `events` has the events of the changes.
pub(super) fn members(
    head: &mut RoomHead,
    taken: &Event,
    changes: &Changes,
    events: &HashMap<EventNid, Arc<StoredEvent>>,
    own: &ruma::ServerName,
) -> Vec<Record> {
    let mut records = Vec::new();
    let of = |nid: &Option<EventNid>| nid.and_then(|nid| events.get(&nid));
    for (_, before, after) in changes {
        let (before, after) = (of(before), of(after));
        let interest = head.count_member(
            before.map(|stored| &*stored.event),
            after.map(|stored| &*stored.event),
        );
        records.extend(
            after
                .and_then(|stored| membership_of(stored))
                .map(Record::Membership),
        );
        let of_another = interest.filter(|interest| {
            let is_by = interest.change.is_by(taken, after.map(|stored| &*stored.event));
            interest.server_name != own && is_by
        });
        records.extend(of_another.map(Record::Interest));
    }
    records
}

/// An event as push rules look at it.
pub(super) fn as_draft(event: &Event) -> Draft {
    Draft {
        room_id: Some(event.room_id.clone()),
        sender: event.sender.clone(),
        event_type: event.event_type.clone(),
        state_key: event.state_key.clone(),
        content: event.content.clone(),
        redacts: event.redacts.clone(),
        origin_server_ts: event.origin_server_ts,
    }
}

/// The events of changes that are in facts.
pub(super) fn numbers(changes: &Changes) -> Vec<EventNid> {
    changes
        .iter()
        .flat_map(|(_, before, after)| [*before, *after])
        .flatten()
        .collect()
}

/// Whether an event was kept as an outlier and finds its place now.
pub(super) fn was_outlier(facts: &Facts, event: &Event) -> Option<EventNid> {
    let known = facts.known(&event.id)?;
    known.is_outlier().then_some(known.nid)
}
