//! Other servers as this one knows them: who may be spoken with, by which keys they are recognised, where they are.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures_util::{StreamExt, stream};
use maru_federation::{AddressBook, Target};
use maru_protocol::ServerKind;
use maru_protocol::key::PublicKey;
use maru_protocol::record::{SignedRecord, VerifiedRecord};
use ruma::{OwnedServerName, ServerName, UserId};

use super::address_book::KnownAddresses;
use super::keyring::{Keyring, NotKept};
use super::refused_keys::RefusedKeys;
use super::sharing_servers::SharingServers;
use super::well_known::{Published, WellKnown};
use crate::clock::Clock;
use crate::config::{ConfiguredPeer, PeerAddress};
use crate::https_client::HttpsClient;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::store::{Store, StoreError};

/// Domains of one answer that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 16;

/// Servers that the configuration lets this one federate with.
#[derive(Debug)]
pub(in crate::peers) struct ServerAccess {
    /// Those that may; empty: all.
    pub(in crate::peers) allow: Vec<OwnedServerName>,
    /// Those that may not.
    pub(in crate::peers) deny: Vec<OwnedServerName>,
}

impl ServerAccess {
    fn allows(&self, server_name: &ServerName) -> bool {
        let listed = |list: &[OwnedServerName]| list.iter().any(|name| name == server_name);
        !listed(&self.deny) && (self.allow.is_empty() || listed(&self.allow))
    }
}

/// What has changed of a server for who is connected with it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::peers) struct Changed {
    /// It has another root key than before.
    pub(in crate::peers) root_key: bool,
    /// The admin has added it, or said anew where it is.
    pub(in crate::peers) added: bool,
    /// The admin has removed it.
    pub(in crate::peers) removed: bool,
}

/// The registry of other servers: access list, keyring, addresses, and which of them share a room with this one. It finds
/// domains that nobody has named by what their web servers publish.
#[derive(Debug)]
pub struct KnownServers {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    keyring: Arc<Keyring>,
    addresses: KnownAddresses,
    sharing: SharingServers,
    access: ServerAccess,
    /// Names in the configuration.
    configured: HashSet<OwnedServerName>,
    /// Names that the admin has added to those.
    added: RwLock<HashSet<OwnedServerName>>,
    /// Made with the first look-up.
    well_known: OnceLock<WellKnown>,
    refused_keys: RefusedKeys,
}

impl KnownServers {
    /// The servers of the configuration, and those that are stored.
    ///
    /// # Errors
    /// When the database fails, or a stored record or address is damaged.
    pub(in crate::peers) async fn open(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        store: Arc<Store>,
        configured: &[ConfiguredPeer],
        access: ServerAccess,
    ) -> Result<Self, Refusal> {
        let keyring = Arc::new(Keyring::open(&store, configured).await?);
        let addresses = KnownAddresses::default();
        keyring.each_newest(|record| addresses.learn(record));
        for peer in configured {
            addresses.add(peer.name.clone(), peer.addresses.iter().cloned());
        }
        let servers = Self {
            identity,
            clock,
            sharing: SharingServers::new(Arc::clone(&store)),
            store,
            keyring,
            addresses,
            access,
            configured: configured.iter().map(|peer| peer.name.clone()).collect(),
            added: RwLock::default(),
            well_known: OnceLock::new(),
            refused_keys: RefusedKeys::default(),
        };
        servers.load_added().await?;
        Ok(servers)
    }

    /// Records and keys.
    pub(in crate::peers) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Where servers are.
    #[must_use]
    pub fn addresses(&self) -> &KnownAddresses {
        &self.addresses
    }

    /// Servers in a room with this one.
    pub(in crate::peers) fn sharing(&self) -> &SharingServers {
        &self.sharing
    }

    /// Servers that came with a key that is not theirs.
    pub(in crate::peers) fn refused_keys(&self) -> &RefusedKeys {
        &self.refused_keys
    }

    /// Names in the configuration.
    pub(in crate::peers) fn configured(&self) -> &HashSet<OwnedServerName> {
        &self.configured
    }

    /// Names that the admin has added.
    pub(in crate::peers) fn added(&self) -> HashSet<OwnedServerName> {
        self.added.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether another server may be spoken with at all.
    pub(in crate::peers) fn is_allowed(&self, server_name: &ServerName) -> bool {
        self.access.allows(server_name)
    }

    /// Refuses a server that the configuration keeps out.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub(in crate::peers) fn check_allowed(&self, server_name: &ServerName) -> Result<(), Refusal> {
        if self.is_allowed(server_name) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "this server does not speak with {server_name}"
        )))
    }

    /// Whether a server may be asked for somebody: no stranger makes this one dial whom he likes, so without an account only
    /// servers that are known here are asked.
    ///
    /// # Errors
    /// [`Refusal::MissingToken`] where one has to log in for that.
    pub fn check_asked_for(&self, asker: Option<&UserId>, server: &ServerName) -> Result<(), Refusal> {
        let may_ask = asker.is_some() || server == self.identity.name() || self.is_known(server);
        may_ask.then_some(()).ok_or(Refusal::MissingToken)
    }

    /// Whether a server is one of those that this one has to do with.
    pub(in crate::peers) fn is_known(&self, server: &ServerName) -> bool {
        self.sharing.contains(server)
            || self.keyring.newest(server).is_some()
            || self.addresses.named().iter().any(|name| name == server)
    }

    /// Looks up domains through an HTTPS client of the caller's, in the place of the public one: for tests, which serve
    /// domains themselves. Without effect once a domain was looked up.
    pub fn look_up_through(&self, web: HttpsClient) {
        let _ = self.well_known.set(WellKnown::new(web));
    }

    fn well_known(&self) -> Result<&WellKnown, Refusal> {
        if self.well_known.get().is_none() {
            self.look_up_through(HttpsClient::public().map_err(Refusal::internal)?);
        }
        self.well_known
            .get()
            .ok_or_else(|| Refusal::internal("no HTTPS client"))
    }

    /// Keeps the record of a server. A domain whose key is not known is asked for it first, on behalf of a server at
    /// `asker`, or of this one.
    ///
    /// # Errors
    /// [`NotKept`], or [`Refusal`] around it when the database fails.
    pub(in crate::peers) async fn keep(
        &self,
        record: &SignedRecord,
        asker: Option<IpAddr>,
    ) -> Result<Result<(), NotKept>, Refusal> {
        match self.keyring.keep(&self.store, record).await? {
            Err(NotKept::Unproven(name)) => match self.prove(&name, asker).await? {
                Ok(_) => self.keyring.keep(&self.store, record).await,
                Err(not_kept) => Ok(Err(not_kept)),
            },
            kept => Ok(kept),
        }
    }

    /// Keeps the record of a server that has proven to hold its TLS key, and learns its addresses. A key that is not the
    /// server's is noted.
    ///
    /// # Errors
    /// As [`KnownServers::keep`].
    pub(in crate::peers) async fn keep_proven(
        &self,
        record: &VerifiedRecord,
        asker: Option<IpAddr>,
    ) -> Result<Result<(), NotKept>, Refusal> {
        let kept = self.keep(record.signed(), asker).await?;
        if let Err(not_kept @ (NotKept::KeyChanged(_) | NotKept::Conflict(_))) = &kept {
            self.refused_keys.note(record, not_kept, self.clock.now_ms());
        }
        Ok(kept)
    }

    /// Keeps those of some records that can be, several look-ups at a time.
    ///
    /// # Errors
    /// When the database fails.
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

    /// Keeps a record whose key is known, without asking a domain.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn keep_if_known(
        &self,
        record: &SignedRecord,
    ) -> Result<Result<(), NotKept>, Refusal> {
        self.keyring.keep(&self.store, record).await
    }

    /// Asks a domain for its root key and trusts the answer, unless a key is known by now. Returns what it publishes.
    ///
    /// # Errors
    /// [`NotKept`], or [`Refusal`] around it when the database fails.
    pub(in crate::peers) async fn prove(
        &self,
        name: &ServerName,
        asker: Option<IpAddr>,
    ) -> Result<Result<Published, NotKept>, Refusal> {
        if !self.is_allowed(name) {
            return Ok(Err(NotKept::Unproven(name.to_owned())));
        }
        match self.well_known()?.ask(name, asker.map(network)).await {
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

    /// Learns the addresses of a domain from the record that it publishes.
    async fn discover(&self, name: &ServerName) -> Result<(), Refusal> {
        let published = self.prove(name, None).await?.map_err(unavailable)?;
        let Some(record) = published.record else {
            return Ok(());
        };
        let verified = record.verify().map_err(unavailable)?;
        if verified.name != name {
            return Err(unavailable("it publishes the record of another server"));
        }
        self.keep(&record, None).await?.map_err(unavailable)?;
        self.addresses.learn(&verified);
        Ok(())
    }

    /// Takes up the servers that the admin has added; what the configuration says of them wins.
    async fn load_added(&self) -> Result<(), Refusal> {
        for (name, addresses) in self.store.federation.added_peers().await? {
            if !self.configured.contains(&name) {
                let addresses: Result<Vec<PeerAddress>, _> =
                    addresses.iter().map(|text| text.parse()).collect();
                self.note_added(&name, addresses.map_err(Refusal::internal)?);
            }
        }
        Ok(())
    }

    /// Takes up what another node has stored of a server: records, root key, what the admin has said.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn reload(&self, name: &ServerName) -> Result<Changed, StoreError> {
        let tables = &self.store.federation;
        let (key, records) = (
            tables.root_key_of(name).await?,
            tables.records_of_server(name).await?,
        );
        let added = tables.addresses_of_added(name).await?;
        // What is damaged is left out here: the next start names it.
        let key = key.and_then(|key| PublicKey::from_bytes(&key).ok());
        let records = records.iter().filter_map(|bytes| {
            let record = SignedRecord::from_bytes(bytes).ok()?;
            record.verify().ok()
        });
        let before = self.keyring.root_key(name);
        self.keyring.take_up(name, key, records.collect());
        if let Some(newest) = self.keyring.newest(name) {
            if name == self.identity.name() {
                self.keyring.insert_own(newest);
                return Ok(Changed::default());
            }
            self.addresses.learn(&newest);
        }
        let mut changed = Changed {
            root_key: before.is_some() && before != self.keyring.root_key(name),
            ..Changed::default()
        };
        if changed.root_key {
            self.refused_keys.forget(name);
        }
        match added {
            Some(addresses) if !self.configured.contains(name) => {
                let addresses = addresses.iter().filter_map(|text| text.parse().ok());
                self.note_added(name, addresses.collect());
                changed.added = true;
            }
            None if self.added().contains(name) => {
                self.forget_added(name);
                changed.removed = true;
            }
            _ => {}
        }
        Ok(changed)
    }

    /// The admin has added a server, or changed its addresses.
    pub(in crate::peers) fn note_added(&self, name: &ServerName, addresses: Vec<PeerAddress>) {
        self.addresses.add(name.to_owned(), addresses);
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        added.insert(name.to_owned());
    }

    /// The admin has removed a server.
    pub(in crate::peers) fn forget_added(&self, name: &ServerName) {
        self.addresses.remove(name);
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        added.remove(name);
    }
}

impl AddressBook for KnownServers {
    /// Known addresses, and where there are none those that a domain publishes.
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let known = self.addresses.targets(peer).await;
        if !known.is_empty() || ServerKind::of(peer) != Ok(ServerKind::Domain) {
            return known;
        }
        if let Err(refusal) = self.discover(peer).await {
            tracing::debug!(%peer, %refusal, "not discovered");
        }
        self.addresses.targets(peer).await
    }
}

fn unavailable(why: impl std::fmt::Display) -> Refusal {
    Refusal::Unavailable(why.to_string())
}

/// An IPv4 address, or the network of an IPv6 address that one subscriber has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}
