//! Rooms of which this server has a replica, by how far it takes part in them.

use std::sync::Arc;

use maru_protocol::join_decision::heeds;
use ruma::{RoomId, ServerName};

use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::room_locks::{RoomLock, RoomLocks};
use crate::store::Store;

/// Look-ups of rooms by id, and the locks that joins through other servers hold.
#[derive(Debug)]
pub(in crate::peers) struct LocalRooms {
    identity: Arc<Identity>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    join_locks: RoomLocks,
}

impl LocalRooms {
    pub(in crate::peers) fn new(identity: Arc<Identity>, store: Arc<Store>, rooms: Arc<Rooms>) -> Self {
        Self {
            identity,
            store,
            rooms,
            join_locks: RoomLocks::default(),
        }
    }

    /// Waits until no join of this server into a room is under way, and begins one, which ends when the lock is dropped.
    pub(in crate::peers) async fn lock_join(&self, room_id: &RoomId) -> RoomLock {
        self.join_locks.take(room_id).await
    }

    /// The room with this id if it is here, whether this server has a user in it or has left it.
    pub(in crate::peers) async fn replica(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        match self.rooms.repository.room(room_id).await {
            Ok(room) => Ok(Some(room)),
            Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The room with this id if this server has a user in it.
    pub(in crate::peers) async fn present(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        let room = self.replica(room_id).await?;
        Ok(room.filter(|room| room.head().servers.contains_key(&self.identity.server_name)))
    }

    /// Like [`LocalRooms::present`], once nobody of this server is on the way into the room.
    pub(in crate::peers) async fn settled(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.present(room_id).await? {
            return Ok(Some(room));
        }
        let _lock = self.lock_join(room_id).await;
        self.present(room_id).await
    }

    /// A room of which a peer announces its forward extremities, once nobody of this server is on the way into it; none where that does not
    /// concern this server.
    pub(in crate::peers) async fn heeded(
        &self,
        room_id: &RoomId,
        peer: &ServerName,
    ) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.settled(room_id).await? {
            return Ok(Some(room));
        }
        let Some(room) = self.replica(room_id).await? else {
            return Ok(None);
        };
        let was_in = self
            .store
            .federation
            .interest_ended(room.nid, peer)
            .await?
            .is_some();
        let is_heeded = heeds(self.identity.name(), Some(&room.head().servers), peer, was_in);
        Ok(is_heeded.then_some(room))
    }
}
