//! The one way by which a local event enters a room.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::auth;
use maru_protocol::event::Draft;
use maru_protocol::state::EventNid;

use super::chain::{Chain, Known, NotAdded};
use super::{Room, Rooms};
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::events::StoredEvent;
use crate::store::log::{Change, Pending, Record};

/// How often building is tried on a head that keeps changing under it.
const ATTEMPTS: usize = 16;

/// Records that are stored with an event, once its id is known: its transaction id, the redaction it makes.
pub type Effects<'a> = &'a (dyn Fn(&Arc<StoredEvent>) -> Vec<Record> + Send + Sync);

impl Rooms {
    /// Builds an event on the room's newest head, checks it by the room's rules, signs it and stores it. Returns once
    /// it is on disk.
    ///
    /// # Errors
    /// What the rules or limits say, or [`Refusal::Unavailable`].
    pub async fn append(&self, room: &Arc<Room>, draft: Draft, effects: Effects<'_>) -> Result<Arc<StoredEvent>, Refusal> {
        let mut known = Known::new();
        for _ in 0..ATTEMPTS {
            let permit = room.builds.acquire().await.map_err(Refusal::internal)?;
            self.load_needed(room, &draft, &mut known).await?;
            let Some((stored, pending)) = self.build(room, &draft, effects, &mut known)? else { continue };
            match pending.wait().await {
                Ok(_) => return Ok(stored),
                // An earlier event of the room was not stored: build again on what is there.
                Err(StoreError::StaleHead) => drop(permit),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::StaleHead.into())
    }

    /// Brings the state events that the rules will ask for into memory, before the room is locked.
    async fn load_needed(&self, room: &Room, draft: &Draft, known: &mut Known) -> Result<(), Refusal> {
        let (state_key, sender) = (draft.state_key.as_deref(), &draft.sender);
        let mut slots = auth::slots_needed(&draft.event_type, sender, state_key, &draft.content, room.version)
            .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        if let Some(state_key) = state_key {
            slots.push(auth::StateSlot::new(&draft.event_type, state_key));
        }
        let state = &room.newest().state;
        let nids: Vec<_> = slots.iter().filter_map(|slot| state.get(&slot.hash())).collect();
        let missing: Vec<_> = nids.into_iter().filter(|nid| !known.contains_key(nid)).collect();
        known.extend(self.events(&missing).await?);
        Ok(())
    }

    /// Builds and enqueues under the room's lock, without waiting for anything. `None` when the head has moved to state
    /// that is not loaded.
    fn build(
        &self,
        room: &Arc<Room>,
        draft: &Draft,
        effects: Effects<'_>,
        known: &mut Known,
    ) -> Result<Option<(Arc<StoredEvent>, Pending)>, Refusal> {
        let lock = room.lock();
        let mut chain = Chain {
            identity: &self.identity,
            version: room.version,
            max_event_bytes: room.max_event_bytes,
            head: (**lock.head()).clone(),
            known,
            records: Vec::with_capacity(4),
        };
        let stored = match chain.add(draft.clone(), EventNid(self.store.next_nid())) {
            Ok(stored) => stored,
            Err(NotAdded::Missing) => return Ok(None),
            Err(NotAdded::Refused(refusal)) => return Err(refusal),
        };
        let mut records = chain.records;
        records.extend(effects(&stored));
        records.push(Record::Head(chain.head.clone()));
        let pending = self.store.enqueue(Change::new(records).on_head(lock.ticket()))?;
        if stored.event.is_state() {
            self.table.events.insert(stored.nid, Arc::clone(&stored));
        }
        lock.advance(Arc::new(chain.head));
        Ok(Some((stored, pending)))
    }

    /// Stores the first events of a room, all or none.
    pub(super) async fn append_new_room(
        &self,
        room: super::create::FirstEvents,
    ) -> Result<(Arc<Room>, Vec<Arc<StoredEvent>>), Refusal> {
        let mut known: Known = HashMap::new();
        let (new_room, drafts) = (room.new_room, room.drafts);
        let mut chain = Chain {
            identity: &self.identity,
            version: room.version,
            max_event_bytes: room.max_event_bytes,
            head: super::create::empty_head(new_room.nid),
            known: &mut known,
            records: vec![Record::Room(new_room.clone())],
        };
        let mut events = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let nid = EventNid(self.store.next_nid());
            match chain.add(draft, nid) {
                Ok(stored) => events.push(stored),
                Err(NotAdded::Missing) => return Err(Refusal::internal("a new room lacks its own state")),
                Err(NotAdded::Refused(refusal)) => return Err(refusal),
            }
        }
        let mut records = chain.records;
        records.push(Record::Head(chain.head.clone()));
        records.extend(room.extra);
        for stored in &events {
            self.table.events.insert(stored.nid, Arc::clone(stored));
        }
        let empty = super::create::empty_head(new_room.nid);
        let made = Room::new(new_room.room_id, room.version, room.max_event_bytes, empty, Default::default());
        let made = self.table.insert(made);
        match self.store.append(Change::new(records)).await {
            Ok(_) => Ok((made, events)),
            Err(error) => {
                self.table.remove(made.nid);
                Err(error.into())
            }
        }
    }
}
