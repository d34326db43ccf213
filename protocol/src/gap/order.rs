//! Events by what they name: in an order in which each comes after that, and those that are reached over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::OwnedEventId;

use crate::event::Event;

/// Each after its `prev_events`, otherwise by depth.
pub fn by_previous(events: impl IntoIterator<Item = Arc<Event>>) -> Vec<Arc<Event>> {
    sorted(events, |event| &event.prev_events)
}

/// Each after its `auth_events`, otherwise by depth.
pub fn by_auth(events: impl IntoIterator<Item = Arc<Event>>) -> Vec<Arc<Event>> {
    sorted(events, |event| &event.auth_events)
}

/// Those of some events that are among `ids` or lie before one of them by way of others of these events.
pub fn back_from(
    ids: &[OwnedEventId],
    events: impl IntoIterator<Item = Arc<Event>>,
) -> BTreeMap<OwnedEventId, Arc<Event>> {
    let mut events: BTreeMap<OwnedEventId, Arc<Event>> = events
        .into_iter()
        .map(|event| (event.id.clone(), event))
        .collect();
    let (mut open, mut reached) = (ids.to_vec(), BTreeMap::new());
    while let Some(id) = open.pop() {
        if let Some(event) = events.remove(&id) {
            open.extend(event.prev_events.iter().cloned());
            reached.insert(id, event);
        }
    }
    reached
}

/// Without recursion, since a chain may be long. An event that is given twice comes once.
fn sorted(
    events: impl IntoIterator<Item = Arc<Event>>,
    names: impl Fn(&Event) -> &[OwnedEventId],
) -> Vec<Arc<Event>> {
    let events: BTreeMap<OwnedEventId, Arc<Event>> = events
        .into_iter()
        .map(|event| (event.id.clone(), event))
        .collect();
    let mut starts: Vec<_> = events.values().collect();
    starts.sort_by_key(|event| (event.depth, &event.id));
    let mut ordered = Vec::with_capacity(events.len());
    let (mut entered, mut done) = (BTreeSet::new(), BTreeSet::new());
    for start in starts {
        let mut open = vec![start];
        while let Some(&event) = open.last() {
            // Entered a second time: everything behind it is done, or it is a cycle, which no hash allows.
            if entered.insert(&event.id) {
                let named = names(event).iter().filter_map(|id| events.get(id));
                open.extend(named.filter(|event| !entered.contains(&event.id)));
            } else {
                open.pop();
                if done.insert(&event.id) {
                    ordered.push(Arc::clone(event));
                }
            }
        }
    }
    ordered
}
