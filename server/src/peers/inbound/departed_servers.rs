//! Departed servers: they go on in a room which they have left by this server's account, because they were restored from an
//! older backup. They are sent the events with which they left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use maru_protocol::wire::limits::MAX_EXTREMITIES;
use maru_protocol::wire::message::RoomExtremities;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

use crate::peers::dependencies::Dependencies;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::rooms::StoredMembership;
use crate::store::rooms::events::Direction;

/// Most servers and rooms that are remembered; of the others it is noted again when they say something more.
const MOST: usize = 1_000;

/// Departed servers with their rooms, until they are sent how they left.
#[derive(Debug)]
pub(in crate::peers) struct DepartedServers {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    rpc: Arc<RpcClient>,
    waiting: Mutex<BTreeSet<(OwnedServerName, OwnedRoomId)>>,
}

impl DepartedServers {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            rpc: Arc::clone(&dependencies.rpc),
            waiting: Mutex::default(),
        }
    }

    /// Notes that a peer takes part in a room that it is not in, and has its extremities sent.
    pub(in crate::peers) fn note(&self, peer: &ServerName, room: &Room) {
        self.add(peer, room);
        self.rpc.announce_extremities(peer);
    }

    /// How a peer went from rooms that it goes on in, where it ever was there.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn extremities_for_departed(
        &self,
        peer: &ServerName,
    ) -> Result<Vec<RoomExtremities>, Refusal> {
        let mut ends = Vec::new();
        for room_id in self.take(peer) {
            let Some(room) = self.local.replica(&room_id).await? else {
                continue;
            };
            if room.head().servers.contains_key(peer) {
                // It has come back meanwhile, and is told where the room ends.
                continue;
            }
            let Some(ended) = self.store.federation.interest_ended(room.nid, peer).await? else {
                continue;
            };
            if self.rooms.repository.admits(&room, peer).await? {
                let extremities = self.departure_in(&room, peer, ended).await?;
                ends.push(RoomExtremities { room_id, extremities });
            }
        }
        Ok(ends)
    }

    /// How a peer went from a room: the event with which its interest ended, and what its users are since. Where a resolution
    /// ended it, the first alone may be one that the peer has.
    async fn departure_in(
        &self,
        room: &Room,
        peer: &ServerName,
        ended: Position,
    ) -> Result<Vec<OwnedEventId>, Refusal> {
        let place = self.store.rooms.place_at(room.nid, ended).await?;
        let last = self
            .store
            .rooms
            .timeline(room.nid, place, Direction::Forward, 1)
            .await?;
        let out = self.store.rooms.members(room.nid, &["leave", "ban"]).await?;
        let is_of_then = |member: &&StoredMembership| {
            member.membership.user_id.server_name() == peer && member.position <= ended
        };
        let users: Vec<EventNid> = out
            .iter()
            .filter(is_of_then)
            .map(|member| member.membership.event)
            .collect();
        let users = self.rooms.repository.events(&users).await?;
        let all = last
            .iter()
            .chain(users.values())
            .map(|stored| stored.event.id.clone());
        let all: BTreeSet<_> = all.collect();
        Ok(all.into_iter().take(MAX_EXTREMITIES).collect())
    }

    fn add(&self, peer: &ServerName, room: &Room) {
        let mut departed_servers = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if departed_servers.len() < MOST {
            departed_servers.insert((peer.to_owned(), room.room_id.clone()));
        }
    }

    fn take(&self, peer: &ServerName) -> Vec<OwnedRoomId> {
        let mut departed_servers = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_peer, others) = std::mem::take(&mut *departed_servers)
            .into_iter()
            .partition(|(name, _)| name == peer);
        *departed_servers = others;
        let of_peer: BTreeSet<(OwnedServerName, OwnedRoomId)> = of_peer;
        of_peer.into_iter().map(|(_, room_id)| room_id).collect()
    }
}
