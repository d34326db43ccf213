//! Where peers are: the configuration first, then what their records say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use maru_federation::{AddressBook, Target};
use maru_protocol::record::VerifiedRecord;
use ruma::{OwnedServerName, ServerName};
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config::PeerAddress;

/// Most addresses of one peer that are tried.
const MOST_TARGETS: usize = 8;

/// How long DNS may take for one name.
const DNS_TIME: Duration = Duration::from_secs(5);

/// Addresses of peers.
#[derive(Debug, Default)]
pub struct KnownAddresses {
    named: RwLock<HashMap<OwnedServerName, Vec<PeerAddress>>>,
    records: RwLock<HashMap<OwnedServerName, Vec<Target>>>,
}

impl KnownAddresses {
    /// Adds a peer, or replaces its addresses. They are dialled wherever they are: who is named here is the admin's
    /// choice.
    pub fn add(&self, name: OwnedServerName, addresses: impl IntoIterator<Item = impl Into<PeerAddress>>) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        named.insert(name, addresses.into_iter().map(Into::into).collect());
    }

    /// Forgets the addresses that were added.
    pub fn remove(&self, name: &ServerName) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        named.remove(name);
    }

    /// Peers with addresses of the admin's.
    #[must_use]
    pub fn named(&self) -> Vec<OwnedServerName> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        named.keys().cloned().collect()
    }

    fn addresses(&self, name: &ServerName) -> Vec<PeerAddress> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        named.get(name).cloned().unwrap_or_default()
    }

    /// Takes over the public addresses of a record: what a stranger names is never dialled inside our own networks.
    pub(in crate::peers) fn learn(&self, record: &VerifiedRecord) {
        let public = record.addresses.iter().filter(|address| address.is_public());
        let targets = public.map(|address| Target {
            address: address.get(),
            key: Some(record.tls_key),
        });
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(record.name.clone(), targets.take(MOST_TARGETS).collect());
    }
}

impl AddressBook for KnownAddresses {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let named = self.addresses(peer);
        let named = join_all(named.iter().map(resolve)).await.into_iter().flatten();
        let mut targets: Vec<Target> = named.map(|address| Target { address, key: None }).collect();
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        targets.extend(records.get(peer).into_iter().flatten().copied());
        targets.truncate(MOST_TARGETS);
        targets
    }
}

/// Where an address is now.
pub(in crate::peers) async fn resolve(address: &PeerAddress) -> Vec<SocketAddr> {
    match address {
        PeerAddress::Fixed(address) => vec![*address],
        PeerAddress::Host(host, port) => {
            let looked_up = timeout(DNS_TIME, lookup_host((host.as_str(), *port))).await;
            match looked_up.unwrap_or_else(|late| Err(late.into())) {
                Ok(found) => found.collect(),
                Err(error) => {
                    tracing::debug!(%address, %error, "the name of a peer was not found");
                    Vec::new()
                }
            }
        }
    }
}
