//! Peers: the homeserver's side of federation (`spec/federation.md`). Wire messages stop here: inside are the words of
//! the domain, outside is `maru_federation`.
//!
//! - [`keyring`]: who is who: server records and signing keys. [`own_record`]: this server's own.
//! - [`homeserver`]: what the pool of connections asks for.
//! - [`outgoing`]: what a peer is sent. [`inbox`]: what came, room by room.
//! - [`verify`]: the checks that need no room. [`fetch`]: filling gaps.
//! - [`answers`]: what other servers ask. [`ask`]: what this one asks.
//! - [`entering`]: joining, leaving and knocking through another server. [`inviting`]: both ends of an invitation.

mod answers;
mod ask;
mod book;
mod entering;
mod fetch;
mod homeserver;
mod inbox;
mod inviting;
mod keyring;
mod outgoing;
mod own_record;
mod verify;

use std::sync::{Arc, OnceLock};

use maru_protocol::key::{PublicKey, SecretKey};
use maru_protocol::record::SignedRecord;
use ruma::{OwnedServerName, ServerName};

pub use book::{Book, KnownPeer};
pub use keyring::{Keyring, NotKept};
pub use own_record::OwnRecord;

use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use ask::Road;

/// What federation needs to know of this server.
#[derive(Debug)]
pub struct PeerSettings {
    /// Peers by configuration.
    pub peers: Vec<KnownPeer>,
    /// Servers that may federate with this one; empty: all.
    pub allow: Vec<OwnedServerName>,
    /// Servers that may not.
    pub deny: Vec<OwnedServerName>,
    /// Events of one room past which a peer that was away is told to fetch them.
    pub backlog_events: usize,
    /// Most events in the inbox; beyond that peers wait.
    pub inbox_events: u64,
}

/// Everything that federation needs to work.
#[derive(Debug)]
pub struct Peers {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    keyring: Keyring,
    book: Arc<Book>,
    settings: PeerSettings,
    record: SignedRecord,
    inbox: inbox::Inbox,
    road: OnceLock<Road>,
}

impl Peers {
    /// Federation over a store and its rooms. Nothing is sent before [`Peers::start`].
    ///
    /// # Errors
    /// When the database fails, or a stored record is damaged.
    pub async fn open(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        rooms: Arc<Rooms>,
        settings: PeerSettings,
        own: OwnRecord,
    ) -> Result<Arc<Self>, Refusal> {
        let store = Arc::clone(rooms.store());
        let keyring = Keyring::open(&store, &settings.peers).await?;
        let record = own.publish(&store, &keyring, &identity, clock.now_ms()).await?;
        let book = Arc::new(Book::new(settings.peers.clone()));
        Ok(Arc::new(Self {
            identity,
            clock,
            store,
            rooms,
            keyring,
            book,
            settings,
            record,
            inbox: inbox::Inbox::default(),
            road: OnceLock::new(),
        }))
    }

    /// Whether another server may be spoken with at all.
    fn is_allowed(&self, server_name: &ServerName) -> bool {
        let listed = |list: &[OwnedServerName]| list.iter().any(|name| name == server_name);
        !listed(&self.settings.deny) && (self.settings.allow.is_empty() || listed(&self.settings.allow))
    }

    /// The TLS key's public half, by this server's own record.
    #[must_use]
    pub fn tls_public_key(secret: &SecretKey) -> PublicKey {
        secret.public_key()
    }
}
