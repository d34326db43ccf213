//! Local numbers of rooms that this server learns of from others.

use std::sync::Arc;

use maru_protocol::version::RoomVersion;
use ruma::OwnedRoomId;

use crate::clock::Clock;
use crate::refusal::Refusal;
use crate::rooms::RoomRepository;
use crate::store::Store;
use crate::store::log::{Change, Record};
use crate::store::rooms::NewRoom;

/// Local numbers (rooms.nid) of rooms that this server learns of from others.
#[derive(Debug)]
pub struct RoomNumbers {
    pub(in crate::rooms) clock: Arc<Clock>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
}

impl RoomNumbers {
    /// The local number of a room that somebody says is of a version, known or new. A new one has no head and therefore
    /// counts as unknown until it has, and what was said of its version before binds nobody.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a room that is known with another version; else when the database fails.
    pub async fn of_version(&self, room_id: &OwnedRoomId, version: RoomVersion) -> Result<i64, Refusal> {
        let Some(stored) = self.store.rooms.room(room_id).await? else {
            return self.create(room_id, version).await;
        };
        if RoomVersion::from_id(&stored.version) != Some(version) {
            if self.repository.room_by_nid(stored.nid).await?.is_some() {
                return Err(Refusal::forbidden("the room is known with another version"));
            }
            tracing::info!(%room_id, said = %stored.version, %version, "a room of another version than was said");
            self.store
                .rooms
                .change_version(stored.nid, version.as_str())
                .await?;
        }
        Ok(stored.nid)
    }

    /// The local number of a room that one of our users is asked into, known or new; a known one keeps its version.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::rooms) async fn of_invite(
        &self,
        room_id: &OwnedRoomId,
        version: RoomVersion,
    ) -> Result<i64, Refusal> {
        match self.store.rooms.room(room_id).await? {
            Some(stored) => Ok(stored.nid),
            None => self.create(room_id, version).await,
        }
    }

    async fn create(&self, room_id: &OwnedRoomId, version: RoomVersion) -> Result<i64, Refusal> {
        let nid = self.store.log.next_nid();
        let room = NewRoom {
            nid,
            room_id: room_id.clone(),
            version: version.as_str().to_owned(),
            published: false,
            created_at: i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX),
        };
        self.store.log.append(Change::from(Record::Room(room))).await?;
        Ok(nid)
    }
}
