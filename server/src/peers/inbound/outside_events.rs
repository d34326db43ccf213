//! Events for rooms that this server is not in.

use maru_protocol::RoomVersion;
use maru_protocol::destinations;
use maru_protocol::visibility::Membership;
use ruma::{OwnedRoomId, RoomId, ServerName, UserId};
use std::sync::Arc;

use crate::identity::Identity;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::departed_servers::DepartedServers;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::membership::room_resolution::RoomResolver;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::federation::inbox::InInbox;

/// The reader of events for rooms that this server is not in: it takes from them how invitations and knocks end.
#[derive(Debug)]
pub(in crate::peers) struct OutsideEvents {
    identity: Arc<Identity>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    resolver: Arc<RoomResolver>,
    verifier: Arc<EventVerifier>,
    departed: Arc<DepartedServers>,
}

impl OutsideEvents {
    pub(in crate::peers) fn new(dependencies: &Dependencies, departed: Arc<DepartedServers>) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            resolver: Arc::clone(&dependencies.resolver),
            verifier: Arc::clone(&dependencies.verifier),
            departed,
        }
    }

    /// Events for a room that this server is not in: what becomes of invitations and knocks, and of those who were banned
    /// after they had left. A server that goes on in a room that it has left by this server's account is noted as departed.
    pub(in crate::peers) async fn process(
        &self,
        room_id: &OwnedRoomId,
        rows: Vec<InInbox>,
    ) -> Result<(), Refusal> {
        for row in rows {
            let Some(stored) = self.store.rooms.room(room_id).await? else {
                continue;
            };
            let Some(version) = RoomVersion::from_id(&stored.version) else {
                continue;
            };
            let format = RoomFormat::without_create(room_id, version);
            let Ok(event) = self.verifier.verify(&row.arrived.json, format) else {
                continue;
            };
            if event.sender.server_name() != row.server_name {
                continue;
            }
            if let Some(room) = self.local.replica(room_id).await?
                && destinations::is_stray(&room.head().servers, &row.server_name, None)
            {
                self.departed.note(&row.server_name, &room);
            }
            let target = event
                .state_key
                .as_deref()
                .and_then(|key| <&UserId>::try_from(key).ok());
            let Some(target) = target.filter(|user_id| self.identity.is_local(user_id)) else {
                continue;
            };
            let ends = &*event.event_type == "m.room.member"
                && matches!(Membership::of(&event), Some(Membership::Leave | Membership::Ban));
            if ends && self.is_believed(room_id, target, &row.server_name).await? {
                let lock = self.rooms.ingest_locks.lock(room_id).await;
                self.rooms
                    .remote_memberships
                    .store_membership(&lock, version, event, None)
                    .await?;
            }
        }
        Ok(())
    }

    /// Whether a server is believed about the end of a user's invitation, knock or stay in a room that this server is not
    /// in.
    async fn is_believed(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        server_name: &ServerName,
    ) -> Result<bool, Refusal> {
        if let Some((stored, _)) = self
            .rooms
            .remote_memberships
            .stored_membership(room_id, user_id)
            .await?
        {
            let membership = &stored.membership;
            let is_open = ["invite", "knock"].contains(&&*membership.membership);
            if is_open
                && self
                    .resolver
                    .shown_with(membership)
                    .await?
                    .iter()
                    .any(|name| name == server_name)
            {
                return Ok(true);
            }
        }
        let room = self.local.replica(room_id).await?;
        Ok(room.is_some_and(|room| room.head().servers.contains_key(server_name)))
    }
}
