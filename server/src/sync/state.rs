//! The state part of joined rooms: what a device must know besides the timeline.
//!
//! Given before the timeline by default, and after it on `use_state_after`. For a room that the device knows, it is
//! the state events that the timeline leaves out; for one it does not know, the whole state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::state::{EventNid, State, StateNid};

use super::window::JoinedWindow;
use super::{Sync, Wish};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::events::StoredEvent;

/// Whole states of more entries than this are not loaded for a device that loads members lazily; the database picks
/// out what is no membership.
const LOAD_WHOLE: usize = 256;

/// The state events to send, by room.
pub(super) async fn of_rooms(
    sync: &Sync,
    caller: &Caller,
    rooms: &BTreeMap<i64, JoinedWindow>,
    wish: &Wish,
) -> Result<HashMap<i64, Vec<Arc<StoredEvent>>>, Refusal> {
    let mut needed: HashMap<i64, Vec<EventNid>> = HashMap::new();
    let mut given: HashMap<i64, Vec<Arc<StoredEvent>>> = HashMap::new();
    for (nid, joined) in rooms {
        if joined.entire || wish.full_state {
            let state = state_for(sync, joined, wish.state_after).await?;
            needed.insert(*nid, whole(sync, caller, joined, &state, wish).await?);
        } else {
            let mut events = joined.skipped_state.clone();
            if wish.state_after {
                let in_timeline = joined.timeline.iter().filter(|stored| stored.event.is_state());
                events.extend(in_timeline.cloned());
                events = super::recent::last_of_each_slot(events);
            }
            if wish.filter.lazy_load_members {
                needed.insert(*nid, speakers(sync, caller, joined, &events, wish));
            }
            if !events.is_empty() {
                given.insert(*nid, events);
            }
        }
    }
    if needed.is_empty() && given.is_empty() {
        return Ok(given);
    }
    let all: Vec<EventNid> = needed.values().flatten().copied().collect();
    let loaded = sync.rooms.events(&all).await?;
    for (nid, events) in needed {
        let events = events.iter().filter_map(|event| loaded.get(event).cloned());
        given.entry(nid).or_default().extend(events);
    }
    for events in given.values_mut() {
        events.retain(|stored| wish.filter.state.wants_event(&stored.event));
    }
    Ok(given)
}

/// The state before or after a window's timeline.
async fn state_for(sync: &Sync, joined: &JoinedWindow, after: bool) -> Result<State, Refusal> {
    let Some(first) = joined.timeline.first() else {
        return Ok(joined.room.head().state.clone());
    };
    let edge = if after {
        joined.timeline.last().unwrap_or(first)
    } else {
        first
    };
    let at_edge = match edge.state {
        Some(nid) if joined.room.head().state.nid() == Some(nid) => joined.room.head().state.clone(),
        Some(nid) => sync.store.state(nid).await?,
        None => State::default(),
    };
    // The state before a state event is the one after it with the replaced event back in its slot.
    match StateSlot::of(&first.event) {
        Some(slot) if !after => Ok(at_edge.with(StateNid(first.nid.0), [(slot.hash(), first.replaces)])),
        _ => Ok(at_edge),
    }
}

/// The events of a whole state, without members who do not speak if the device loads them lazily.
async fn whole(
    sync: &Sync,
    caller: &Caller,
    joined: &JoinedWindow,
    state: &State,
    wish: &Wish,
) -> Result<Vec<EventNid>, Refusal> {
    let mut events = state.events();
    if !wish.filter.lazy_load_members {
        return Ok(events);
    }
    if events.len() > LOAD_WHOLE {
        events = sync.store.without_members(&events).await?;
    } else {
        let loaded = sync.rooms.events(&events).await?;
        events.retain(|nid| {
            loaded
                .get(nid)
                .is_some_and(|stored| &*stored.event.event_type != "m.room.member")
        });
    }
    let mut members = member_events(joined, state, caller);
    if !wish.filter.include_redundant_members {
        sync.lazily_loaded.not_given(caller, &mut members);
    }
    events.extend(members);
    Ok(events)
}

/// The membership events of those who speak in a timeline, as far as the device lacks them.
fn speakers(
    sync: &Sync,
    caller: &Caller,
    joined: &JoinedWindow,
    given: &[Arc<StoredEvent>],
    wish: &Wish,
) -> Vec<EventNid> {
    let mut members = member_events(joined, &joined.room.head().state, caller);
    let here: HashSet<EventNid> = given
        .iter()
        .chain(&joined.timeline)
        .map(|stored| stored.nid)
        .collect();
    members.retain(|nid| !here.contains(nid));
    if !wish.filter.include_redundant_members {
        sync.lazily_loaded.not_given(caller, &mut members);
    }
    members
}

fn member_events(joined: &JoinedWindow, state: &State, caller: &Caller) -> Vec<EventNid> {
    let mut senders: Vec<_> = joined
        .timeline
        .iter()
        .map(|stored| stored.event.sender.as_str())
        .collect();
    senders.push(caller.user_id.as_str());
    senders.sort_unstable();
    senders.dedup();
    let of = |sender: &str| state.get(&StateSlot::new("m.room.member", sender).hash());
    senders.into_iter().filter_map(of).collect()
}
