//! Which members' events a device has been given already, so that lazily loaded members are sent once.
//!
//! What a device has is what the answers on its way to a cursor gave it. It may come back with an older cursor, because it
//! stores one only now and then, or lost an answer: what it was given after that one, it has not been given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use ruma::OwnedUserId;

use crate::accounts::Caller;
use crate::cache::Cache;

/// Membership events remembered for one device; beyond that the device is given some again.
const EVENTS_PER_DEVICE: usize = 4096;

/// What each device has been given.
#[derive(Debug)]
pub(super) struct LazyMembers(Cache<(OwnedUserId, String), GivenMembers>);

impl LazyMembers {
    pub(super) fn new(devices: usize) -> Self {
        Self(Cache::new(devices))
    }

    /// What a device has been given.
    pub(super) fn of(&self, caller: &Caller) -> GivenMembers {
        let key = (caller.user_id.clone(), caller.device_id.clone());
        self.0.get(&key).unwrap_or_else(|| {
            let given = GivenMembers::default();
            self.0.insert(key, given.clone());
            given
        })
    }
}

/// What one device has been given, shared by its sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenMembers(Arc<Mutex<Given>>);

#[derive(Debug, Default)]
struct Given {
    /// Membership events, each with the cursor of the answer that gave it.
    events: HashMap<EventNid, Position>,
    /// None of these cursors is newer.
    newest: Position,
    /// The newest cursor that an answer took the device to.
    answered: Position,
}

impl GivenMembers {
    /// A device that has everything up to `since` (none: nothing) is being answered up to `until`. What it was given on
    /// the way to other cursors is forgotten. Costs nothing for a device that goes on from its newest cursor.
    pub(super) fn answering(&self, since: Option<Position>, until: Position) {
        let mut given = self.lock();
        let since = since.unwrap_or_default();
        if given.newest > since {
            given.events.retain(|_, cursor| *cursor <= since);
            given.newest = since;
        }
        given.answered = given.answered.max(until);
    }

    /// Whether the device has been given an event.
    fn has(&self, event: EventNid) -> bool {
        self.lock().events.contains_key(&event)
    }

    /// Keeps those membership events that the device has not been given.
    pub(super) fn keep_new(&self, events: &mut Vec<EventNid>) {
        events.retain(|event| !self.has(*event));
    }

    /// Remembers events as given by the answer up to `until`. One that is overtaken by another answer to the device is
    /// not remembered: who has the newer cursor may not have seen it.
    pub(super) fn remember(&self, events: &[EventNid], until: Position) {
        if events.is_empty() {
            return;
        }
        let mut given = self.lock();
        if until < given.answered {
            return;
        }
        if given.events.len() + events.len() > EVENTS_PER_DEVICE {
            given.events.clear();
        }
        given.events.extend(events.iter().map(|event| (*event, until)));
        given.newest = given.newest.max(until);
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: EventNid = EventNid(7);

    #[test]
    fn what_was_given_after_the_cursor_was_not_given() {
        let given = GivenMembers::default();
        given.answering(Some(Position(10)), Position(20));
        given.remember(&[MEMBER], Position(20));
        given.answering(Some(Position(20)), Position(30));
        assert!(given.has(MEMBER));
        given.answering(Some(Position(10)), Position(40));
        assert!(!given.has(MEMBER), "it comes back from before");
        given.answering(Some(Position(20)), Position(50));
        assert!(!given.has(MEMBER), "and one cannot tell by which way it came");
    }

    #[test]
    fn an_answer_that_another_one_overtook_is_not_relied_on() {
        let given = GivenMembers::default();
        given.answering(Some(Position(10)), Position(20));
        given.answering(Some(Position(10)), Position(30));
        given.remember(&[MEMBER], Position(20));
        given.answering(Some(Position(30)), Position(40));
        assert!(!given.has(MEMBER));
    }

    #[test]
    fn a_device_that_starts_over_has_nothing() {
        let given = GivenMembers::default();
        given.answering(None, Position(20));
        given.remember(&[MEMBER], Position(20));
        given.answering(None, Position(20));
        assert!(!given.has(MEMBER));
    }
}
