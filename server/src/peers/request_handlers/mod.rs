//! Handlers of other servers' requests, one file per chapter of the protocol.
//!
//! Each first checks that the peer may have the answer: [`RequestHandlers::room_for`] for what belongs to a room.

mod devices;
mod directory;
mod history;
mod media;
mod membership;
mod profile;
mod state;

pub(super) use state::{Change, state_around};
use state::{STATES_IN_ALL, STATES_OF_ONE};

use std::collections::BTreeSet;
use std::sync::Arc;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::event::Event;
use maru_protocol::record::SignedRecord;
use maru_protocol::wire::answer::{Part, Refused, RefusedCode};
use maru_protocol::wire::limits::MAX_EVENTS;
use maru_protocol::wire::request::devices::{ClaimKeys, Devices};
use maru_protocol::wire::request::directory::{Alias, Hierarchy, Profile, PublicRooms};
use maru_protocol::wire::request::history::Timestamp;
use maru_protocol::wire::request::records::Records;
use maru_protocol::wire::request::{Nothing, Request, membership as memberships};
use ruma::{OwnedServerName, RoomId, ServerName};

use super::MOST_WAITING;
use crate::accounts::Accounts;
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::keys::Keys;
use crate::media::Media;
use crate::peers::dependencies::Dependencies;
use crate::peers::identity::known_servers::KnownServers;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::membership::invites::Invites;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::membership::room_resolution::RoomResolver;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::server_visibility::ServerMembership;
use crate::store::Store;

/// Bytes of events in one part of an answer.
const PART_BYTES: usize = 1 << 20;

/// A room that a peer asks about, and what the peer is to it.
struct Asked {
    room: Arc<Room>,
    audience: ServerMembership,
}

/// Why a request is refused, in the words of the protocol.
pub(super) fn refused(refusal: Refusal) -> Refused {
    let code = match &refusal {
        Refusal::NotFound(_) => RefusedCode::NotFound,
        Refusal::Forbidden(_) => RefusedCode::Forbidden,
        Refusal::UnsupportedRoomVersion(_) => RefusedCode::UnsupportedVersion,
        Refusal::BadJson(_) | Refusal::InvalidParam(_) => RefusedCode::Invalid,
        Refusal::TooLarge(_) => RefusedCode::TooLarge,
        Refusal::LimitExceeded { .. } => RefusedCode::LimitExceeded,
        _ => RefusedCode::Unavailable,
    };
    Refused::new(code, &refusal.to_string())
}

/// The server side of federation: answers what other servers request.
#[derive(Debug)]
pub(in crate::peers) struct RequestHandlers {
    identity: Arc<Identity>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
    verifier: Arc<EventVerifier>,
    local: Arc<LocalRooms>,
    resolver: Arc<RoomResolver>,
    keys: Arc<Keys>,
    accounts: Arc<Accounts>,
    media: Arc<Media>,
    invites: Arc<Invites>,
    state_permits: FairSemaphore<OwnedServerName>,
}

impl RequestHandlers {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        keys: Arc<Keys>,
        accounts: Arc<Accounts>,
        media: Arc<Media>,
        invites: Arc<Invites>,
    ) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            servers: Arc::clone(&dependencies.servers),
            rpc: Arc::clone(&dependencies.rpc),
            verifier: Arc::clone(&dependencies.verifier),
            local: Arc::clone(&dependencies.local),
            resolver: Arc::clone(&dependencies.resolver),
            keys,
            accounts,
            media,
            invites,
            state_permits: FairSemaphore::new(STATES_IN_ALL, STATES_OF_ONE, MOST_WAITING),
        }
    }

    pub(super) async fn answer(
        self: &Arc<Self>,
        peer: &ServerName,
        request: Request,
        parts: Parts,
    ) -> Result<Finished, Refused> {
        match request {
            Request::MakeMembership(call) => {
                let done = self.make_membership(peer, call).await?;
                Finished::done::<memberships::MakeMembership>(done)
            }
            Request::SendMembership(call) => {
                let done = self.send_membership(peer, call, &parts).await?;
                Finished::done::<memberships::SendMembership>(done)
            }
            Request::Invite(call) => {
                Finished::done::<memberships::Invite>(self.invites.receive(peer, call).await?)
            }
            Request::Backfill(call) => self.backfill(peer, call, &parts).await,
            Request::MissingEvents(call) => self.missing_events(peer, call, &parts).await,
            Request::Events(call) => self.events(peer, call, &parts).await,
            Request::State(call) => self.state(peer, call, &parts).await,
            Request::Records(call) => {
                self.records(call.servers.iter().map(AsRef::as_ref), &parts)
                    .await?;
                Finished::done::<Records>(Nothing {})
            }
            Request::Timestamp(call) => Finished::done::<Timestamp>(self.timestamp(peer, call).await?),
            Request::Alias(call) => {
                let done = self.alias(call).await.map_err(refused)?;
                Finished::done::<Alias>(done)
            }
            Request::Devices(call) => {
                let done = self.devices(peer, call).await.map_err(refused)?;
                Finished::done::<Devices>(done)
            }
            Request::Profile(call) => {
                let done = self.profile(call).await.map_err(refused)?;
                Finished::done::<Profile>(done)
            }
            Request::ClaimKeys(call) => {
                let done = self.claim_keys(peer, call).await.map_err(refused)?;
                Finished::done::<ClaimKeys>(done)
            }
            Request::PublicRooms(call) => {
                let done = self.public_rooms(call).await.map_err(refused)?;
                Finished::done::<PublicRooms>(done)
            }
            Request::Hierarchy(call) => Finished::done::<Hierarchy>(self.hierarchy(peer, call).await?),
            Request::Media(call) => self.media(call, &parts).await,
        }
    }

    /// Checks that a room's server ACL lets a peer take part.
    async fn check_admitted(&self, peer: &ServerName, room: &Room) -> Result<(), Refused> {
        if self.rooms.repository.admits(room, peer).await.map_err(refused)? {
            return Ok(());
        }
        Err(Refused::new(
            RefusedCode::Forbidden,
            "the room does not let your server take part",
        ))
    }

    /// A room that a peer may ask about: it has or had a user there, and the room's server ACL does not keep it out.
    async fn room_for(&self, peer: &ServerName, room_id: &RoomId) -> Result<Asked, Refused> {
        let unknown = || Refused::new(RefusedCode::NotFound, "your server is not in that room");
        let room = self.rooms.repository.room(room_id).await.map_err(|_| unknown())?;
        let audience = self
            .rooms
            .server_visibility
            .membership_of(&room, peer)
            .await
            .map_err(refused)?;
        let audience = audience.ok_or_else(unknown)?;
        self.check_admitted(peer, &room).await?;
        Ok(Asked { room, audience })
    }

    /// Sends events in parts, each with the records of servers that were not sent before.
    /// `given` are those.
    async fn send_events(
        &self,
        events: &[Arc<Event>],
        given: &mut BTreeSet<OwnedServerName>,
        parts: &Parts,
    ) -> Result<(), Refused> {
        let mut rest = events;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(MAX_EVENTS).take_while(|event| {
                bytes += event.json.len();
                bytes <= PART_BYTES
            });
            let count = fits.count().max(1);
            let (now, later) = rest.split_at(count);
            rest = later;
            let signers: Vec<OwnedServerName> = now
                .iter()
                .map(|event| event.sender.server_name().to_owned())
                .filter(|name| given.insert(name.clone()))
                .collect();
            let part = Part {
                events: now.iter().map(|event| event.json.clone().into()).collect(),
                records: self.records_of(signers.iter().map(AsRef::as_ref)),
                ..Part::default()
            };
            parts.send(part).await?;
        }
        Ok(())
    }

    async fn records<'n>(
        &self,
        names: impl Iterator<Item = &'n ServerName>,
        parts: &Parts,
    ) -> Result<(), Refused> {
        let part = Part {
            records: self.records_of(names),
            ..Part::default()
        };
        Ok(parts.send(part).await?)
    }

    fn records_of<'n>(&self, names: impl Iterator<Item = &'n ServerName>) -> Vec<SignedRecord> {
        self.servers
            .keyring()
            .records(names.take(maru_protocol::wire::limits::MAX_RECORDS))
    }
}
