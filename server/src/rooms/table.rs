//! The rooms and events that are in memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use maru_protocol::state::EventNid;

use super::room::Room;
use crate::cache::Cache;
use crate::store::events::StoredEvent;

/// Rooms kept in memory though nobody is using them right now.
const IDLE_ROOMS: usize = 20_000;

/// Events kept in memory, two generations of this many.
const EVENTS: usize = 50_000;

/// One [`Room`] per room, whoever asks, and recent events. Filled by [`Rooms`](super::Rooms), kept current by the log's
/// commits.
#[derive(Debug)]
pub struct RoomTable {
    rooms: RwLock<HashMap<i64, Arc<Room>>>,
    /// Events by their local number.
    pub events: Cache<EventNid, Arc<StoredEvent>>,
}

impl Default for RoomTable {
    fn default() -> Self {
        Self {
            rooms: RwLock::default(),
            events: Cache::new(EVENTS),
        }
    }
}

impl RoomTable {
    /// The room numbered `nid`, if it is in memory.
    pub fn get(&self, nid: i64) -> Option<Arc<Room>> {
        self.rooms
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&nid)
            .cloned()
    }

    /// Adds a room unless it is here already; the one to use.
    pub(super) fn insert(&self, room: Room) -> Arc<Room> {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= IDLE_ROOMS {
            // Only the table holds these: no build is in flight, and the database knows them.
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
        }
        Arc::clone(rooms.entry(room.nid).or_insert_with(|| Arc::new(room)))
    }

    /// Forgets a room whose creation failed.
    pub(super) fn remove(&self, nid: i64) {
        self.rooms
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&nid);
    }
}
