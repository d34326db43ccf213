//! Messages to a device: given until the device's next cursor acknowledges them.

use std::sync::atomic::{AtomicU64, Ordering};

use maru_protocol::cursor::Position;
use ruma::OwnedUserId;

use super::Sync;
use crate::accounts::Caller;
use crate::cache::Cache;
use crate::keys::WAITING;
use crate::refusal::Refusal;

/// The stored messages of a device between two positions, oldest first: as many as may wait for it, so that none is left
/// behind its cursor.
pub(super) async fn stored(
    sync: &Sync,
    caller: &Caller,
    after: Position,
    up_to: Position,
) -> Result<Vec<String>, Refusal> {
    let messages = sync
        .store
        .encryption
        .to_device(&caller.user_id, &caller.device_id, after, up_to, WAITING)
        .await?;
    Ok(messages.into_iter().map(|(_, json)| json).collect())
}

/// Devices for which no message is kept: their cursors need no look at the database.
#[derive(Debug)]
pub(super) struct NothingKept {
    devices: Cache<(OwnedUserId, String), ()>,
    /// How often devices were given messages.
    given: AtomicU64,
}

/// When the database was asked what is kept for a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(u64);

impl NothingKept {
    /// Remembers two generations of `capacity` devices.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            devices: Cache::new(capacity),
            given: AtomicU64::new(0),
        }
    }

    /// Whether it is known that nothing is kept for the device.
    pub(super) fn is_known_for(&self, caller: &Caller) -> bool {
        self.devices.get(&key(caller)).is_some()
    }

    /// To be called before the database is asked.
    pub(super) fn ask(&self) -> Asked {
        Asked(self.given.load(Ordering::SeqCst))
    }

    /// Remembers that the database has nothing for the device, unless a device, which may be this one, was given messages
    /// since it was asked: they came after the answer.
    pub(super) fn remember(&self, caller: &Caller, asked: Asked) {
        self.devices.insert(key(caller), ());
        // Looked at after, so that who gives meanwhile either is seen here or removes what was inserted.
        if self.ask().0 != asked.0 {
            self.devices.remove(&key(caller));
        }
    }

    /// Messages are being given to the device, and are kept until it acknowledges them.
    pub(super) fn gave(&self, caller: &Caller) {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.devices.remove(&key(caller));
    }
}

fn key(caller: &Caller) -> (OwnedUserId, String) {
    (caller.user_id.clone(), caller.device_id.clone())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn what_comes_while_the_database_is_asked_is_kept() {
        let alice = Caller::on_device(user_id!("@alice:example.org").to_owned(), "PHONE".to_owned());
        let nothing_kept = NothingKept::new(10);
        let asked = nothing_kept.ask();
        nothing_kept.gave(&alice);
        nothing_kept.remember(&alice, asked);
        assert!(!nothing_kept.is_known_for(&alice));
        nothing_kept.remember(&alice, nothing_kept.ask());
        assert!(nothing_kept.is_known_for(&alice));
        nothing_kept.gave(&alice);
        assert!(!nothing_kept.is_known_for(&alice));
    }
}
