//! What the tasks of one pool share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use maru_protocol::PublicKey;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::{Settings, peer::Peer};
use crate::{homeserver::Homeserver, limits};

/// What every connection needs.
pub(super) struct Shared<H> {
    pub(super) server: Arc<H>,
    pub(super) registry: Arc<Registry>,
    pub(super) settings: Settings,
    pub(super) own_key: PublicKey,
    /// Permits for dialling.
    pub(super) dials: Semaphore,
    /// What sessions count their time from.
    pub(super) start: Instant,
}

impl<H: Homeserver> Shared<H> {
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// There is no room for one more peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyPeers;

/// The peers of a pool.
pub(super) struct Registry {
    peers: Mutex<HashMap<OwnedServerName, Arc<Peer>>>,
    /// Peers that need a keeper.
    new_peers: mpsc::UnboundedSender<Arc<Peer>>,
    /// True once nothing new is begun: no dialling, no accepting.
    pub(super) stopping: watch::Sender<bool>,
    /// True once connections are to be closed.
    pub(super) closing: watch::Sender<bool>,
    /// Changes when our own record does.
    pub(super) records: watch::Sender<()>,
    /// How often connections were refused or closed for a fault, by reason. The reasons are our own words,
    /// hence few.
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

impl Registry {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Arc<Peer>>) {
        // As long as the map allows peers, which is bounded.
        let (new_peers, keepers_wanted) = mpsc::unbounded_channel();
        let registry = Self {
            peers: Mutex::default(),
            new_peers,
            stopping: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            records: watch::Sender::new(()),
            refusals: Mutex::default(),
        };
        (Arc::new(registry), keepers_wanted)
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<OwnedServerName, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a peer that cannot be forgotten meanwhile. It is made where there is none.
    pub(super) fn with<T>(
        &self,
        name: &ServerName,
        act: impl FnOnce(&Arc<Peer>) -> T,
    ) -> Result<T, TooManyPeers> {
        let mut peers = self.peers();
        if let Some(peer) = peers.get(name) {
            return Ok(act(peer));
        }
        if peers.len() >= limits::MAX_PEERS {
            return Err(TooManyPeers);
        }
        let peer = Arc::new(Peer::new(name.to_owned()));
        let done = act(&peer);
        // Fails only when the pool has ended, and then nobody keeps anything.
        let _ = self.new_peers.send(peer.clone());
        peers.insert(name.to_owned(), peer);
        Ok(done)
    }

    /// Counts a connection that was refused or closed for a fault.
    pub(super) fn refused(&self, reason: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(reason).or_default() += 1;
    }

    /// How often connections were refused, by reason.
    pub(super) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A peer, if it is known.
    pub(super) fn find(&self, name: &ServerName) -> Option<Arc<Peer>> {
        self.peers().get(name).cloned()
    }

    /// Every known peer.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.peers().values().cloned().collect()
    }

    /// Forgets a peer that nobody wants. False where somebody came meanwhile.
    pub(super) fn retire(&self, peer: &Arc<Peer>) -> bool {
        let mut peers = self.peers();
        if peer.is_wanted() || peer.has_connection() {
            return false;
        }
        peers.remove(&peer.name);
        true
    }
}
