//! Servers in a room with this one, in memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ruma::{OwnedServerName, ServerName};

use crate::refusal::Refusal;
use crate::store::Store;

/// How long a server that has left all rooms is kept connected all the same, at most, in milliseconds: an hour.
const REFRESHED_AFTER_MS: u64 = 60 * 60 * 1000;

/// The set of servers that share a room with this one, or did not long ago. Who joins is added at once, who has left is
/// removed by a refresh.
#[derive(Debug)]
pub(in crate::peers) struct SharingServers {
    store: Arc<Store>,
    names: RwLock<HashSet<OwnedServerName>>,
    /// When it was last read from the database, in milliseconds since 1970.
    refreshed_at: AtomicU64,
}

impl SharingServers {
    pub(in crate::peers) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            names: RwLock::default(),
            refreshed_at: AtomicU64::new(0),
        }
    }

    /// Reads the set from the database. Who is not in it any more is not kept connected, and not dialled for ever.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn refresh(&self, now_ms: u64) -> Result<(), Refusal> {
        let before = self.read().clone();
        let now: HashSet<_> = self
            .store
            .federation
            .interested_servers()
            .await?
            .into_iter()
            .collect();
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        // Those who have come meanwhile stay.
        before.difference(&now).for_each(|gone| drop(names.take(gone)));
        names.extend(now);
        self.refreshed_at.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the set from the database when that was long ago.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn refresh_when_due(&self, now_ms: u64) -> Result<(), Refusal> {
        let refreshed_at = self.refreshed_at.load(Ordering::Relaxed);
        if now_ms.saturating_sub(refreshed_at) >= REFRESHED_AFTER_MS {
            self.refresh(now_ms).await?;
        }
        Ok(())
    }

    /// Adds a server that has joined a room.
    pub(in crate::peers) fn add(&self, name: &ServerName) {
        if !self.contains(name) {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            names.insert(name.to_owned());
        }
    }

    /// Whether a server is in a room with this one, or was not long ago.
    pub(in crate::peers) fn contains(&self, name: &ServerName) -> bool {
        self.read().contains(name)
    }

    /// All of them.
    pub(in crate::peers) fn all(&self) -> HashSet<OwnedServerName> {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashSet<OwnedServerName>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }
}
