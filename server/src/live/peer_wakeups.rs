//! Servers that the log has something new for. Only who, never what: each reads on from its own cursor.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ruma::{OwnedServerName, ServerName};
use tokio::sync::Notify;

/// Names that wait for somebody to wake the peers. Bounded by the number of servers.
#[derive(Debug, Default)]
pub struct PeerWakeups {
    waiting: Mutex<HashSet<OwnedServerName>>,
    changed: Notify,
}

impl PeerWakeups {
    /// Adds servers.
    pub(super) fn add<'n>(&self, names: impl Iterator<Item = &'n ServerName>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        for name in names {
            if !waiting.contains(name) {
                waiting.insert(name.to_owned());
            }
        }
        if waiting.len() > before {
            self.changed.notify_one();
        }
    }

    /// Takes what waits, as soon as there is any.
    pub async fn take(&self) -> HashSet<OwnedServerName> {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if !waiting.is_empty() {
                    return std::mem::take(&mut waiting);
                }
            }
            self.changed.notified().await;
        }
    }
}
