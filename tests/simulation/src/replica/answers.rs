//! What a replica answers a peer that asks about the room, as `server/src/peers/request_handlers` does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::event::Event;
use maru_protocol::gap::{AT_ONCE, Answer, Question, order};
use maru_protocol::ingest::Outcome;
use maru_protocol::state::StateNid;
use ruma::{EventId, OwnedEventId, OwnedServerName};

use crate::database::{Database, Stored};

/// Most events of a page of the past: so few that the past of a room is several pages.
const PAGE: usize = 8;

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
            let mut events = ancestors(database, latest, earliest, AT_ONCE as usize);
            events.retain(|event| database.event(&event.id).as_ref().is_some_and(may_see));
            Some(Answer {
                events,
                state: Vec::new(),
            })
        }
        Question::Past(from) => {
            let here = given(database, from).filter(may_see);
            let here: Vec<_> = here.map(|stored| Arc::clone(&stored.event)).collect();
            let mut events = ancestors(database, from, earliest, PAGE);
            events.retain(|event| database.event(&event.id).as_ref().is_some_and(may_see));
            events.extend(here);
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
    database.ended(peer).map(Some)
}

fn given<'a>(database: &'a Database, ids: &'a [OwnedEventId]) -> impl Iterator<Item = &'a Stored> {
    let stored = ids.iter().filter_map(|id| database.event(id));
    stored.filter(|stored| stored.outcome != Outcome::Rejected)
}

/// From some events on towards the past, a generation at a time.
fn ancestors(
    database: &Database,
    latest: &[OwnedEventId],
    earliest: &[OwnedEventId],
    limit: usize,
) -> Vec<Arc<Event>> {
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
pub(super) fn state_before(database: &Database, at: &EventId) -> Option<Answer> {
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
