//! Several states become one.

use std::collections::{BTreeMap, BTreeSet};

use ruma::OwnedEventId;

use super::Facts;
use crate::auth::{SlotHash, StateSlot};
use crate::resolve::{ResolveError, StateMap, auth_chain, resolve};
use crate::state::{EventNid, State, StateNid};
use crate::version::RoomVersion;

/// What several states resolve to (room-version specifications, "State resolution").
///
/// `None` when facts are wanted first. A state that equals one of the given ones is that one; a new one takes its number
/// from `number`. Forks that agree cost one comparison; forks that do not, all events of their states and auth chains.
///
/// # Errors
/// [`ResolveError`] when the events of the states are broken.
pub fn merge(
    version: RoomVersion,
    states: &[State],
    facts: &Facts,
    number: &mut dyn FnMut() -> StateNid,
) -> Result<Option<State>, ResolveError> {
    let Some(first) = states.first() else {
        return Ok(Some(State::default()));
    };
    if states.iter().all(|state| state.nid() == first.nid()) {
        return Ok(Some(first.clone()));
    }
    let entries: Vec<BTreeMap<SlotHash, EventNid>> = states.iter().map(State::entries).collect();
    if entries.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(Some(first.clone()));
    }
    let maps: Vec<StateMap> = entries.iter().map(|entries| by_slot(entries, facts)).collect();
    let fetch = |id: &ruma::EventId| facts.allowed(id);
    let chains: Vec<BTreeSet<OwnedEventId>> = maps
        .iter()
        .map(|state| auth_chain(state.values().cloned(), fetch))
        .collect();
    if version.room_id_is_hash() {
        // The create event is in no auth chain there, and the rules read it all the same.
        let create = StateSlot::new("m.room.create", "");
        maps.iter().filter_map(|state| state.get(&create)).for_each(|id| {
            fetch(id);
        });
    }
    if !facts.wants_nothing() {
        return Ok(None);
    }
    let resolved = resolve(version, &maps, &chains, fetch)?;
    if !facts.wants_nothing() {
        return Ok(None);
    }
    let mut numbers = BTreeMap::new();
    for id in resolved.values() {
        if let Some(known) = facts.event(id) {
            numbers.insert(id, known.nid);
        }
    }
    let resolved: BTreeMap<SlotHash, EventNid> = resolved
        .iter()
        .filter_map(|(slot, id)| Some((slot.hash(), *numbers.get(id)?)))
        .collect();
    // The result stands on the state that it differs from least, so that it costs few rows.
    let nearest = states
        .iter()
        .zip(&entries)
        .map(|(state, entries)| (state, changes(entries, &resolved)))
        .min_by_key(|(_, changes)| changes.len());
    Ok(nearest.map(|(state, changes)| {
        if changes.is_empty() {
            state.clone()
        } else {
            state.with(number(), changes)
        }
    }))
}

fn by_slot(entries: &BTreeMap<SlotHash, EventNid>, facts: &Facts) -> StateMap {
    entries
        .values()
        .filter_map(|nid| {
            let known = facts.numbered(*nid)?;
            Some((StateSlot::of(&known.event)?, known.event.id.clone()))
        })
        .collect()
}

fn changes(
    from: &BTreeMap<SlotHash, EventNid>,
    to: &BTreeMap<SlotHash, EventNid>,
) -> Vec<(SlotHash, Option<EventNid>)> {
    let emptied = from
        .keys()
        .filter(|slot| !to.contains_key(*slot))
        .map(|slot| (*slot, None));
    let changed = to.iter().filter(|(slot, nid)| from.get(*slot) != Some(*nid));
    emptied
        .chain(changed.map(|(slot, nid)| (*slot, Some(*nid))))
        .collect()
}
