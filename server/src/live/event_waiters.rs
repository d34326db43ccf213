//! Waiters for events: notified when an event gets a place in its room's timeline.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ruma::{EventId, OwnedEventId};
use tokio::sync::Notify;

/// Events that may be awaited at a time.
const MOST: usize = 10_000;

/// Events that are awaited, and those of them that have come. Bounded.
#[derive(Debug, Default)]
pub struct EventWaiters {
    events: Mutex<Events>,
    /// How many are awaited: every commit asks, and mostly there are none.
    count: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Events {
    awaited: HashSet<OwnedEventId>,
    come: Vec<OwnedEventId>,
}

impl EventWaiters {
    /// Awaits an event; false when too many are awaited already.
    pub fn add(&self, event_id: &EventId) -> bool {
        let mut events = self.lock();
        if events.awaited.len() >= MOST && !events.awaited.contains(event_id) {
            return false;
        }
        events.awaited.insert(event_id.to_owned());
        self.count.store(events.awaited.len(), Ordering::Release);
        true
    }

    /// Awaits an event no longer.
    pub fn remove(&self, event_id: &EventId) {
        let mut events = self.lock();
        events.awaited.remove(event_id);
        self.count.store(events.awaited.len(), Ordering::Release);
    }

    /// Events that have come, as soon as there are any.
    pub async fn take(&self) -> Vec<OwnedEventId> {
        loop {
            let come = std::mem::take(&mut self.lock().come);
            if !come.is_empty() {
                return come;
            }
            self.changed.notified().await;
        }
    }

    /// Awaits these events and no others.
    pub fn replace(&self, event_ids: Vec<OwnedEventId>) {
        let mut events = self.lock();
        events.awaited = event_ids.into_iter().take(MOST).collect();
        self.count.store(events.awaited.len(), Ordering::Release);
    }

    /// An event has a place now.
    pub(super) fn committed(&self, event_id: &EventId) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut events = self.lock();
        if events.awaited.contains(event_id) {
            events.come.push(event_id.to_owned());
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ruma::event_id;

    use crate::live::event_waiters::*;

    #[tokio::test]
    async fn only_what_is_awaited_is_told_of() {
        let awaited = EventWaiters::default();
        let (wanted, other) = (event_id!("$wanted"), event_id!("$other"));
        assert!(awaited.add(wanted));
        awaited.committed(other);
        awaited.committed(wanted);
        assert_eq!(awaited.take().await, [wanted]);
        awaited.remove(wanted);
        awaited.committed(wanted);
        assert!(awaited.lock().come.is_empty());
    }

    #[test]
    fn no_more_than_a_bounded_number_is_awaited() {
        let awaited = EventWaiters::default();
        let id = |n: usize| OwnedEventId::try_from(format!("$event{n}")).unwrap();
        assert!((0..MOST).all(|n| awaited.add(&id(n))));
        assert!(!awaited.add(&id(MOST)));
        assert!(awaited.add(&id(0)), "known already");
    }
}
