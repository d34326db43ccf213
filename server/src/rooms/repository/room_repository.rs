//! The repository of rooms and events: from memory, or loaded from the database into it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{PageToken, Place};
use maru_protocol::limits;
use maru_protocol::state::EventNid;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId};

use crate::refusal::Refusal;
use crate::rooms::{Room, RoomCache};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{RoomHead, StoredRoom};

/// Rooms that are read together.
const LOADED_TOGETHER: usize = 128;

/// Rooms, their state and their events by id, from memory or the database.
#[derive(Debug)]
pub struct RoomRepository {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) cache: Arc<RoomCache>,
    /// Held while rooms are read from the database.
    pub(in crate::rooms) loading: tokio::sync::Mutex<()>,
}

/// Rooms in which another node has committed something.
#[derive(Debug)]
pub struct FollowedRooms {
    /// By their local numbers.
    pub rooms: HashMap<i64, Arc<Room>>,
    /// Their committed heads, as they are in the database.
    pub heads: Vec<RoomHead>,
}

impl RoomRepository {
    /// Rooms over a store; `cache` is the one that hears of the store's commits.
    pub(in crate::rooms) fn new(store: Arc<Store>, cache: Arc<RoomCache>) -> Self {
        Self {
            store,
            cache,
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// The store under the rooms.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The rooms and events in memory.
    #[must_use]
    pub fn cache(&self) -> &RoomCache {
        &self.cache
    }

    /// The room with this id.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when this server does not know it.
    pub async fn room(&self, room_id: &RoomId) -> Result<Arc<Room>, Refusal> {
        if let Some(room) = self.cache.named(room_id) {
            return Ok(room);
        }
        let unknown = || Refusal::not_found("this server does not know that room");
        let stored = self.store.rooms.room(room_id).await?.ok_or_else(unknown)?;
        self.room_by_nid(stored.nid).await?.ok_or_else(unknown)
    }

    /// The room with this local number, from memory or the database.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_by_nid(&self, nid: i64) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.cache.get(nid) {
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
            match self.cache.get(*nid) {
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
            match self.cache.get(*nid) {
                Some(room) => drop(loaded.insert(*nid, room)),
                None => missing.push(*nid),
            }
        }
        if missing.is_empty() {
            return Ok(loaded);
        }
        let followed = self.cache.followed();
        let rooms = self.store.rooms.rooms_by_nid(missing.clone()).await?;
        let heads = self.store.rooms.room_heads(missing.clone()).await?;
        let last_made = self.store.federation.last_made(missing.clone()).await?;
        let mut members = self.store.rooms.joined_members(missing).await?;
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
            let room = self.cache.insert(room);
            loaded.insert(room.nid, room);
        }
        if self.cache.followed() != followed {
            // Another node may have moved one of them after it was read, and before it was in memory to hear of it.
            self.read_again(&loaded).await?;
        }
        Ok(loaded)
    }

    async fn read_again(&self, rooms: &HashMap<i64, Arc<Room>>) -> Result<(), Refusal> {
        let nids: Vec<i64> = rooms.keys().copied().collect();
        let heads = self.store.rooms.room_heads(nids.clone()).await?;
        let mut members = self.store.rooms.joined_members(nids).await?;
        for head in heads {
            if let Some(room) = rooms.get(&head.room) {
                room.read_again(head, members.remove(&room.nid).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Rooms in which another node has committed something, all in memory; and their heads as it has left them, for
    /// [`Room::follow_head`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_to_follow(&self, nids: &[i64]) -> Result<FollowedRooms, Refusal> {
        self.cache.follow();
        let rooms = self.rooms_by_nid(nids).await?;
        let heads = match nids.is_empty() {
            true => Vec::new(),
            false => self.store.rooms.room_heads(nids.to_vec()).await?,
        };
        Ok(FollowedRooms { rooms, heads })
    }

    /// Events by their local numbers, from memory or in one query.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events(&self, nids: &[EventNid]) -> Result<HashMap<EventNid, Arc<StoredEvent>>, Refusal> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut missing = Vec::new();
        for nid in nids {
            match self.cache.events.get(nid) {
                Some(event) => drop(found.insert(*nid, event)),
                None => missing.push(*nid),
            }
        }
        if !missing.is_empty() {
            let rewritten = self.cache.rewritten();
            let read = self.store.rooms.events_by_nid(&missing).await?;
            for (nid, event) in &read {
                self.cache.events.insert(*nid, Arc::clone(event));
            }
            if self.cache.rewritten() != rewritten {
                // One of them may have been emptied after it was read.
                missing.iter().for_each(|nid| self.cache.events.remove(nid));
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
            match self.cache.by_id.get(id) {
                Some(event) => found.push(event),
                None => missing.push(id.to_string()),
            }
        }
        let rewritten = self.cache.rewritten();
        let read = self.store.rooms.events_by_id(missing).await?;
        for stored in &read {
            self.cache
                .by_id
                .insert(stored.event.id.clone(), Arc::clone(stored));
        }
        if self.cache.rewritten() != rewritten {
            read.iter()
                .for_each(|stored| self.cache.by_id.remove(&stored.event.id));
        }
        found.extend(read);
        Ok(found)
    }

    /// The room that an alias names.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it names none.
    pub async fn room_of_alias(&self, alias: &RoomAliasId) -> Result<Arc<Room>, Refusal> {
        let unknown = || Refusal::not_found(format!("{alias} names no room here"));
        if alias.as_str().contains('\0') {
            return Err(unknown());
        }
        let (stored, _) = self.store.rooms.room_of_alias(alias).await?.ok_or_else(unknown)?;
        self.room_by_nid(stored.nid).await?.ok_or_else(unknown)
    }

    /// The room with this id or alias.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when this server does not know it.
    pub async fn room_named(&self, name: &RoomOrAliasId) -> Result<Arc<Room>, Refusal> {
        match <&RoomId>::try_from(name) {
            Ok(room_id) => self.room(room_id).await,
            Err(alias) => self.room_of_alias(alias).await,
        }
    }

    /// The boundary that a token stands for, as the place before it.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for a token of another log.
    pub(in crate::rooms) async fn boundary(&self, room: &Room, token: PageToken) -> Result<Place, Refusal> {
        match token {
            PageToken::Place(place) => Ok(place),
            PageToken::Since(since) if since.log_id == self.store.log.id() => {
                Ok(self.store.rooms.place_at(room.nid, since.position).await?)
            }
            PageToken::Since(_) => Err(Refusal::invalid(
                "this token is from before the server's data was restored",
            )),
        }
    }

    /// The room with this id, for a reader: one who may not read it does not learn whether it exists.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when this server does not know it.
    pub async fn room_to_read(&self, room_id: &ruma::RoomId) -> Result<Arc<Room>, Refusal> {
        self.room(room_id).await.map_err(|refusal| match refusal {
            Refusal::NotFound(_) => Refusal::forbidden("you are not in this room"),
            refusal => refusal,
        })
    }

    pub(in crate::rooms) async fn events_in_order(
        &self,
        nids: &[EventNid],
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut events: Vec<_> = self.events(nids).await?.into_values().collect();
        events.sort_unstable_by_key(|stored| stored.nid);
        Ok(events)
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
