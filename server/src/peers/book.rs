//! Where peers are: the configuration first, then what their records say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use maru_federation::{AddressBook, Target};
use maru_protocol::key::PublicKey;
use maru_protocol::record::VerifiedRecord;
use ruma::{OwnedServerName, ServerName};

/// Most addresses of one peer that are tried.
const MOST_TARGETS: usize = 8;

/// A peer that the admin has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its name.
    pub name: OwnedServerName,
    /// Where it can be dialled.
    pub addresses: Vec<SocketAddr>,
    /// Its root key, where the name does not say it.
    pub key: Option<PublicKey>,
}

/// Addresses of peers.
#[derive(Debug)]
pub struct Book {
    configured: RwLock<HashMap<OwnedServerName, Vec<SocketAddr>>>,
    records: RwLock<HashMap<OwnedServerName, Vec<Target>>>,
}

impl Book {
    pub(super) fn new(peers: Vec<KnownPeer>) -> Self {
        let configured = peers
            .into_iter()
            .map(|peer| (peer.name, peer.addresses))
            .collect();
        Self {
            configured: RwLock::new(configured),
            records: RwLock::default(),
        }
    }

    /// Adds a peer, or replaces its addresses.
    pub fn add(&self, name: OwnedServerName, addresses: Vec<SocketAddr>) {
        let mut configured = self.configured.write().unwrap_or_else(PoisonError::into_inner);
        configured.insert(name, addresses);
    }

    /// Forgets the addresses that were added or configured.
    pub fn remove(&self, name: &ServerName) {
        let mut configured = self.configured.write().unwrap_or_else(PoisonError::into_inner);
        configured.remove(name);
    }

    /// Peers with addresses of the admin's.
    #[must_use]
    pub fn configured(&self) -> Vec<OwnedServerName> {
        let configured = self.configured.read().unwrap_or_else(PoisonError::into_inner);
        configured.keys().cloned().collect()
    }

    /// Takes over the public addresses of a record: what a stranger names is never dialled inside our own networks.
    pub(super) fn learn(&self, record: &VerifiedRecord) {
        let public = record.addresses.iter().filter(|address| address.is_public());
        let targets = public.map(|address| Target {
            address: address.get(),
            key: Some(record.tls_key),
        });
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(record.name.clone(), targets.take(MOST_TARGETS).collect());
    }
}

impl AddressBook for Book {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let configured = self.configured.read().unwrap_or_else(PoisonError::into_inner);
        let configured = configured.get(peer).into_iter().flatten();
        let mut targets: Vec<Target> = configured
            .map(|address| Target {
                address: *address,
                key: None,
            })
            .collect();
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        targets.extend(records.get(peer).into_iter().flatten().copied());
        targets.truncate(MOST_TARGETS);
        targets
    }
}
