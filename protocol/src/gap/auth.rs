//! Auth events that are not here, with what they name in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Here, LARGEST_BYTES, Question, ROUNDS};
use crate::event::Event;
use crate::wire::limits::MAX_EVENT_IDS;

/// What the chain needs next.
#[derive(Debug)]
pub(super) enum Next {
    LookUp(BTreeSet<OwnedEventId>),
    Ask(Question),
    /// As much of the chain as the peer gave.
    End(Vec<Arc<Event>>),
}

/// An auth chain that is being fetched, a generation at a time.
#[derive(Debug)]
pub(super) struct Chain {
    events: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Of those events.
    bytes: usize,
    /// What the peer is to be asked for.
    open: BTreeSet<OwnedEventId>,
    /// What may be here already.
    named: BTreeSet<OwnedEventId>,
    /// What is at hand already.
    given: BTreeSet<OwnedEventId>,
    rounds: usize,
}

impl Chain {
    pub(super) fn new(ids: Vec<OwnedEventId>) -> Self {
        Self {
            events: BTreeMap::new(),
            bytes: 0,
            open: ids.into_iter().collect(),
            named: BTreeSet::new(),
            given: BTreeSet::new(),
            rounds: 0,
        }
    }

    /// What allows some events and is not among them.
    pub(super) fn of(events: &BTreeMap<OwnedEventId, Arc<Event>>) -> Self {
        let named = events.values().flat_map(|event| event.auth_events.iter());
        Self {
            named: named.filter(|id| !events.contains_key(*id)).cloned().collect(),
            given: events.keys().cloned().collect(),
            ..Self::new(Vec::new())
        }
    }

    pub(super) fn next(&mut self) -> Next {
        if !self.named.is_empty() {
            return Next::LookUp(std::mem::take(&mut self.named));
        }
        if self.open.is_empty() || self.rounds >= ROUNDS || self.bytes >= LARGEST_BYTES {
            return Next::End(std::mem::take(&mut self.events).into_values().collect());
        }
        self.rounds += 1;
        let open = std::mem::take(&mut self.open);
        Next::Ask(Question::Events(open.into_iter().take(MAX_EVENT_IDS).collect()))
    }

    pub(super) fn found(&mut self, asked: BTreeSet<OwnedEventId>, here: &Here) {
        self.open = asked;
        self.open
            .retain(|id| !here.settled.contains(id) && !here.outliers.contains(id));
    }

    pub(super) fn answered(&mut self, events: Vec<Arc<Event>>) {
        let fresh = events.into_iter().map(|event| (event.id.clone(), event));
        let fresh: BTreeMap<_, _> = fresh.filter(|(id, _)| !self.events.contains_key(id)).collect();
        self.bytes += fresh.values().map(|event| event.json.len()).sum::<usize>();
        self.events.extend(fresh.clone());
        let named = fresh.into_values().flat_map(|event| event.auth_events.clone());
        self.named = named
            .filter(|id| !self.events.contains_key(id) && !self.given.contains(id))
            .collect();
    }
}
