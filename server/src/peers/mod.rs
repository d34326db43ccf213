//! Federation: the homeserver's side of it (`spec/federation.md`). Wire messages stop here: inside are the words of the
//! domain, outside is `maru_federation`. [`Peers`] builds the parts and hands them to each other.
//!
//! | looking for | folder or file |
//! |---|---|
//! | keys, addresses, access list, well-known of other servers | `identity/` |
//! | PDUs and EDUs from receipt to ingest: inbox, checks, quotas, throttle | `inbound/` |
//! | missing events, states and history from other servers | `backfill/` |
//! | join, knock, leave, invite, aliases across servers | `membership/` |
//! | to-device messages, device lists, receipts, typing, presence | `edus/` |
//! | profiles, public rooms, spaces, media of other servers | `directory/` |
//! | answers to other servers' requests | `request_handlers/` |
//! | requests to other servers | [`rpc_client`] |
//! | what one node does for all nodes of this server | `leader/` |
//! | the log that other servers read from this one | [`outgoing`] |
//! | calls of the connection pool | [`pool_adapter`] |
//! | list, add, remove, ping peers; metrics | [`admin`] |

mod admin;
mod backfill;
mod dependencies;
mod directory;
mod edus;
mod identity;
mod inbound;
mod leader;
mod membership;
mod outgoing;
mod pool_adapter;
mod request_handlers;
mod rpc_client;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use maru_federation::Pool;
use maru_protocol::record::SignedRecord;
use ruma::OwnedServerName;

pub use admin::{PeerAdmin, PeerSeen, Pong};
pub use backfill::federated_history::FederatedHistory;
pub use directory::profiles::Profiles;
pub use directory::public_rooms::{RemoteDirectories, RemoteDirectory};
pub use directory::space_hierarchy::{HierarchyQuery, SpaceHierarchy, TreePage};
pub use identity::address_book::KnownAddresses;
pub use identity::keyring::{Keyring, NotKept};
pub use identity::known_servers::KnownServers;
pub use identity::own_record::OwnRecord;
pub use identity::refused_keys::RefusedKey;
pub use identity::well_known::LookUpError;
pub use membership::invites::Invites;
pub use membership::remote_join::RemoteMembership;
pub use membership::room_resolution::RoomResolver;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::{self, ConfiguredPeer};
use crate::ephemeral::{Outlet, Presence, Typing};
use crate::identity::Identity;
use crate::keys::{Keys, OtherServers};
use crate::live::{PeerWakeups, RecentEvents};
use crate::media::{self, Media};
use crate::receipts::Receipts;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::log::Mirror;
use crate::tasks::Tasks;
use backfill::event_fetcher::EventFetcher;
use backfill::history::Backfill;
use backfill::missing_events::GapFiller;
use backfill::remote_state::StateFetcher;
use backfill::scheduler::{BackfillQueue, BackfillScheduler};
use dependencies::Dependencies;
use directory::remote_media::RemoteMedia;
use edus::device_lists::{DeviceListEdus, RemoteKeys};
use edus::receipts::ReceiptEdus;
use edus::to_device::ToDeviceEdus;
use edus::typing_and_presence::EphemeralEdus;
use identity::known_servers_mirror::KnownServersMirror;
use inbound::departed_servers::DepartedServers;
use inbound::drop_counters::DropCounters;
use inbound::inbox_quota::InboxQuota;
use inbound::inbox_worker::InboxWorker;
use inbound::ingestor::Ingestor;
use inbound::log_receiver::{EduReaders, LogReceiver};
use inbound::outside_events::OutsideEvents;
use inbound::pdu_precheck::Precheck;
use inbound::throttle::Throttle;
use leader::lead::Leads;
use leader::node_requests::NodeRequests;
use membership::make_membership::MembershipBuilder;
use outgoing::OutgoingLog;
use request_handlers::RequestHandlers;
use rpc_client::RpcClient;

/// How long a message waits for a server that is away, and its id is remembered at the receiver, in milliseconds: 30
/// days.
pub const MESSAGES_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// How long to wait at most before a server that cannot be reached is dialled again. The wait doubles from a second on, so
/// one that comes back and cannot dial itself is found after as long as it was away; most come by themselves.
const LONGEST_RETRY: Duration = Duration::from_secs(60 * 60);

/// Gaps, states or pages of one server that may wait for a permit.
const MOST_WAITING: usize = 1_000;

/// What federation needs to know of this server.
#[derive(Debug)]
pub struct PeerSettings {
    /// Peers by configuration.
    pub peers: Vec<ConfiguredPeer>,
    /// Servers that may federate with this one; empty: all.
    pub allow: Vec<OwnedServerName>,
    /// Servers that may not.
    pub deny: Vec<OwnedServerName>,
    /// Events of one room past which a peer that was away has to fetch them.
    pub backlog_events: usize,
    /// Most events of one peer in the inbox; beyond that it waits.
    pub inbox_events: u64,
    /// Most bytes of them.
    pub inbox_bytes: u64,
}

impl PeerSettings {
    /// The settings of a configuration.
    #[must_use]
    pub fn configured(federation: &config::Federation) -> Self {
        Self {
            peers: federation.peers.iter().cloned().collect(),
            allow: federation.allow.clone(),
            deny: federation.deny.clone(),
            backlog_events: usize::try_from(federation.backlog_events).unwrap_or(usize::MAX),
            inbox_events: federation.inbox_events.into(),
            inbox_bytes: federation.inbox_bytes,
        }
    }
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
    /// Where what is new of typing and presence goes.
    pub outlet: Outlet,
    /// Files that users upload and download.
    pub media: Arc<Media>,
    /// Servers that the log has something new for.
    pub destinations: Arc<PeerWakeups>,
    /// The newest events of this server.
    pub tail: Arc<RecentEvents>,
    /// What runs beside requests.
    pub tasks: Arc<Tasks>,
}

/// Federation: the parts that the rest of the server calls, and those that run by themselves.
#[derive(Debug)]
pub struct Peers {
    /// What is known of other servers.
    pub servers: Arc<KnownServers>,
    /// The administration of peers.
    pub admin: PeerAdmin,
    /// History of rooms, with what others have of it.
    pub history: Arc<FederatedHistory>,
    /// Joining, knocking and leaving.
    pub membership: Arc<RemoteMembership>,
    /// Making rooms with invitations, and inviting.
    pub invites: Arc<Invites>,
    /// Rooms by alias.
    pub resolver: Arc<RoomResolver>,
    /// Directories of other servers.
    pub directories: RemoteDirectories,
    /// Spaces and previews.
    pub spaces: SpaceHierarchy,
    /// Profiles of all users.
    pub profiles: Profiles,
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    receipts: Arc<Receipts>,
    tasks: Arc<Tasks>,
    rpc: Arc<RpcClient>,
    drops: Arc<DropCounters>,
    destinations: Arc<PeerWakeups>,
    receiver: Arc<LogReceiver>,
    worker: Arc<InboxWorker>,
    scheduler: Arc<BackfillScheduler>,
    outgoing: Arc<OutgoingLog>,
    handlers: Arc<RequestHandlers>,
    ephemeral: Arc<EphemeralEdus>,
    node_requests: Arc<NodeRequests>,
    known_servers: Arc<KnownServersMirror>,
    /// Held for `keys` and `media`, which have a weak reference.
    _remote_keys: Arc<RemoteKeys>,
    _remote_media: Arc<RemoteMedia>,
    leads: Mutex<Option<Leads>>,
}

impl Peers {
    /// Federation over a store and its rooms. Nothing is sent before [`Peers::lead`] or [`Peers::follow`].
    ///
    /// # Errors
    /// When the database fails, or a stored record is damaged.
    pub async fn open(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        parts: Parts,
        settings: PeerSettings,
    ) -> Result<Arc<Self>, Refusal> {
        parts.receipts.resume().await?;
        let rooms = Arc::clone(&parts.rooms);
        let dependencies = &Dependencies::open(identity, clock, rooms, parts.tasks, &settings).await?;
        let queue = Arc::new(BackfillQueue::new(dependencies));
        let throttle = Arc::<Throttle>::default();
        let departed = Arc::new(DepartedServers::new(dependencies));
        let fetcher = Arc::new(EventFetcher::new(dependencies));
        let states = Arc::new(StateFetcher::new(dependencies, Arc::clone(&fetcher)));
        let ingestor = Ingestor::new(dependencies, Arc::clone(&departed), Arc::clone(&queue));
        let ingestor = Arc::new(ingestor);
        let gap_filler = GapFiller::new(
            dependencies,
            Arc::clone(&fetcher),
            Arc::clone(&states),
            Arc::clone(&ingestor),
        );
        let gap_filler = Arc::new(gap_filler);
        let outside = Arc::new(OutsideEvents::new(dependencies, Arc::clone(&departed)));
        let worker = Arc::new(InboxWorker::new(
            dependencies,
            Arc::clone(&throttle),
            ingestor,
            Arc::clone(&gap_filler),
            outside,
        ));
        let backfill = Backfill::new(dependencies, Arc::clone(&fetcher), Arc::clone(&states));
        let backfill = Arc::new(backfill);
        let scheduler = BackfillScheduler::new(
            dependencies,
            Arc::clone(&fetcher),
            Arc::clone(&backfill),
            Arc::clone(&queue),
        );
        let node_requests = NodeRequests::new(dependencies, Arc::clone(&worker), Arc::clone(&queue));
        let builder = Arc::new(MembershipBuilder::new(dependencies));
        let membership = RemoteMembership::new(
            dependencies,
            builder,
            states,
            gap_filler,
            Arc::clone(&worker),
            queue,
        );
        let invites = Arc::new(Invites::new(dependencies));
        let edus = EduReaders {
            to_device: ToDeviceEdus::new(dependencies),
            device_lists: DeviceListEdus::new(dependencies),
            receipts: ReceiptEdus::new(dependencies, Arc::clone(&parts.receipts)),
        };
        let quota = InboxQuota {
            events: settings.inbox_events,
            bytes: settings.inbox_bytes,
        };
        let receiver = LogReceiver::new(
            dependencies,
            Arc::clone(&parts.receipts),
            Arc::clone(&throttle),
            Arc::clone(&worker),
            Precheck::new(dependencies, throttle),
            edus,
            quota,
        );
        let ephemeral = EphemeralEdus::new(dependencies, parts.typing, parts.presence, parts.outlet);
        let handlers = RequestHandlers::new(
            dependencies,
            Arc::clone(&parts.keys),
            Arc::clone(&parts.accounts),
            Arc::clone(&parts.media),
            Arc::clone(&invites),
        );
        let remote_keys = Arc::new(RemoteKeys::new(dependencies));
        let others: Weak<dyn OtherServers> = Arc::<RemoteKeys>::downgrade(&remote_keys);
        parts.keys.reach_others_by(others);
        let remote_media = Arc::new(RemoteMedia::new(dependencies));
        let others: Weak<dyn media::OtherServers> = Arc::<RemoteMedia>::downgrade(&remote_media);
        parts.media.reach_others_by(others);
        Ok(Arc::new(Self {
            servers: Arc::clone(&dependencies.servers),
            admin: PeerAdmin::new(dependencies),
            history: Arc::new(FederatedHistory::new(dependencies, fetcher, backfill)),
            membership: Arc::new(membership),
            invites,
            resolver: Arc::clone(&dependencies.resolver),
            directories: RemoteDirectories::new(dependencies),
            spaces: SpaceHierarchy::new(dependencies),
            profiles: Profiles::new(dependencies, parts.accounts),
            identity: Arc::clone(&dependencies.identity),
            clock: Arc::clone(&dependencies.clock),
            store: Arc::clone(&dependencies.store),
            receipts: parts.receipts,
            tasks: Arc::clone(&dependencies.tasks),
            rpc: Arc::clone(&dependencies.rpc),
            drops: Arc::clone(&dependencies.drops),
            destinations: parts.destinations,
            receiver: Arc::new(receiver),
            worker,
            scheduler: Arc::new(scheduler),
            outgoing: Arc::new(OutgoingLog::new(
                dependencies,
                parts.tail,
                departed,
                settings.backlog_events,
            )),
            handlers: Arc::new(handlers),
            ephemeral: Arc::new(ephemeral),
            _remote_keys: remote_keys,
            node_requests: Arc::new(node_requests),
            known_servers: Arc::new(KnownServersMirror::new(&dependencies.servers, &dependencies.rpc)),
            _remote_media: remote_media,
            leads: Mutex::default(),
        }))
    }

    /// What hears of what other nodes have learnt of other servers.
    #[must_use]
    pub fn servers_mirror(&self) -> Weak<dyn Mirror> {
        Arc::downgrade(&self.known_servers) as Weak<dyn Mirror>
    }

    fn leads(&self) -> MutexGuard<'_, Option<Leads>> {
        self.leads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections, if this node speaks with other servers.
    #[must_use]
    pub fn pool(&self) -> Option<Pool> {
        self.rpc.pool()
    }

    /// How many events of peers were dropped since the start before any room saw them, by reason.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.drops.counts()
    }

    /// Looks who has left all rooms, and for events that receipts wait for, as far as nobody was told.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        if !self.rpc.is_closed() {
            self.servers
                .sharing()
                .refresh_when_due(self.clock.now_ms())
                .await?;
        }
        self.receipts.refresh().await
    }

    /// The UDP address that others reach this node at, while it speaks with them.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.leads().as_ref().map(|leads| leads.address)
    }

    /// This server's own record, once it speaks with others, by whichever of its nodes.
    #[must_use]
    pub fn own_record(&self) -> Option<SignedRecord> {
        let own = self.leads().as_ref().map(|leads| leads.own_record.clone());
        own.or_else(|| {
            let newest = self.servers.keyring().newest(&self.identity.server_name);
            Some(newest.filter(|_| !self.rpc.is_closed())?.signed().clone())
        })
    }
}
