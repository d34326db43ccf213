//! Rooms: what happens in them and who may see it.
//!
//! [`Room`] holds one room's heads; [`chain`] builds events on a head; [`Rooms::append`] is the one way by which a local
//! event enters a room. The other files are one kind of action each.

mod aliases;
mod append;
mod bundle;
mod chain;
mod create;
mod directory;
mod first_state;
mod hierarchy;
pub mod history;
mod judge;
mod membership;
mod read_state;
mod relation;
pub mod relations;
mod room;
mod send;
mod show_profile;
mod state_checks;
mod summary;
mod table;
mod transactions;
mod upgrade;
mod upgraded_levels;
pub mod view;
pub mod visibility;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{PowerLevels, StateSlot};
use maru_protocol::limits;
use maru_protocol::state::{EventNid, State};
use maru_protocol::version::RoomVersion;
use ruma::RoomId;

pub use append::Effects;
pub use create::{NewRoomRequest, Preset, StateDraft};
pub use directory::{DirectoryPage, DirectoryQuery};
pub use hierarchy::{HierarchyQuery, TreePage, TreeRoom};
pub use room::Room;
pub use table::RoomTable;
pub use transactions::Transaction;

use crate::clock::Clock;
use crate::identity::Identity;
use crate::push::Push;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::events::StoredEvent;

/// Everything that rooms need to work.
#[derive(Debug)]
pub struct Rooms {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    table: Arc<RoomTable>,
    push: Arc<Push>,
    /// Longest `body` of a local message, in characters.
    message_characters: usize,
    transactions: transactions::Transactions,
}

impl Rooms {
    /// Rooms over a store; `table` is the one that hears of the store's commits.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        store: Arc<Store>,
        table: Arc<RoomTable>,
        push: Arc<Push>,
        message_characters: usize,
    ) -> Self {
        Self {
            identity,
            clock,
            store,
            table,
            push,
            message_characters,
            transactions: transactions::Transactions::default(),
        }
    }

    /// The store under the rooms.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The rooms and events in memory.
    #[must_use]
    pub fn table(&self) -> &RoomTable {
        &self.table
    }

    /// Who this server is.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

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
        let Some(stored) = self.store.room_by_nid(nid).await? else {
            return Ok(None);
        };
        let Some(head) = self.store.room_head(nid).await? else {
            return Ok(None);
        };
        let version = RoomVersion::from_id(&stored.version).ok_or_else(|| {
            Refusal::internal(format!("room {nid} has the unknown version {}", stored.version))
        })?;
        let create = self.state_event(&head.state, "m.room.create", "").await?;
        let max_event_bytes = create.map_or(limits::DEFAULT_MAX_EVENT_BYTES, |create| {
            limits::max_event_bytes(&create.event.content)
        });
        let members = self.store.members(nid, &["join"]).await?;
        let members: HashSet<_> = members
            .into_iter()
            .map(|member| member.membership.user_id)
            .collect();
        Ok(Some(self.table.insert(Room::new(
            stored.room_id,
            version,
            max_event_bytes,
            head,
            members,
        ))))
    }

    /// The event in a slot of a state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn state_event(
        &self,
        state: &State,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StoredEvent>>, Refusal> {
        match state.get(&StateSlot::new(event_type, state_key).hash()) {
            Some(nid) => Ok(self.events(&[nid]).await?.remove(&nid)),
            None => Ok(None),
        }
    }

    /// Who may do what in a room, by its committed state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn power_levels(&self, room: &Room) -> Result<PowerLevels, Refusal> {
        let head = room.head();
        let create = self.state_event(&head.state, "m.room.create", "").await?;
        let create = create.ok_or_else(|| Refusal::internal("a room without a create event"))?;
        let levels = self.state_event(&head.state, "m.room.power_levels", "").await?;
        PowerLevels::new(
            room.version,
            &create.event,
            levels.as_ref().map(|stored| &*stored.event),
        )
        .map_err(Refusal::internal)
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
            for (nid, event) in self.store.events_by_nid(&missing).await? {
                self.table.events.insert(nid, Arc::clone(&event));
                found.insert(nid, event);
            }
        }
        Ok(found)
    }
}
