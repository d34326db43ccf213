//! State of a room, current and after an event, and what its state events say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{PowerLevels, StateSlot};
use maru_protocol::state::{State, StateNid};
use maru_protocol::visibility::{HistoryVisibility, Membership};
use ruma::UserId;

use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{RoomHead, StoredRoom};

impl RoomRepository {
    /// Who may see the room's history, by its committed state.
    pub(in crate::rooms) async fn history_visibility(
        &self,
        room: &Room,
    ) -> Result<HistoryVisibility, Refusal> {
        let state = &room.head().state;
        let event = self.state_event(state, "m.room.history_visibility", "").await?;
        Ok(event.map_or_else(HistoryVisibility::default, |stored| {
            HistoryVisibility::of(&stored.event)
        }))
    }

    /// The committed heads of rooms, from memory or in one query.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn heads(
        &self,
        rooms: &[StoredRoom],
    ) -> Result<HashMap<i64, Arc<RoomHead>>, Refusal> {
        self.heads_of(rooms.iter().map(|room| room.nid).collect()).await
    }

    pub(in crate::rooms) async fn heads_of(
        &self,
        rooms: HashSet<i64>,
    ) -> Result<HashMap<i64, Arc<RoomHead>>, Refusal> {
        let mut heads = HashMap::with_capacity(rooms.len());
        let mut missing = Vec::new();
        for nid in rooms {
            match self.cache.get(nid) {
                Some(room) => drop(heads.insert(nid, room.head())),
                None => missing.push(nid),
            }
        }
        if !missing.is_empty() {
            let read = self.store.rooms.room_heads(missing).await?;
            heads.extend(read.into_iter().map(|head| (head.room, Arc::new(head))));
        }
        Ok(heads)
    }

    /// A user's membership by the room's committed state; `None` for one who was never there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn membership(&self, room: &Room, user_id: &UserId) -> Result<Option<Membership>, Refusal> {
        if room.is_joined(user_id) {
            return Ok(Some(Membership::Join));
        }
        let state = &room.head().state;
        let event = self.state_event(state, "m.room.member", user_id.as_str()).await?;
        Ok(event.and_then(|stored| Membership::of(&stored.event)))
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

    /// Whether anybody may read the room, by its present state.
    pub(in crate::rooms) async fn is_world_readable(&self, room: &Room) -> Result<bool, Refusal> {
        let event = self
            .state_event(&room.head().state, "m.room.history_visibility", "")
            .await?;
        Ok(event
            .is_some_and(|stored| HistoryVisibility::of(&stored.event) == HistoryVisibility::WorldReadable))
    }

    pub(in crate::rooms) async fn state_after(
        &self,
        room: &Room,
        nid: Option<StateNid>,
    ) -> Result<State, Refusal> {
        let head = room.head();
        match nid {
            None => Ok(State::default()),
            Some(_) if head.state.nid() == nid => Ok(head.state.clone()),
            Some(nid) => Ok(self.store.rooms.state(nid).await?),
        }
    }

    /// The states after some events: at most one query, none where all are the room's current one.
    pub(in crate::rooms) async fn states_after(
        &self,
        room: &Room,
        events: &[Arc<StoredEvent>],
    ) -> Result<HashMap<StateNid, State>, Refusal> {
        let mut states = HashMap::new();
        let head = room.head();
        if let Some(nid) = head.state.nid() {
            states.insert(nid, head.state.clone());
        }
        let mut missing: Vec<StateNid> = events.iter().filter_map(|stored| stored.state).collect();
        missing.dedup();
        missing.retain(|nid| !states.contains_key(nid));
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            states.extend(self.store.rooms.states(missing).await?);
        }
        Ok(states)
    }
}
