//! Root keys that were turned down: somebody came under a name with a key that is not the one known for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use maru_protocol::key::PublicKey;
use maru_protocol::record::VerifiedRecord;
use ruma::{OwnedServerName, ServerName};

use super::keyring::NotKept;

/// Names that are remembered as refused.
const MOST_REFUSED: usize = 1000;

/// A root key that was refused, because another one is known for its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// The root key, which the peer has proven to stand behind its connection.
    pub root_key: PublicKey,
    /// Why it was refused.
    pub reason: String,
    /// How often since the start.
    pub count: u64,
    /// The last time, in milliseconds since 1970.
    pub last_at: u64,
}

/// Refused keys by server name, at most [`MOST_REFUSED`].
#[derive(Debug, Default)]
pub(in crate::peers) struct RefusedKeys(Mutex<HashMap<OwnedServerName, RefusedKey>>);

impl RefusedKeys {
    fn keys(&self) -> MutexGuard<'_, HashMap<OwnedServerName, RefusedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a peer was refused, and logs it: the first time, and then each time that the count has doubled.
    pub(in crate::peers) fn note(&self, record: &VerifiedRecord, not_kept: &NotKept, now_ms: u64) {
        let mut keys = self.keys();
        if keys.len() >= MOST_REFUSED && !keys.contains_key(&record.name) {
            return;
        }
        // Whichever key it comes with: a peer may have as many as it likes.
        let count = keys.get(&record.name).map_or(1, |refused| refused.count + 1);
        if count.is_power_of_two() {
            tracing::warn!(peer = %record.name, root_key = %record.root_key, count, "refused: {not_kept}");
        }
        let refused = RefusedKey {
            root_key: record.root_key,
            reason: not_kept.to_string(),
            count,
            last_at: now_ms,
        };
        keys.insert(record.name.clone(), refused);
    }

    /// Forgets what was refused under a name.
    pub(in crate::peers) fn forget(&self, name: &ServerName) {
        self.keys().remove(name);
    }

    /// All of them.
    pub(in crate::peers) fn all(&self) -> HashMap<OwnedServerName, RefusedKey> {
        self.keys().clone()
    }
}
