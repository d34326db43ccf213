//! Bringing rooms and events from the database into memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::limits;
use maru_protocol::state::EventNid;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedUserId, RoomId};

use crate::refusal::Refusal;
use crate::rooms::{Room, Rooms};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{RoomHead, StoredRoom};

/// Rooms that are read together.
const LOADED_TOGETHER: usize = 128;

impl Rooms {
    /// The room with this id.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when this server does not know it.
    pub async fn room(&self, room_id: &RoomId) -> Result<Arc<Room>, Refusal> {
        if let Some(room) = self.table.named(room_id) {
            return Ok(room);
        }
        let unknown = || Refusal::not_found("this server does not know that room");
        let stored = self.store.room(room_id).await?.ok_or_else(unknown)?;
        self.room_by_nid(stored.nid).await?.ok_or_else(unknown)
    }

    /// The room with this local number, from memory or the database.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_by_nid(&self, nid: i64) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.table.get(nid) {
            return Ok(Some(room));
        }
        Ok(self.load(&[nid]).await?.remove(&nid))
    }

    /// Rooms by their local numbers, from memory or in a few queries for all of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_by_nid(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<Room>>, Refusal> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut missing = Vec::new();
        for nid in nids {
            match self.table.get(*nid) {
                Some(room) => drop(found.insert(*nid, room)),
                None => missing.push(*nid),
            }
        }
        for missing in missing.chunks(LOADED_TOGETHER) {
            found.extend(self.load(missing).await?);
        }
        Ok(found)
    }

    /// Reads rooms from the database. One reader at a time, so that nobody puts a room into memory whose head somebody
    /// else has moved on since it was read.
    async fn load(&self, nids: &[i64]) -> Result<HashMap<i64, Arc<Room>>, Refusal> {
        let _one_at_a_time = self.loading.lock().await;
        let mut loaded = HashMap::with_capacity(nids.len());
        let mut missing = Vec::with_capacity(nids.len());
        for nid in nids {
            match self.table.get(*nid) {
                Some(room) => drop(loaded.insert(*nid, room)),
                None => missing.push(*nid),
            }
        }
        if missing.is_empty() {
            return Ok(loaded);
        }
        let rooms = self.store.rooms_by_nid(missing.clone()).await?;
        let heads = self.store.room_heads(missing.clone()).await?;
        let last_made = self.store.last_made(missing.clone()).await?;
        let mut members = self.store.joined_members(missing).await?;
        let slot = StateSlot::new("m.room.create", "").hash();
        let created: Vec<EventNid> = heads.iter().filter_map(|head| head.state.get(&slot)).collect();
        let created = self.events(&created).await?;
        let mut heads: HashMap<_, _> = heads.into_iter().map(|head| (head.room, head)).collect();
        for stored in rooms {
            let Some(head) = heads.remove(&stored.nid) else {
                continue;
            };
            let create = head.state.get(&slot).and_then(|nid| created.get(&nid));
            let members = members.remove(&stored.nid).unwrap_or_default();
            let room = assemble(stored, head, create, members)?;
            if let Some(last) = last_made.get(&room.nid) {
                room.lock().stamp(*last);
            }
            let room = self.table.insert(room);
            loaded.insert(room.nid, room);
        }
        Ok(loaded)
    }

    /// Events by their local numbers, from memory or in one query.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events(&self, nids: &[EventNid]) -> Result<HashMap<EventNid, Arc<StoredEvent>>, Refusal> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut missing = Vec::new();
        for nid in nids {
            match self.table.events.get(nid) {
                Some(event) => drop(found.insert(*nid, event)),
                None => missing.push(*nid),
            }
        }
        if !missing.is_empty() {
            let rewritten = self.table.rewritten();
            let read = self.store.events_by_nid(&missing).await?;
            for (nid, event) in &read {
                self.table.events.insert(*nid, Arc::clone(event));
            }
            if self.table.rewritten() != rewritten {
                // One of them may have been emptied after it was read.
                missing.iter().for_each(|nid| self.table.events.remove(nid));
            }
            found.extend(read);
        }
        Ok(found)
    }

    /// Those of some events that are here, from memory or in one query.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn events_by_id(
        &self,
        ids: impl IntoIterator<Item = &OwnedEventId>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for id in ids {
            match self.table.by_id.get(id) {
                Some(event) => found.push(event),
                None => missing.push(id.to_string()),
            }
        }
        let rewritten = self.table.rewritten();
        let read = self.store.events_by_id(missing).await?;
        for stored in &read {
            self.table
                .by_id
                .insert(stored.event.id.clone(), Arc::clone(stored));
        }
        if self.table.rewritten() != rewritten {
            read.iter()
                .for_each(|stored| self.table.by_id.remove(&stored.event.id));
        }
        found.extend(read);
        Ok(found)
    }
}

fn assemble(
    stored: StoredRoom,
    mut head: RoomHead,
    create: Option<&Arc<StoredEvent>>,
    members: HashSet<OwnedUserId>,
) -> Result<Room, Refusal> {
    let version = RoomVersion::from_id(&stored.version).ok_or_else(|| {
        Refusal::internal(format!(
            "room {} has the unknown version {}",
            stored.nid, stored.version
        ))
    })?;
    let max_event_bytes = create.map_or(limits::DEFAULT_MAX_EVENT_BYTES, |create| {
        limits::max_event_bytes(&create.event.content)
    });
    let mut servers = BTreeMap::new();
    for member in &members {
        *servers.entry(member.server_name().to_owned()).or_insert(0) += 1;
    }
    head.servers = Arc::new(servers);
    Ok(Room::new(stored.room_id, version, max_event_bytes, head, members))
}
