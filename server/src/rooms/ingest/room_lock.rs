//! The ingest lock of a room. An event may come by several ways at once (a log, a gap that is filled, a request); whoever
//! looks whether it is here and stores it holds the room's lock meanwhile, or it would be stored twice.

use ruma::{OwnedRoomId, RoomId};

use crate::refusal::Refusal;
use crate::rooms::room_locks::RoomLock;
use crate::rooms::room_locks::RoomLocks;

/// A held ingest lock of one room, released when dropped: nothing is ingested without it.
#[derive(Debug)]
pub struct IngestLock {
    room_id: OwnedRoomId,
    _lock: RoomLock,
}

/// Locks of rooms for storing received events.
#[derive(Debug)]
pub struct IngestLocks {
    pub(in crate::rooms) locks: RoomLocks,
}

impl IngestLocks {
    /// Waits for the ingest lock of a room. Its holder waits for nobody but the database.
    pub async fn lock(&self, room_id: &RoomId) -> IngestLock {
        IngestLock {
            room_id: room_id.to_owned(),
            _lock: self.locks.take(room_id).await,
        }
    }
}

impl IngestLock {
    /// The room.
    pub(in crate::rooms) fn room_id(&self) -> &OwnedRoomId {
        &self.room_id
    }

    /// Refuses to go on in another room than the locked one.
    pub(super) fn check(&self, room_id: &RoomId) -> Result<(), Refusal> {
        match self.room_id == room_id {
            true => Ok(()),
            false => Err(Refusal::internal("the lock is of another room")),
        }
    }
}
