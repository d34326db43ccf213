//! The turn at storing what other servers made in a room. An event may come by several ways at once (a log, a gap that is
//! filled, a request); whoever looks whether it is here and stores it holds the turn meanwhile, or it would be stored twice.

use ruma::{OwnedRoomId, RoomId};

use crate::refusal::Refusal;
use crate::rooms::room_locks::RoomLock;
use crate::rooms::room_locks::RoomLocks;

/// The turn at a room, until it is dropped: nothing is ingested without it.
#[derive(Debug)]
pub struct IngestLock {
    room_id: OwnedRoomId,
    _turn: RoomLock,
}

/// Locks of rooms for storing received events.
#[derive(Debug)]
pub struct IngestLocks {
    pub(in crate::rooms) locks: RoomLocks,
}

impl IngestLocks {
    /// Waits for the turn at storing received events in a room. Nobody else is waited for under it but the database.
    pub async fn lock(&self, room_id: &RoomId) -> IngestLock {
        IngestLock {
            room_id: room_id.to_owned(),
            _turn: self.locks.take(room_id).await,
        }
    }
}

impl IngestLock {
    /// The room.
    pub(in crate::rooms) fn room_id(&self) -> &OwnedRoomId {
        &self.room_id
    }

    /// Refuses to go on in another room than this turn is at.
    pub(super) fn check(&self, room_id: &RoomId) -> Result<(), Refusal> {
        match self.room_id == room_id {
            true => Ok(()),
            false => Err(Refusal::internal("the turn is at another room")),
        }
    }
}
