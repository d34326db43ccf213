//! The appender: the one way by which a local event enters a room.

pub(super) mod event_builder;
pub(super) mod push_evaluation;
pub(super) mod relation;
pub(super) mod send;
pub(super) mod send_state;
pub(super) mod transactions;

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::auth;
use maru_protocol::event::{Draft, Event};
use maru_protocol::state::{EventNid, State};

use super::Room;
use super::create::{FirstEvents, empty_head};
use crate::clock::Clock;
use crate::identity::Identity;
use crate::push::PushOutcome;
use crate::refusal::Refusal;
use crate::rooms::{PushEvaluation, RoomRepository, Transactions};
use crate::store::Store;
use crate::store::StoreError;
use crate::store::log::{Change, Pending, Record};
use crate::store::rooms::NewRoom;
use crate::store::rooms::events::StoredEvent;
use event_builder::{EventBuilder, LoadedState, NotAdded};

/// How often building is tried on a head that keeps changing under it.
const ATTEMPTS: usize = 16;

/// Records that are stored with an event, once its id is known: its transaction id, the redaction it makes.
pub type Effects<'a> = &'a (dyn Fn(&Arc<StoredEvent>) -> Vec<Record> + Send + Sync);

/// The appender of local events: builds, checks, signs and stores them.
#[derive(Debug)]
pub struct Appender {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) clock: Arc<Clock>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) push_evaluation: Arc<PushEvaluation>,
    pub(in crate::rooms) transactions: Arc<Transactions>,
    /// Longest `body` of a local message, in characters.
    pub(in crate::rooms) message_characters: usize,
}

impl Appender {
    /// Builds an event on the room's newest head, checks it by the room's rules, signs it and stores it. Returns once
    /// it is on disk.
    ///
    /// # Errors
    /// What the rules or limits say, or [`Refusal::Unavailable`].
    pub async fn append(
        &self,
        room: &Arc<Room>,
        draft: Draft,
        effects: Effects<'_>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        self.append_at(room, draft, None, effects).await
    }

    /// As [`Appender::append`], of an event that was made at a time (milliseconds since 1970) by its own account. Its place in
    /// the timeline is that of one that is made now.
    pub(in crate::rooms) async fn append_at(
        &self,
        room: &Arc<Room>,
        draft: Draft,
        at: Option<u64>,
        effects: Effects<'_>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let mut known = LoadedState::new();
        let verdict = self.push_evaluation.evaluate(room, &draft).await?;
        for _ in 0..ATTEMPTS {
            let permit = room.builds.acquire().await.map_err(Refusal::internal)?;
            let newest = room.newest();
            self.load_needed(room, &newest.state, &draft, &mut known).await?;
            let Some((stored, pending)) = self.build(room, &draft, at, &verdict, effects, &mut known)? else {
                continue;
            };
            match pending.wait().await {
                Ok(_) => return Ok(stored),
                // An earlier event of the room was not stored: build again on what is there.
                Err(StoreError::StaleHead) => drop(permit),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::StaleHead.into())
    }

    /// Builds an event on the newest head and forgets that head: for one that is stored only once somebody else agrees.
    pub(super) async fn build_unstored(&self, room: &Arc<Room>, mut draft: Draft) -> Result<Event, Refusal> {
        let mut known = LoadedState::new();
        draft.origin_server_ts = room.lock().stamp(draft.origin_server_ts);
        for _ in 0..ATTEMPTS {
            // Built on what is durable: others can only check it by what they can be sent.
            let head = room.head();
            self.load_needed(room, &head.state, &draft, &mut known).await?;
            let chain = EventBuilder {
                identity: &self.identity,
                version: room.version,
                max_event_bytes: room.max_event_bytes,
                head: (*head).clone(),
                known: &mut known,
                records: Vec::new(),
            };
            match chain.build(draft.clone()) {
                Ok(event) => return Ok(event),
                Err(NotAdded::Missing) => {}
                Err(NotAdded::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(StoreError::StaleHead.into())
    }

    /// Brings the events of a state that the rules will ask for into memory, before the room is locked.
    async fn load_needed(
        &self,
        room: &Room,
        state: &State,
        draft: &Draft,
        known: &mut LoadedState,
    ) -> Result<(), Refusal> {
        let (state_key, sender) = (draft.state_key.as_deref(), &draft.sender);
        let mut slots =
            auth::slots_needed(&draft.event_type, sender, state_key, &draft.content, room.version)
                .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        if let Some(state_key) = state_key {
            slots.push(auth::StateSlot::new(&draft.event_type, state_key));
        }
        let nids: Vec<_> = slots.iter().filter_map(|slot| state.get(&slot.hash())).collect();
        let missing: Vec<_> = nids.into_iter().filter(|nid| !known.contains_key(nid)).collect();
        known.extend(self.repository.events(&missing).await?);
        Ok(())
    }

    /// Builds and enqueues under the room's lock, without waiting for anything. `None` when the head has moved to state
    /// that is not loaded.
    fn build(
        &self,
        room: &Arc<Room>,
        draft: &Draft,
        at: Option<u64>,
        verdict: &PushOutcome,
        effects: Effects<'_>,
        known: &mut LoadedState,
    ) -> Result<Option<(Arc<StoredEvent>, Pending)>, Refusal> {
        let mut lock = room.lock();
        let mut draft = draft.clone();
        draft.origin_server_ts = match at {
            Some(at) => at,
            None => lock.stamp(draft.origin_server_ts),
        };
        let mut chain = EventBuilder {
            identity: &self.identity,
            version: room.version,
            max_event_bytes: room.max_event_bytes,
            head: (**lock.head()).clone(),
            known,
            records: Vec::with_capacity(4),
        };
        let stored = match chain.add(draft, EventNid(self.store.log.next_nid()), verdict) {
            Ok(stored) => stored,
            Err(NotAdded::Missing) => return Ok(None),
            Err(NotAdded::Refused(refusal)) => return Err(refusal),
        };
        let mut records = chain.records;
        records.extend(effects(&stored));
        records.push(Record::Head(chain.head.clone()));
        let pending = self
            .store
            .log
            .enqueue(Change::new(records).on_head(lock.ticket()))?;
        if stored.event.is_state() {
            self.repository
                .cache()
                .events
                .insert(stored.nid, Arc::clone(&stored));
        }
        lock.advance(Arc::new(chain.head));
        Ok(Some((stored, pending)))
    }

    /// Stores the first events of a room, all or none.
    pub(in crate::rooms) async fn append_new_room(&self, first: FirstEvents) -> Result<Arc<Room>, Refusal> {
        let verdicts = self
            .push_evaluation
            .evaluate_first_events(first.new_room.nid, &first.drafts)
            .await?;
        let mut known = LoadedState::new();
        let mut chain = EventBuilder {
            identity: &self.identity,
            version: first.version,
            max_event_bytes: first.max_event_bytes,
            head: empty_head(first.new_room.nid),
            known: &mut known,
            records: Vec::with_capacity(first.drafts.len() * 3 + 2),
        };
        let mut room_id = None;
        for (mut draft, verdict) in first.drafts.into_iter().zip(&verdicts) {
            // The create event of a room whose id is its hash names no room; the others name that id.
            draft.room_id = draft.room_id.or_else(|| room_id.clone());
            let stored = chain
                .add(draft, EventNid(self.store.log.next_nid()), verdict)
                .map_err(|not_added| match not_added {
                    NotAdded::Missing => Refusal::internal("a new room lacks its own state"),
                    NotAdded::Refused(Refusal::Forbidden(why)) => Refusal::InvalidRoomState(why),
                    NotAdded::Refused(refusal) => refusal,
                })?;
            room_id = Some(stored.event.room_id.clone());
        }
        let room_id = room_id.ok_or_else(|| Refusal::internal("a room without events"))?;
        let new_room = NewRoom {
            room_id: room_id.clone(),
            ..first.new_room
        };
        let (nid, head, events) = (new_room.nid, chain.head, chain.records);
        let (newest, has_alias) = (head.clone(), first.alias.is_some());
        let last_made = first.last_made;
        let mut records = vec![Record::Room(new_room)];
        records.extend(events);
        records.extend(first.alias.map(Record::Alias));
        records.push(Record::Head(head));
        for stored in known.into_values() {
            self.repository.cache().events.insert(stored.nid, stored);
        }
        let room = Room::new(
            room_id,
            first.version,
            first.max_event_bytes,
            empty_head(nid),
            HashSet::new(),
        );
        let room = self.repository.cache().insert(room);
        {
            let mut lock = room.lock();
            lock.stamp(last_made);
            lock.advance(Arc::new(newest));
        }
        match self.store.log.append(Change::new(records)).await {
            Ok(_) => Ok(room),
            Err(error) => {
                self.repository.cache().remove(nid);
                Err(match error {
                    StoreError::Conflict(_) if has_alias => Refusal::RoomInUse("the alias is taken".into()),
                    error => error.into(),
                })
            }
        }
    }
}
