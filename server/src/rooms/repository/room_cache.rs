//! The rooms and events that are in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use maru_protocol::state::EventNid;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use super::room::Room;
use crate::cache::Cache;
use crate::store::rooms::events::{Redaction, StoredEvent};

/// Rooms kept in memory though nobody is using them right now.
const IDLE_ROOMS: usize = 20_000;

/// Bytes of events kept in memory, two generations of as many: 16 MiB.
const EVENT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of events kept by their ids, two generations of as many: 4 MiB. Most are among the others too.
const NAMED_BYTES: usize = 4 * 1024 * 1024;

/// Roughly what an event costs in memory beside its JSON and its content, which is most of that, in bytes.
const EVENT_COST: usize = 512;

fn weigh(stored: &Arc<StoredEvent>) -> usize {
    stored.event.json.len() + stored.event.content.as_str().len() + EVENT_COST
}

/// One [`Room`] per room, whoever asks, and recent events. Filled by [`Rooms`](crate::rooms::Rooms), kept current by the log's
/// commits.
#[derive(Debug)]
pub struct RoomCache {
    rooms: RwLock<InMemory>,
    /// Events by their local number.
    pub events: Cache<EventNid, Arc<StoredEvent>>,
    /// Events by their id, only as they are on disk.
    pub(in crate::rooms) by_id: Cache<OwnedEventId, Arc<StoredEvent>>,
    rewritten: AtomicU64,
    followed: AtomicU64,
}

/// The rooms in memory, by number; and their numbers by id.
#[derive(Debug, Default)]
struct InMemory {
    rooms: HashMap<i64, Arc<Room>>,
    numbers: HashMap<OwnedRoomId, i64>,
    /// Above this many rooms, idle ones are dropped.
    sweep_at: usize,
}

impl Default for RoomCache {
    fn default() -> Self {
        Self {
            rooms: RwLock::default(),
            events: Cache::weighing(EVENT_BYTES, weigh),
            by_id: Cache::weighing(NAMED_BYTES, weigh),
            rewritten: AtomicU64::new(0),
            followed: AtomicU64::new(0),
        }
    }
}

impl RoomCache {
    /// The room numbered `nid`, if it is in memory.
    pub fn get(&self, nid: i64) -> Option<Arc<Room>> {
        self.read().rooms.get(&nid).cloned()
    }

    /// The room with this id, if it is in memory.
    pub fn named(&self, room_id: &RoomId) -> Option<Arc<Room>> {
        let memory = self.read();
        memory.rooms.get(memory.numbers.get(room_id)?).cloned()
    }

    /// Adds a room unless it is here already; the one to use.
    pub(in crate::rooms) fn insert(&self, room: Room) -> Arc<Room> {
        let mut memory = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        let InMemory {
            rooms,
            numbers,
            sweep_at,
        } = &mut *memory;
        if rooms.len() >= (*sweep_at).max(IDLE_ROOMS) {
            // Only the table holds these: no event of theirs is on its way, and the database knows them.
            rooms.retain(|_, room| Arc::strong_count(room) > 1 || room.is_being_built_on());
            numbers.retain(|_, nid| rooms.contains_key(nid));
            *sweep_at = rooms.len() * 2;
        }
        numbers.insert(room.room_id.clone(), room.nid);
        Arc::clone(rooms.entry(room.nid).or_insert_with(|| Arc::new(room)))
    }

    /// Forgets a room whose creation failed.
    pub(in crate::rooms) fn remove(&self, nid: i64) {
        let mut memory = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = memory.rooms.remove(&nid) {
            memory.numbers.remove(&room.room_id);
        }
    }

    /// How often an event on disk has become another: who reads one from the database and keeps it must see the same number
    /// afterwards.
    pub(in crate::rooms) fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::Acquire)
    }

    /// How often other nodes' commits have been followed: who reads a room from the database and keeps it must see the same
    /// number afterwards.
    pub(in crate::rooms) fn followed(&self) -> u64 {
        self.followed.load(Ordering::SeqCst)
    }

    /// Other nodes' commits are about to be followed in the rooms that are here by now.
    pub(in crate::rooms) fn follow(&self) {
        self.followed.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes over an event that has become durable. Of those by id, the ones that a room goes on with are asked for next.
    pub(crate) fn commit_event(&self, stored: &Arc<StoredEvent>) {
        self.events.insert(stored.nid, Arc::clone(stored));
        match stored.place {
            Some(_) => self.by_id.insert(stored.event.id.clone(), Arc::clone(stored)),
            None => self.by_id.remove(&stored.event.id),
        }
    }

    /// An outlier finds its place with the event that comes next.
    pub(crate) fn commit_place(&self) {
        self.rewritten.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes the content of a redacted event from memory.
    pub(crate) fn redact(&self, redaction: &Redaction) {
        self.rewritten.fetch_add(1, Ordering::AcqRel);
        let emptied = |stored: &StoredEvent| {
            Arc::new(stored.redacted(Arc::clone(&redaction.event), redaction.by.clone()))
        };
        if let Some(stored) = self.events.get(&redaction.target) {
            self.events.insert(redaction.target, emptied(&stored));
        }
        if let Some(stored) = self.by_id.get(&redaction.event.id) {
            self.by_id.insert(redaction.event.id.clone(), emptied(&stored));
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, InMemory> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }
}
