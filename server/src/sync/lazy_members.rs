//! Which members' events a device has been given already, so that lazily loaded members are sent once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use maru_protocol::state::EventNid;
use ruma::OwnedUserId;

use crate::accounts::Caller;
use crate::cache::Cache;

/// Membership events remembered for one device; beyond that the device is given some again.
const EVENTS_PER_DEVICE: usize = 4096;

type Sent = Arc<Mutex<HashSet<EventNid>>>;

/// What each device has been given.
#[derive(Debug)]
pub(super) struct LazyMembers(Cache<(OwnedUserId, String), Sent>);

impl LazyMembers {
    pub(super) fn new(devices: usize) -> Self {
        Self(Cache::new(devices))
    }

    /// Forgets what a device has been given: it starts over.
    pub(super) fn forget(&self, caller: &Caller) {
        self.0.remove(&(caller.user_id.clone(), caller.device_id.clone()));
    }

    /// Keeps those membership events that the device has not been given, and remembers them as given.
    pub(super) fn not_given(&self, caller: &Caller, events: &mut Vec<EventNid>) {
        if events.is_empty() {
            return;
        }
        let key = (caller.user_id.clone(), caller.device_id.clone());
        let sent = self.0.get(&key).unwrap_or_else(|| {
            let sent = Sent::default();
            self.0.insert(key, Arc::clone(&sent));
            sent
        });
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() > EVENTS_PER_DEVICE {
            sent.clear();
        }
        events.retain(|nid| sent.insert(*nid));
    }
}
