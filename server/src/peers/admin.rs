//! Peers for the admin and for metrics: their list, pings, adding, removing, trusting another key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maru_federation::pool::{PeerState, PeerView};
use maru_protocol::ServerKind;
use maru_protocol::key::PublicKey;
use maru_protocol::log_paging::position_of;
use maru_protocol::wire::CloseCode;
use maru_protocol::wire::request::records::Records;
use ruma::{OwnedServerName, ServerName};

use super::dependencies::Dependencies;
use super::identity::known_servers::KnownServers;
use super::identity::refused_keys::RefusedKey;
use super::inbound::drop_counters::DropCounters;
use super::rpc_client::{self, RpcClient};
use crate::config::PeerAddress;
use crate::observe::peers::{Moved, PeerSample, PeersSample};
use crate::refusal::Refusal;
use crate::store::Store;

/// A peer as the admin sees it.
#[derive(Clone, Debug)]
pub struct PeerSeen {
    /// Its name.
    pub name: OwnedServerName,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Whether the admin has added it.
    pub added: bool,
    /// Its root key, if it is known.
    pub root_key: Option<PublicKey>,
    /// How it is connected, if it was wanted since the start.
    pub view: Option<PeerView>,
    /// Positions of our log that lie before it: 0 when it has everything; none when it has not said so since the start.
    pub lag: Option<u64>,
    /// The last one who came under its name with a key that is not its own.
    pub refused: Option<RefusedKey>,
}

/// How a peer answered.
#[derive(Clone, Debug)]
pub struct Pong {
    /// Time until it was connected, next to nothing where it was already, and how it is; nothing where another node has the
    /// connections.
    pub connected: Option<(Duration, PeerView)>,
    /// Time from a request to its answer.
    pub answered: Duration,
}

/// The administration of peers.
#[derive(Debug)]
pub struct PeerAdmin {
    store: Arc<Store>,
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
    drops: Arc<DropCounters>,
}

impl PeerAdmin {
    pub(super) fn new(dependencies: &Dependencies) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            servers: Arc::clone(&dependencies.servers),
            rpc: Arc::clone(&dependencies.rpc),
            drops: Arc::clone(&dependencies.drops),
        }
    }

    /// All peers that are named, were met since the start, or were refused for a key; by name.
    #[must_use]
    pub fn seen(&self) -> Vec<PeerSeen> {
        let views = self.rpc.pool().map(|pool| pool.peers()).unwrap_or_default();
        let mut views: BTreeMap<_, _> = views.into_iter().map(|view| (view.name.clone(), view)).collect();
        let mut refused = self.servers.refused_keys().all();
        let added = self.servers.added();
        let configured = self.servers.configured();
        let names: BTreeSet<OwnedServerName> = views
            .keys()
            .chain(refused.keys())
            .chain(&added)
            .chain(configured)
            .cloned()
            .collect();
        let seen = names.into_iter().map(|name| {
            let view = views.remove(&name);
            PeerSeen {
                configured: configured.contains(&name),
                added: added.contains(&name),
                root_key: self.servers.keyring().root_key(&name),
                lag: view.as_ref().and_then(|view| self.lag(view)),
                refused: refused.remove(&name),
                view,
                name,
            }
        });
        seen.collect()
    }

    /// How far a peer is behind the end of our log.
    fn lag(&self, view: &PeerView) -> Option<u64> {
        if view.caught_up && view.in_flight.0 == 0 {
            return Some(0);
        }
        let end = self.store.log.position();
        let reached = position_of(view.acknowledged.as_ref()?, self.store.log.id(), end)?;
        Some((end.0 - reached.0).unsigned_abs())
    }

    /// What the collector is shown.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sample(&self) -> Result<PeersSample, Refusal> {
        let views = self.rpc.pool().map(|pool| pool.peers()).unwrap_or_default();
        Ok(PeersSample {
            peers: views.iter().map(|view| self.sample_of(view)).collect(),
            refusals: self.refusals(),
            dropped: self.drops.counts(),
            refused_keys: self.servers.refused_keys().all().len(),
            inbox: self.store.federation.inbox_depth().await?,
        })
    }

    fn sample_of(&self, view: &PeerView) -> PeerSample {
        let traffic = &view.traffic;
        PeerSample {
            name: view.name.to_string(),
            connected: view.state == PeerState::Connected,
            lag: self.lag(view),
            round_trip: view.round_trip,
            moved: [
                Moved {
                    frames: traffic.frames_in,
                    bytes: traffic.bytes_in,
                    requests: traffic.requests_in,
                },
                Moved {
                    frames: traffic.frames_out,
                    bytes: traffic.bytes_out,
                    requests: traffic.requests_out,
                },
            ],
        }
    }

    /// How often connections were refused or closed for a fault since the start, by reason.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.rpc.pool().map(|pool| pool.refusals()).unwrap_or_default()
    }

    /// Connects with a peer and asks it something.
    ///
    /// # Errors
    /// Why it is not reached, or does not answer.
    pub async fn ping(&self, name: &ServerName) -> Result<Pong, Refusal> {
        let begun = Instant::now();
        let connected = match self.rpc.pool() {
            Some(pool) => {
                let view = pool.connect(name).await;
                let view = view.map_err(|error| rpc_client::refusal(name, error))?;
                Some((begun.elapsed(), view))
            }
            None => None,
        };
        let begun = Instant::now();
        let nothing = Records { servers: Vec::new() };
        self.rpc.request(name, nothing).await?;
        Ok(Pong {
            connected,
            answered: begun.elapsed(),
        })
    }

    /// Adds a peer for good, or changes the addresses of one, and connects with it. A domain needs its key, unless it is
    /// known or its web server publishes it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for one that the configuration names or denies; [`Refusal::InvalidParam`] for a key that
    /// is not the one that is known.
    pub async fn add_peer(
        &self,
        name: &ServerName,
        addresses: Vec<PeerAddress>,
        key: Option<PublicKey>,
    ) -> Result<(), Refusal> {
        self.check_not_configured(name)?;
        self.servers.check_allowed(name)?;
        match (self.servers.keyring().root_key(name), key) {
            (Some(known), Some(given)) if known != given => {
                return Err(Refusal::invalid(format!(
                    "the key of {name} is {known}, see `maru peer trust`"
                )));
            }
            (Some(_), _) => {}
            (None, Some(given)) => self.servers.keyring().trust(&self.store, name, given).await?,
            (None, None) => {
                let proven = self.servers.prove(name, None).await?;
                proven.map_err(|why| Refusal::invalid(format!("{why}; give its root key with --key")))?;
            }
        }
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.store.federation.add_peer(name, &texts).await?;
        self.servers.note_added(name, addresses);
        self.rpc.wake(name);
        Ok(())
    }

    /// Forgets where an added peer is, and ends the connection with it. Rooms that it shares with this server it still
    /// shares: who is to be kept out is denied in the configuration.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for one that was not added.
    pub async fn remove_peer(&self, name: &ServerName) -> Result<(), Refusal> {
        self.check_not_configured(name)?;
        if !self.store.federation.remove_peer(name).await? {
            return Err(Refusal::not_found(format!("{name} was not added")));
        }
        self.servers.forget_added(name);
        self.rpc.disconnect(name, CloseCode::Done, "removed by the admin");
        Ok(())
    }

    /// Accepts another root key for a domain.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] where the configuration says which key it is, or its name does.
    pub async fn trust(&self, name: &ServerName, key: PublicKey) -> Result<(), Refusal> {
        if ServerKind::of(name) != Ok(ServerKind::Domain) {
            return Err(Refusal::forbidden(
                "a key name has the key that it spells, for ever",
            ));
        }
        if self.servers.keyring().is_pinned(name) {
            return Err(Refusal::forbidden(format!(
                "the configuration says which key {name} has"
            )));
        }
        self.servers.keyring().trust(&self.store, name, key).await?;
        self.servers.refused_keys().forget(name);
        tracing::warn!(peer = %name, root_key = %key, "another root key is accepted by the admin");
        // Whoever holds the old key may still be connected.
        self.rpc
            .disconnect(name, CloseCode::KeyChanged, "another root key is accepted");
        self.rpc.wake(name);
        Ok(())
    }

    fn check_not_configured(&self, name: &ServerName) -> Result<(), Refusal> {
        if self.servers.configured().contains(name) {
            return Err(Refusal::forbidden(format!(
                "{name} stands in the configuration: change it there"
            )));
        }
        Ok(())
    }
}
