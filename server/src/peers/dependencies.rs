//! What the parts of federation stand on.

use std::sync::Arc;

use super::PeerSettings;
use super::identity::known_servers::{KnownServers, ServerAccess};
use super::inbound::drop_counters::DropCounters;
use super::inbound::verify::EventVerifier;
use super::membership::local_rooms::LocalRooms;
use super::membership::room_resolution::RoomResolver;
use super::rpc_client::RpcClient;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::tasks::Tasks;

/// The objects that most parts of federation use. Constructors take from it what they need; nobody keeps it.
#[derive(Debug)]
pub(super) struct Dependencies {
    pub(super) identity: Arc<Identity>,
    pub(super) clock: Arc<Clock>,
    pub(super) store: Arc<Store>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) servers: Arc<KnownServers>,
    pub(super) rpc: Arc<RpcClient>,
    pub(super) verifier: Arc<EventVerifier>,
    pub(super) drops: Arc<DropCounters>,
    pub(super) local: Arc<LocalRooms>,
    pub(super) resolver: Arc<RoomResolver>,
    pub(super) tasks: Arc<Tasks>,
}

impl Dependencies {
    /// Reads what is known of other servers, and builds the rest over it.
    ///
    /// # Errors
    /// When the database fails, or a stored record is damaged.
    pub(super) async fn open(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        rooms: Arc<Rooms>,
        tasks: Arc<Tasks>,
        settings: &PeerSettings,
    ) -> Result<Self, Refusal> {
        let store = Arc::clone(rooms.repository.store());
        let access = ServerAccess {
            allow: settings.allow.clone(),
            deny: settings.deny.clone(),
        };
        let servers = KnownServers::open(
            Arc::clone(&identity),
            Arc::clone(&clock),
            Arc::clone(&store),
            &settings.peers,
            access,
        );
        let servers = Arc::new(servers.await?);
        let rpc = RpcClient::new(Arc::clone(&identity), Arc::clone(&store), Arc::clone(&servers));
        let rpc = Arc::new(rpc);
        let local = LocalRooms::new(Arc::clone(&identity), Arc::clone(&store), Arc::clone(&rooms));
        let resolver = RoomResolver::new(Arc::clone(&identity), Arc::clone(&rooms), Arc::clone(&rpc));
        Ok(Self {
            verifier: Arc::new(EventVerifier::new(Arc::clone(servers.keyring()))),
            drops: Arc::default(),
            local: Arc::new(local),
            resolver: Arc::new(resolver),
            identity,
            clock,
            store,
            rooms,
            servers,
            rpc,
            tasks,
        })
    }
}
