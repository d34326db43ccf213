//! State resolution: how the states of two forks become one, the same on every replica
//! (room-version specifications, "State resolution": version 2 for rooms 10 and 11, 2.1 for 12).
//!
//! The algorithm is ruma's. What is here feeds it: auth chains and, for 2.1, the conflicted state
//! subgraph, both walked without recursion because a chain may be as long as the room is old.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    state_res::{self, utils::event_id_set::EventIdSet},
};
use thiserror::Error;

use crate::{auth::StateSlot, event::Event, version::RoomVersion};

/// The state of a room: which event fills each slot.
pub type StateMap = BTreeMap<StateSlot, OwnedEventId>;

/// Why states could not be resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// An event that the algorithm needs is not there or malformed.
    #[error(transparent)]
    Rules(#[from] state_res::Error),
    /// Our rules know no algorithm for the version. Does not happen.
    #[error("room version {0} has no state resolution")]
    NoAlgorithm(RoomVersion),
}

/// Resolves the states of several forks of one room.
///
/// `auth_chains` has, for each of `states`, the full [`auth_chain`] of its events. `fetch` gives every
/// accepted event of the states and their auth chains, and in version 12 the create event; one it does
/// not give counts as not there.
///
/// # Errors
/// [`ResolveError`].
pub fn resolve(
    version: RoomVersion,
    states: &[StateMap],
    auth_chains: &[BTreeSet<OwnedEventId>],
    fetch: impl Fn(&EventId) -> Option<Arc<Event>>,
) -> Result<StateMap, ResolveError> {
    let rules = version.rules();
    let v2 = rules
        .state_res
        .v2_rules()
        .ok_or(ResolveError::NoAlgorithm(version))?;
    let forks: Vec<state_res::StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            state
                .iter()
                .map(|(slot, id)| (slot.to_ruma(), id.clone()))
                .collect()
        })
        .collect();
    let chains = auth_chains
        .iter()
        .map(|chain| chain.iter().cloned().collect::<EventIdSet<_>>())
        .collect();
    let resolved = state_res::resolve(&rules.authorization, v2, &forks, chains, &fetch, |conflicted| {
        let conflicted = conflicted.values().flatten().cloned().collect();
        Some(conflicted_subgraph(&conflicted, &fetch).into_iter().collect())
    })?;
    Ok(resolved
        .iter()
        .map(|(slot, id)| (StateSlot::from_ruma(slot), id.clone()))
        .collect())
}

/// The events and everything that they name in `auth_events`, and so on. Events that `fetch` does not
/// give are in the answer but not followed.
pub fn auth_chain(
    events: impl IntoIterator<Item = OwnedEventId>,
    fetch: impl Fn(&EventId) -> Option<Arc<Event>>,
) -> BTreeSet<OwnedEventId> {
    let mut chain = BTreeSet::new();
    let mut open: Vec<OwnedEventId> = events.into_iter().collect();
    while let Some(id) = open.pop() {
        if chain.contains(&id) {
            continue;
        }
        if let Some(event) = fetch(&id) {
            open.extend(
                event
                    .auth_events
                    .iter()
                    .filter(|auth| !chain.contains(*auth))
                    .cloned(),
            );
        }
        chain.insert(id);
    }
    chain
}

/// The conflicted state subgraph of version 2.1: every event on a path of `auth_events` that leads from
/// one conflicted event to another, the ends included.
pub fn conflicted_subgraph(
    conflicted: &BTreeSet<OwnedEventId>,
    fetch: impl Fn(&EventId) -> Option<Arc<Event>>,
) -> BTreeSet<OwnedEventId> {
    // Whether following `auth_events` from an event comes to a conflicted one; the event itself counts.
    let mut leads: BTreeMap<OwnedEventId, bool> = BTreeMap::new();
    let mut open: Vec<Step> = conflicted.iter().cloned().map(Step::Enter).collect();
    while let Some(step) = open.pop() {
        match step {
            Step::Enter(id) => {
                if leads.contains_key(&id) {
                    continue;
                }
                // Entered before its auth events are: a cycle, which only a broken store has, ends here.
                leads.insert(id.clone(), conflicted.contains(&id));
                let Some(event) = fetch(&id) else { continue };
                let auth_events = event.auth_events.clone();
                open.push(Step::Leave(id, event));
                open.extend(auth_events.into_iter().map(Step::Enter));
            }
            Step::Leave(id, event) => {
                if event
                    .auth_events
                    .iter()
                    .any(|auth| leads.get(auth) == Some(&true))
                {
                    leads.insert(id, true);
                }
            }
        }
    }
    leads
        .into_iter()
        .filter_map(|(id, leads)| leads.then_some(id))
        .collect()
}

/// One step of a depth-first walk.
enum Step {
    /// Look at an event for the first time.
    Enter(OwnedEventId),
    /// Everything behind the event has been looked at.
    Leave(OwnedEventId, Arc<Event>),
}

#[cfg(test)]
mod tests;
