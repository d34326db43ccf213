//! What ingest has been told of a replica so far.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

use super::Outcome;
use super::judge::create_of;
use crate::event::Event;
use crate::state::{EventNid, State, StateNid};
use crate::version::RoomVersion;

/// An event that the replica has.
#[derive(Clone, Debug)]
pub struct Known {
    /// The event.
    pub event: Arc<Event>,
    /// Its local number.
    pub nid: EventNid,
    /// What became of it.
    pub outcome: Outcome,
    /// The state after it.
    pub state_after: After,
}

impl Known {
    /// Whether it hangs nowhere: part of an auth chain or of a state that a peer told.
    #[must_use]
    pub fn is_outlier(&self) -> bool {
        matches!(self.state_after, After::Nowhere)
    }
}

/// The state after an event. Only those after `prev_events` are looked at, so the others need not be loaded.
#[derive(Clone, Debug)]
pub enum After {
    /// There is none: the event is an outlier.
    Nowhere,
    /// There is one, which is not loaded.
    Unread(StateNid),
    /// This one.
    State(State),
}

/// What has to be loaded before ingest can go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Events by their ids; the replica may or may not have them.
    pub ids: BTreeSet<OwnedEventId>,
    /// Events by their local numbers; the replica has them, since its states name them.
    pub nids: BTreeSet<EventNid>,
    /// Those events, of these ids or held already, whose states are to be loaded too.
    pub with_state: BTreeSet<OwnedEventId>,
}

impl Wanted {
    /// What these events name, and are judged by in any case. Whether they are here themselves is not asked.
    pub fn of<'e>(events: impl IntoIterator<Item = &'e Event>, version: RoomVersion) -> Self {
        let mut wanted = Self::default();
        for event in events {
            wanted.ids.extend(event.auth_events.iter().cloned());
            wanted.ids.extend(create_of(event, version));
            wanted.ids.extend(event.prev_events.iter().cloned());
            wanted.with_state.extend(event.prev_events.iter().cloned());
        }
        wanted
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.nids.is_empty() && self.with_state.is_empty()
    }
}

/// Events that were loaded, and ids that were looked for in vain.
#[derive(Debug, Default)]
pub struct Facts {
    by_id: HashMap<OwnedEventId, Option<Arc<Known>>>,
    by_nid: HashMap<EventNid, Arc<Known>>,
    wanted: RefCell<Wanted>,
}

impl Facts {
    /// Adds an event.
    pub fn learn(&mut self, known: Arc<Known>) {
        self.by_nid.insert(known.nid, Arc::clone(&known));
        self.by_id.insert(known.event.id.clone(), Some(known));
    }

    /// Notes that the replica has no event with this id.
    pub fn lacks(&mut self, id: OwnedEventId) {
        self.by_id.entry(id).or_insert(None);
    }

    /// Forgets that these were looked for in vain, because they may have come since.
    pub fn look_again(&mut self) {
        self.by_id.retain(|_, known| known.is_some());
    }

    /// The event with this id, if it is held.
    #[must_use]
    pub fn known(&self, id: &EventId) -> Option<&Arc<Known>> {
        self.by_id.get(id)?.as_ref()
    }

    /// Whether an event is held, or known to be absent.
    #[must_use]
    pub fn was_asked(&self, id: &EventId) -> bool {
        self.by_id.contains_key(id)
    }

    /// How many events are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_nid.len()
    }

    /// Whether no event is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_nid.is_empty()
    }

    /// The event with this id. One that was never looked for is noted as wanted and counts as absent until then.
    pub(super) fn event(&self, id: &EventId) -> Option<&Arc<Known>> {
        match self.by_id.get(id) {
            Some(known) => known.as_ref(),
            None => {
                self.wanted.borrow_mut().ids.insert(id.to_owned());
                None
            }
        }
    }

    /// The event with this local number; noted as wanted when it is not loaded.
    pub(super) fn numbered(&self, nid: EventNid) -> Option<&Arc<Known>> {
        let known = self.by_nid.get(&nid);
        if known.is_none() {
            self.wanted.borrow_mut().nids.insert(nid);
        }
        known
    }

    /// The state after the event with this id; none for an outlier. One that is not loaded is noted as wanted.
    pub(super) fn state_after(&self, id: &EventId) -> Option<&State> {
        match &self.event(id)?.state_after {
            After::Nowhere => None,
            After::State(state) => Some(state),
            After::Unread(_) => {
                self.wanted.borrow_mut().with_state.insert(id.to_owned());
                None
            }
        }
    }

    /// The event with this id unless it was rejected: what the rules may build on.
    pub(super) fn allowed(&self, id: &EventId) -> Option<Arc<Event>> {
        self.event(id)
            .filter(|known| known.outcome != Outcome::Rejected)
            .map(|known| Arc::clone(&known.event))
    }

    /// Whether every question so far could be answered.
    pub(super) fn wants_nothing(&self) -> bool {
        self.wanted.borrow().is_empty()
    }

    /// What was asked for in vain since the last call. If there is any, answers in between do not count.
    pub(super) fn take_wanted(&self) -> Wanted {
        self.wanted.take()
    }
}
