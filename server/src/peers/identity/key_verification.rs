//! Which root key belongs to which name, and who came with another one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, stream};
use maru_protocol::key::PublicKey;
use maru_protocol::record::{SignedRecord, VerifiedRecord};
use ruma::{OwnedServerName, ServerName};

use super::well_known::{Published, WellKnown};
use crate::https_client::HttpsClient;
use crate::peers::{NotKept, Peers};
use crate::refusal::Refusal;

/// Domains of one answer that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 16;

/// Names that are remembered as refused.
const MOST_REFUSED: usize = 1000;

/// Somebody who came with a key that is not the one of the name.
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

/// Who was refused for a key, by name.
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

impl Peers {
    /// Looks up domains through a web of the caller's, in the place of the public one: for tests, which serve domains
    /// themselves. Without effect once a domain was looked up.
    pub fn look_up_through(&self, web: HttpsClient) {
        let _ = self.look_ups.set(WellKnown::new(web));
    }

    fn look_ups(&self) -> Result<&WellKnown, Refusal> {
        if self.look_ups.get().is_none() {
            self.look_up_through(HttpsClient::public().map_err(Refusal::internal)?);
        }
        self.look_ups.get().ok_or_else(|| Refusal::internal("no web"))
    }

    /// Keeps the record of a server. A domain whose key is not known is asked for it first, for somebody at `place`, or
    /// for this server itself.
    pub(in crate::peers) async fn keep(
        &self,
        record: &SignedRecord,
        place: Option<IpAddr>,
    ) -> Result<Result<(), NotKept>, Refusal> {
        match self.keyring.keep(&self.store, record).await? {
            Err(NotKept::Unproven(name)) => match self.prove(&name, place).await? {
                Ok(_) => self.keyring.keep(&self.store, record).await,
                Err(not_kept) => Ok(Err(not_kept)),
            },
            kept => Ok(kept),
        }
    }

    /// Keeps those of some records that can be, several look-ups at a time.
    pub(in crate::peers) async fn keep_all(&self, records: &[SignedRecord]) -> Result<(), Refusal> {
        let keeping: Vec<_> = records.iter().map(|record| self.keep(record, None)).collect();
        let mut kept = stream::iter(keeping).buffered(LOOKED_UP_AT_ONCE);
        while let Some(kept) = kept.next().await {
            if let Err(why) = kept? {
                tracing::debug!(%why, "a record is not kept");
            }
        }
        Ok(())
    }

    /// Asks a domain for its root key and trusts the answer, unless a key is known by now. What it publishes of itself.
    pub(in crate::peers) async fn prove(
        &self,
        name: &ServerName,
        place: Option<IpAddr>,
    ) -> Result<Result<Published, NotKept>, Refusal> {
        if !self.is_allowed(name) {
            return Ok(Err(NotKept::Unproven(name.to_owned())));
        }
        let place = place.map(network);
        match self.look_ups()?.ask(name, place).await {
            Err(error) => Ok(Err(NotKept::NotLookedUp(name.to_owned(), error))),
            Ok(published) => {
                if self.keyring.root_key(name).is_none() {
                    self.keyring.trust(&self.store, name, published.root_key).await?;
                    tracing::info!(peer = %name, root_key = %published.root_key, "proven by its web server");
                }
                Ok(Ok(published))
            }
        }
    }
}

/// An IPv4 address, or the network of an IPv6 address that one subscriber has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}
