//! Peers: the homeserver's side of federation (`spec/federation.md`). Wire messages stop here: inside are the words of
//! the domain, outside is `maru_federation`.
//!
//! - [`identity::keyring`]: who is who: server records and signing keys. [`identity::own_record`]: this server's own.
//! - [`identity::key_verification`]: which key belongs to a name. [`identity::well_known`]: what a domain's web server says.
//! - [`identity::address_book`]: where peers are. [`identity::address_lookup`]: finding those that nobody named. [`identity::admin_view`]: what an admin sees and does.
//! - [`pool_adapter`]: what the pool of connections asks for.
//! - [`outgoing`]: what a peer is sent. [`inbound::pdu_precheck`]: what comes and is worth storing. [`inbound::inbox`]: what came, room by room;
//!   [`inbound::inbox_quota`]: how much of whom at most. [`inbound::departed_servers`]: who has left and does not know it.
//! - [`inbound::verify`]: the checks that need no room. [`inbound::drop_counters`]: what fails them. [`backfill::missing_events`]: filling a gap. [`backfill::gap_scheduler`]: which
//!   ones of a room, beside its inbox.
//! - [`inbound::throttle`]: whose log is read slowly, because much of it is dropped.
//! - [`backfill::federated_history`]: what clients read of a room's history, with what is fetched for it from the [`backfill::history`], which
//!   [`backfill::scheduler`] fetches in the background too. [`backfill::pages`]: what of it is on its way. [`backfill::unresponsive`]: who is asked last
//!   for events. [`directory::space_hierarchy`] and [`directory::public_rooms`]: rooms that are elsewhere.
//! - [`request_handlers`]: what other servers ask. [`rpc_client`]: what this one asks. [`backfill::remote_state`]: the largest answer.
//! - [`membership::remote_join`]: joining, leaving and knocking through another server, with an event of our own from a [`membership::make_membership`].
//!   [`membership::invites`]: both ends of an invitation. [`membership::room_resolution`]: what a name means, and whom to ask.
//! - [`edus::to_device`], [`edus::device_lists`], [`edus::receipts`], [`directory::profiles`], [`edus::typing_and_presence`]: what crosses servers beside events.

mod backfill;
mod directory;
mod edus;
mod identity;
mod inbound;
mod membership;
mod outgoing;
mod pool_adapter;
mod request_handlers;
mod rpc_client;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use maru_federation::Pool;
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::key::SecretKey;
use maru_protocol::record::SignedRecord;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::mpsc;

pub use directory::public_rooms::RemoteDirectory;
pub use directory::space_hierarchy::{HierarchyQuery, TreePage};
pub use identity::address_book::KnownAddresses;
pub use identity::admin_view::{PeerSeen, Pong};
pub use identity::key_verification::RefusedKey;
pub use identity::keyring::{Keyring, NotKept};
pub use identity::own_record::OwnRecord;
pub use identity::well_known::LookUpError;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::ConfiguredPeer;
use crate::ephemeral::{News, Presence, Typing};
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::keys::{Keys, OtherServers};
use crate::live::{PeerWakeups, RecentEvents};
use crate::media::{self, Media};
use crate::observe::metrics;
use crate::receipts::Receipts;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::rooms::room_locks::RoomLocks;
use crate::store::Store;
use identity::key_verification::RefusedKeys;
use identity::well_known::WellKnown;
use rpc_client::RpcClient;

/// How long a message waits for a server that is away, and its id is remembered at the receiver, in milliseconds: 30
/// days.
const MESSAGES_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// How long to wait at most before a server that cannot be reached is dialled again. The wait doubles from a second on, so
/// one that comes back and cannot dial itself is found after as long as it was away; most come by themselves.
const LONGEST_RETRY: Duration = Duration::from_secs(60 * 60);

/// Gaps, states or pages for the sake of one server that wait for their turn.
const MOST_WAITING: usize = 1_000;

/// How long a server that has left all rooms is kept connected all the same, at most, in milliseconds: an hour.
const SHARING_KEPT_MS: u64 = 60 * 60 * 1000;

/// What federation needs to know of this server.
#[derive(Debug)]
pub struct PeerSettings {
    /// Peers by configuration.
    pub peers: Vec<ConfiguredPeer>,
    /// Servers that may federate with this one; empty: all.
    pub allow: Vec<OwnedServerName>,
    /// Servers that may not.
    pub deny: Vec<OwnedServerName>,
    /// Events of one room past which a peer that was away is told to fetch them.
    pub backlog_events: usize,
    /// Most events of one peer in the inbox; beyond that it waits.
    pub inbox_events: u64,
    /// Most bytes of them.
    pub inbox_bytes: u64,
}

/// The parts of this server that other servers hear of and ask.
#[derive(Debug)]
pub struct Parts {
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// Keys of end-to-end encryption.
    pub keys: Arc<Keys>,
    /// How far users have read.
    pub receipts: Arc<Receipts>,
    /// Accounts and profiles.
    pub accounts: Arc<Accounts>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
    /// What is new of typing and presence.
    pub news: mpsc::Receiver<News>,
    /// Files that users upload and download.
    pub media: Arc<Media>,
    /// Servers that the log has something new for.
    pub destinations: Arc<PeerWakeups>,
    /// The newest events of this server.
    pub tail: Arc<RecentEvents>,
}

/// Everything that federation needs to work.
#[derive(Debug)]
pub struct Peers {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    keys: Arc<Keys>,
    receipts: Arc<Receipts>,
    accounts: Arc<Accounts>,
    profiles: directory::profiles::Profiles,
    ephemeral: edus::typing_and_presence::Ephemeral,
    media: Arc<Media>,
    keyring: Arc<Keyring>,
    book: KnownAddresses,
    /// Names that the admin has added to those of the configuration.
    added: RwLock<HashSet<OwnedServerName>>,
    look_ups: OnceLock<WellKnown>,
    refused_keys: RefusedKeys,
    settings: PeerSettings,
    record: OnceLock<SignedRecord>,
    destinations: Arc<PeerWakeups>,
    tail: Arc<RecentEvents>,
    sharing: RwLock<HashSet<OwnedServerName>>,
    /// When that was last looked up, in milliseconds since 1970.
    looked_at: AtomicU64,
    inbox: inbound::inbox::Inbox,
    inbox_sizes: inbound::inbox_quota::InboxQuotas,
    drops: inbound::drop_counters::DropCounters,
    throttle: inbound::throttle::Throttle,
    gaps: FairSemaphore<OwnedServerName>,
    states: FairSemaphore<OwnedServerName>,
    turns: RoomLocks,
    backfills: backfill::pages::Backfills,
    unhelpful: backfill::unresponsive::Unhelpful,
    replicas: Arc<backfill::scheduler::BackfillQueue>,
    departed_servers: inbound::departed_servers::DepartedServers,
    rpc_client: OnceLock<RpcClient>,
    address: OnceLock<SocketAddr>,
}

impl Peers {
    /// Federation over a store and its rooms. Nothing is sent before [`Peers::start`].
    ///
    /// # Errors
    /// When the database fails, or a stored record is damaged.
    pub async fn open(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        parts: Parts,
        settings: PeerSettings,
    ) -> Result<Arc<Self>, Refusal> {
        let store = Arc::clone(parts.rooms.store());
        let keyring = Arc::new(Keyring::open(&store, &settings.peers).await?);
        parts.receipts.resume().await?;
        let book = KnownAddresses::default();
        keyring.each_newest(|record| book.learn(record));
        for peer in &settings.peers {
            book.add(peer.name.clone(), peer.addresses.iter().cloned());
        }
        let peers = Arc::new(Self {
            identity,
            clock,
            store,
            rooms: parts.rooms,
            keys: parts.keys,
            receipts: parts.receipts,
            accounts: parts.accounts,
            profiles: directory::profiles::Profiles::default(),
            ephemeral: edus::typing_and_presence::Ephemeral::new(parts.typing, parts.presence, parts.news),
            media: parts.media,
            keyring,
            book,
            added: RwLock::default(),
            look_ups: OnceLock::new(),
            refused_keys: RefusedKeys::default(),
            settings,
            record: OnceLock::new(),
            destinations: parts.destinations,
            tail: parts.tail,
            sharing: RwLock::default(),
            looked_at: AtomicU64::new(0),
            inbox: inbound::inbox::Inbox::default(),
            inbox_sizes: inbound::inbox_quota::InboxQuotas::default(),
            drops: inbound::drop_counters::DropCounters::default(),
            throttle: inbound::throttle::Throttle::default(),
            gaps: FairSemaphore::new(
                backfill::gap_scheduler::IN_ALL,
                backfill::gap_scheduler::OF_ONE,
                MOST_WAITING,
            ),
            states: FairSemaphore::new(
                request_handlers::STATES_IN_ALL,
                request_handlers::STATES_OF_ONE,
                MOST_WAITING,
            ),
            turns: RoomLocks::default(),
            backfills: backfill::pages::Backfills::default(),
            unhelpful: backfill::unresponsive::Unhelpful::default(),
            replicas: Arc::default(),
            departed_servers: inbound::departed_servers::DepartedServers::default(),
            rpc_client: OnceLock::new(),
            address: OnceLock::new(),
        });
        let others: Weak<dyn OtherServers> = Arc::<Self>::downgrade(&peers);
        peers.keys.reach_others_by(others);
        let others: Weak<dyn media::OtherServers> = Arc::<Self>::downgrade(&peers);
        peers.media.reach_others_by(others);
        peers.load_added().await?;
        Ok(peers)
    }

    /// Whether another server may be spoken with at all.
    fn is_allowed(&self, server_name: &ServerName) -> bool {
        let listed = |list: &[OwnedServerName]| list.iter().any(|name| name == server_name);
        !listed(&self.settings.deny) && (self.settings.allow.is_empty() || listed(&self.settings.allow))
    }

    /// Refuses to speak with a server that the configuration keeps out.
    fn check_allowed(&self, server_name: &ServerName) -> Result<(), Refusal> {
        if self.is_allowed(server_name) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!(
            "this server does not speak with {server_name}"
        )))
    }

    /// Begins to speak with other servers over a bound socket, and goes on with what waits. Where it is bound.
    ///
    /// # Errors
    /// When the database fails or the transport cannot be set up.
    pub async fn start(
        self: &Arc<Self>,
        own: OwnRecord,
        tls_key: &SecretKey,
        socket: BoundSocket,
    ) -> Result<SocketAddr, Refusal> {
        let record = own
            .publish(&self.store, &self.keyring, &self.identity, self.clock.now_ms())
            .await?;
        let _ = self.record.set(record);
        let transport = Quic::new(tls_key, socket).map_err(Refusal::internal)?;
        let address = transport.local_address().map_err(Refusal::internal)?;
        let adapter = Arc::new(pool_adapter::PoolAdapter::open(Arc::clone(self))?);
        let pool = Pool::start(
            adapter,
            Arc::new(identity::address_lookup::PeerLookup(Arc::clone(self))),
            Arc::new(transport),
            maru_federation::pool::Settings {
                longest_retry: LONGEST_RETRY,
                ..maru_federation::pool::Settings::default()
            },
        );
        let _ = self.rpc_client.set(RpcClient(pool.clone()));
        let _ = self.address.set(address);
        self.resume_inbox().await?;
        self.replicate().await?;
        self.tell_news();
        self.look_who_shares().await?;
        let before = self.clock.now_ms().saturating_sub(MESSAGES_KEPT_MS);
        let to_tell = self
            .store
            .servers_to_tell(i64::try_from(before).unwrap_or(i64::MAX));
        let sharing = self.sharing().clone();
        for name in sharing.into_iter().chain(to_tell.await?) {
            if name != self.identity.server_name && self.is_allowed(&name) {
                pool.wake(&name);
            }
        }
        let peers = Arc::downgrade(self);
        let destinations = Arc::clone(&self.destinations);
        tokio::spawn(async move {
            loop {
                let names = destinations.take().await;
                let Some(peers) = peers.upgrade() else { return };
                for name in names {
                    if name != peers.identity.server_name && peers.is_allowed(&name) {
                        peers.note_sharing(&name);
                        pool.wake(&name);
                    }
                }
            }
        });
        Ok(address)
    }

    /// Ends all connections in order.
    pub async fn stop(&self) {
        if let Some(rpc_client) = self.rpc_client.get() {
            rpc_client.0.shut_down().await;
        }
    }

    /// The connections, if this server speaks with others.
    #[must_use]
    pub fn pool(&self) -> Option<&Pool> {
        self.rpc_client.get().map(|rpc_client| &rpc_client.0)
    }

    /// Where peers are.
    #[must_use]
    pub fn book(&self) -> &KnownAddresses {
        &self.book
    }

    /// How many events of peers were dropped since the start before any room saw them, by reason.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.drops.counts()
    }

    /// Forgets what has waited for peers, or was remembered of what they sent, for too long, and who has left all rooms.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(&self) -> Result<(), Refusal> {
        let before = self.clock.now_ms().saturating_sub(MESSAGES_KEPT_MS);
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let dropped = self.store.expire_peer_messages(before).await?;
        metrics::PEER_MESSAGES_DROPPED.add(dropped);
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        if self.rpc_client.get().is_some() && self.clock.now_ms().saturating_sub(looked_at) >= SHARING_KEPT_MS
        {
            self.look_who_shares().await?;
        }
        self.receipts.expire().await
    }

    /// The UDP address that others reach this server at, once it speaks with them.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// This server's own record, once it speaks with others.
    #[must_use]
    pub fn own_record(&self) -> Option<&SignedRecord> {
        self.record.get()
    }

    /// Looks anew who is in a room with this server. Who is not any more is not kept connected, and not dialled for ever.
    async fn look_who_shares(&self) -> Result<(), Refusal> {
        let before = self.sharing().clone();
        let now: HashSet<_> = self.store.interested_servers().await?.into_iter().collect();
        let mut sharing = self.sharing.write().unwrap_or_else(PoisonError::into_inner);
        // Those who have come meanwhile stay.
        before.difference(&now).for_each(|gone| drop(sharing.take(gone)));
        sharing.extend(now);
        self.looked_at.store(self.clock.now_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn sharing(&self) -> RwLockReadGuard<'_, HashSet<OwnedServerName>> {
        self.sharing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_sharing(&self, name: &ServerName) {
        if !self.shares_a_room(name) {
            let mut sharing = self.sharing.write().unwrap_or_else(PoisonError::into_inner);
            sharing.insert(name.to_owned());
        }
    }

    /// Whether a server is in a room with this one, or was not long ago.
    fn shares_a_room(&self, name: &ServerName) -> bool {
        self.sharing().contains(name)
    }
}
