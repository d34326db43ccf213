//! The ancestors of an event, back to what is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Here, LARGEST_BYTES, LARGEST_GAP, Question, ROUNDS, order};
use crate::event::Event;
use crate::wire::limits::{MAX_ANSWER_BYTES, MAX_EVENT_IDS, MAX_EXTREMITIES, MAX_JSON_BYTES};

/// What the walk needs next.
#[derive(Debug)]
pub(super) enum Next {
    LookUp(BTreeSet<OwnedEventId>),
    Ask(Question),
    /// The peer has given all that it has, and some are still missing: another peer may have them.
    Stuck,
    End,
}

/// A walk back, one generation of questions after the other.
#[derive(Debug)]
pub(super) struct Walk {
    from: Arc<Event>,
    found: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Of those that are found.
    bytes: usize,
    /// Named by what came last; whether they are here is not known yet.
    named: BTreeSet<OwnedEventId>,
    /// Not here, and to be asked for.
    lacking: BTreeSet<OwnedEventId>,
    /// Not here, and the peer does not have them either.
    hopeless: BTreeSet<OwnedEventId>,
    /// Asked for by their ids, because asking for ancestors gave none of those that lack: the peer may not have the event
    /// whose ancestors they are.
    by_id: Option<Vec<OwnedEventId>>,
    /// Named by events that are here already.
    open_ends: BTreeSet<OwnedEventId>,
    rounds: usize,
}

impl Walk {
    pub(super) fn new(from: Arc<Event>) -> Self {
        Self {
            named: from.prev_events.iter().cloned().collect(),
            from,
            found: BTreeMap::new(),
            bytes: 0,
            lacking: BTreeSet::new(),
            hopeless: BTreeSet::new(),
            by_id: None,
            open_ends: BTreeSet::new(),
            rounds: 0,
        }
    }

    pub(super) fn next(&mut self) -> Next {
        let is_full = self.found.len() >= LARGEST_GAP || self.bytes >= LARGEST_BYTES;
        if is_full || self.rounds >= ROUNDS {
            return Next::End;
        }
        if !self.named.is_empty() {
            return Next::LookUp(std::mem::take(&mut self.named));
        }
        if self.lacking.is_empty() {
            return if self.hopeless.is_empty() {
                Next::End
            } else {
                Next::Stuck
            };
        }
        self.rounds += 1;
        if let Some(ids) = &mut self.by_id {
            *ids = self.lacking.iter().take(MAX_EVENT_IDS).cloned().collect();
            return Next::Ask(Question::Events(ids.clone()));
        }
        let names_one = |event: &&Arc<Event>| event.prev_events.iter().any(|id| self.lacking.contains(id));
        let latest = self.found.values().chain([&self.from]).filter(names_one);
        let latest = latest.map(|event| event.id.clone()).take(MAX_EXTREMITIES);
        Next::Ask(Question::Ancestors(latest.collect()))
    }

    /// The ancestors so far, oldest first, and whether each lies before an event that is here already.
    pub(super) fn end(self) -> Vec<(Arc<Event>, bool)> {
        let mut past = self.open_ends;
        let mut ordered: Vec<_> = order::by_previous(self.found.into_values())
            .into_iter()
            .map(|event| (event, false))
            .collect();
        for (event, is_past) in ordered.iter_mut().rev() {
            *is_past = past.contains(&event.id);
            if *is_past {
                past.extend(event.prev_events.iter().cloned());
            }
        }
        ordered
    }

    /// Goes on with another peer, which may have what the one before did not.
    pub(super) fn with_another_peer(&mut self) {
        self.lacking.append(&mut self.hopeless);
        self.by_id = Some(Vec::new());
        self.rounds = 0;
    }

    pub(super) fn found(&mut self, asked: BTreeSet<OwnedEventId>, here: &Here) {
        self.open_ends.extend(here.open_ends.iter().cloned());
        let lacking = asked.into_iter().filter(|id| !here.settled.contains(id));
        self.lacking.extend(lacking);
    }

    pub(super) fn answered(&mut self, events: Vec<Arc<Event>>) {
        let helps = events.iter().any(|event| self.lacking.contains(&event.id));
        let bytes: usize = events.iter().map(|event| event.json.len()).sum();
        // An answer that may be full left out what the peer has.
        let may_be_full = bytes + MAX_JSON_BYTES > MAX_ANSWER_BYTES;
        for event in events {
            self.lacking.remove(&event.id);
            if !self.found.contains_key(&event.id) {
                self.named.extend(event.prev_events.iter().cloned());
                self.bytes += event.json.len();
                self.found.insert(event.id.clone(), event);
            }
        }
        match self.by_id.take() {
            Some(_) if may_be_full => self.by_id = Some(Vec::new()),
            // What it does not have by its id, it does not have.
            Some(asked) => {
                let not_given = asked.into_iter().filter(|id| self.lacking.remove(id));
                self.hopeless.extend(not_given.collect::<Vec<_>>());
            }
            None if !helps => self.by_id = Some(Vec::new()),
            None => {}
        }
        self.named.retain(|id| {
            !self.found.contains_key(id) && !self.lacking.contains(id) && !self.hopeless.contains(id)
        });
    }
}
