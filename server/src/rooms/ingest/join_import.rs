//! Import of a whole room when a local user joins it through another server: the state that a resident server sent, and the
//! join event.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::cursor::Place;
use maru_protocol::destinations;
use maru_protocol::event::Event;
use maru_protocol::ingest::{self, Facts, Head, Ingested, Outcome, Received, Step};
use maru_protocol::limits;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::version::RoomVersion;
use ruma::OwnedEventId;

use super::{IngestLock, records};
use crate::identity::Identity;
use crate::push::PushOutcome;
use crate::refusal::Refusal;
use crate::rooms::create::empty_head;
use crate::rooms::repository::members::membership_of;
use crate::rooms::{FactLoader, Room, RoomNumbers, RoomRepository};
use crate::store::Store;
use crate::store::federation::destination_intervals::Interest;
use crate::store::log::{Change, Record};
use crate::store::rooms::events::Notify;
use crate::store::rooms::gaps::{Gap, GapChange};
use crate::store::rooms::{Membership, RoomHead};

/// Events of a remote state of which only the slots are read, together.
const PARTS_TOGETHER: usize = 1_000;

/// Membership events that are read together, with their contents.
const MEMBERS_TOGETHER: usize = 250;

/// A room as a resident server sent it, with every event verified.
#[derive(Clone, Debug)]
pub struct JoinImport {
    /// The room's version.
    pub version: RoomVersion,
    /// The events of the state before the join. They and their auth chain are kept as outliers.
    pub state: Vec<OwnedEventId>,
    /// The join, with all signatures.
    pub join: Arc<Event>,
}

/// Import of whole rooms that local users join through other servers.
#[derive(Debug)]
pub struct JoinImporter {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) numbers: Arc<RoomNumbers>,
    pub(in crate::rooms) facts: Arc<FactLoader>,
}

impl JoinImporter {
    /// Imports the locked room: the verdict on the join by the state before it, then the head after it. A room that this
    /// server was in before goes on where it was left. Costs grow with the members.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the remote state is inconsistent or does not allow the join.
    pub async fn import(&self, ingest_lock: &IngestLock, import: JoinImport) -> Result<Arc<Room>, Refusal> {
        let room_id = ingest_lock.room_id().clone();
        let JoinImport { version, state, join } = import;
        let nid = self.numbers.of_version(&room_id, version).await?;
        let (before, members) = self.remote_state(nid, &state).await?;
        let max_event_bytes = self.max_event_bytes(&before, version).await?;
        // A room that this server was in before goes on where it was left.
        let known = self.repository.room_by_nid(nid).await?;
        if known
            .as_ref()
            .is_some_and(|room| room.max_event_bytes != max_event_bytes)
        {
            return Err(Refusal::forbidden(
                "the room has another create event than it had",
            ));
        }
        let old = match &known {
            Some(room) => room.newest(),
            None => Arc::new(empty_head(nid)),
        };
        let here = self.store.rooms.event(&join.id).await?;
        let nid_of_join = match &here {
            Some(here) if here.place.is_some() => {
                return Err(Refusal::forbidden("the room does not let the user in any more"));
            }
            // In an auth chain that was sent it has this number; what the old head did not let in has a state already.
            Some(here) if here.state.is_none() => here.nid,
            _ => EventNid(self.store.log.next_nid()),
        };
        let received = Received {
            event: Arc::clone(&join),
            nid: nid_of_join,
            before: Some(before),
            // Nothing of the old head counts: the room goes on from the join.
            backfilled: true,
            accepted: true,
        };
        let ingested = self.decide_join(&received, version).await?;
        let remote = self.remote_members(members, &join, empty_head(nid)).await?;
        // What happened before the join, or since this server was last in the room, is missing.
        let place = match &known {
            Some(_) => old.last_place.next_stretch(),
            None => Place::FIRST_LIVE,
        };
        let nothing = PushOutcome {
            to_others: Notify::Nothing,
            exceptions: Vec::new(),
        };
        let mut stored = records::stored_event(&join, received.nid, nid, Some(place), &ingested, &nothing);
        stored.own = true;
        let stored = Arc::new(stored);
        let mut head = RoomHead {
            first_place: if old.extremities.is_empty() {
                place
            } else {
                old.first_place
            },
            last_place: place,
            depth: join.depth,
            ..remote.counted
        };
        let graph = Head::at(join.id.clone(), ingested.state_after.clone());
        (head.extremities, head.state) = (graph.extremities, graph.state);
        let mut list: Vec<Record> = records::states(nid, &ingested.new_states).collect();
        list.extend(here.map(|here| Record::Placed(here.nid)));
        list.push(Record::Event(Arc::clone(&stored)));
        list.push(Record::Gap(GapChange::Opened(Gap {
            room: nid,
            before: place,
            missing: join.prev_events.clone(),
        })));
        let _ = head.count_member(None, Some(&join));
        let memberships = remote.memberships.into_iter().chain(membership_of(&stored));
        let mut members = HashSet::new();
        for membership in memberships {
            if membership.membership == "join" {
                members.insert(membership.user_id.clone());
            }
            list.push(Record::Membership(membership));
        }
        list.extend(self.new_interests(&head).await?.map(Record::Interest));
        list.push(Record::Head(head.clone()));
        let Some(room) = known else {
            self.store.log.append(Change::new(list)).await?;
            self.repository.cache().events.insert(stored.nid, stored);
            let room = Room::new(room_id, version, max_event_bytes, head, members);
            return Ok(self.repository.cache().insert(room));
        };
        self.advance(&room, &old, list, head).await?;
        self.repository.cache().events.insert(stored.nid, stored);
        Ok(room)
    }

    /// The largest event of a room, in bytes, by the create event of a remote state.
    async fn max_event_bytes(&self, before: &State, version: RoomVersion) -> Result<usize, Refusal> {
        let create = before.get(&StateSlot::new("m.room.create", "").hash());
        let create = match create {
            Some(create) => self.repository.events(&[create]).await?.remove(&create),
            None => None,
        };
        let create = create.ok_or_else(|| Refusal::forbidden("the told state has no create event"))?;
        if RoomVersion::of_room(&create.event.content) != Some(version) {
            return Err(Refusal::forbidden("the room is of another version than was said"));
        }
        Ok(limits::max_event_bytes(&create.event.content))
    }

    /// The verdict on the join, by the state before it alone.
    async fn decide_join(&self, received: &Received, version: RoomVersion) -> Result<Ingested, Refusal> {
        let mut facts = Facts::default();
        let ingested = loop {
            let mut number = || StateNid(self.store.log.next_nid());
            match ingest::ingest(received, version, &Head::default(), &mut facts, &mut number) {
                Ok(Step::Load(wanted)) if self.facts.is_too_costly(&facts, &wanted) => {
                    return Err(Refusal::forbidden(
                        "the verdict on the join needs too many events",
                    ));
                }
                Ok(Step::Load(wanted)) => self.facts.load(&mut facts, wanted).await?,
                Ok(Step::Done(ingested)) => break ingested,
                Ok(Step::Lacks { .. }) => {
                    return Err(Refusal::forbidden("the told auth chain of the join is not whole"));
                }
                Err(error) => return Err(Refusal::internal(error)),
            }
        };
        if ingested.verdict.outcome != Outcome::Accepted {
            let reason = ingested
                .verdict
                .reason
                .map_or_else(String::new, |denied| denied.reason);
            return Err(Refusal::forbidden(format!(
                "the room does not allow the join: {reason}"
            )));
        }
        Ok(*ingested)
    }

    /// Stores the join in a room that this server was in before, unless its head has moved meanwhile.
    async fn advance(
        &self,
        room: &Room,
        old: &Arc<RoomHead>,
        records: Vec<Record>,
        head: RoomHead,
    ) -> Result<(), Refusal> {
        let pending = {
            let lock = room.lock();
            if !Arc::ptr_eq(lock.head(), old) {
                return Err(Refusal::Unavailable(
                    "the room has changed meanwhile, try again".into(),
                ));
            }
            let pending = self
                .store
                .log
                .enqueue(Change::new(records).on_head(lock.ticket()))?;
            lock.advance(Arc::new(head));
            pending
        };
        pending.wait().await?;
        Ok(())
    }

    /// A remote state, numbered, of events that are stored as outliers, and which of them are memberships. Events that were
    /// rejected are no state. None of them is held in memory: there may be many, and large ones.
    pub(in crate::rooms) async fn remote_state(
        &self,
        room: i64,
        ids: &[OwnedEventId],
    ) -> Result<(State, Vec<EventNid>), Refusal> {
        let mut slots: BTreeMap<SlotHash, Option<EventNid>> = BTreeMap::new();
        let mut members = Vec::new();
        for ids in ids.chunks(PARTS_TOGETHER) {
            for part in self.store.rooms.state_parts(room, ids).await? {
                let slot = part
                    .slot
                    .ok_or_else(|| Refusal::forbidden("the told state holds what is no state"))?;
                if slots.insert(slot.hash(), Some(part.nid)).is_some() {
                    return Err(Refusal::forbidden("the told state fills a slot twice"));
                }
                if &*slot.event_type == "m.room.member" {
                    members.push(part.nid);
                }
            }
        }
        let state = State::default().with(StateNid(self.store.log.next_nid()), slots);
        Ok((state, members))
    }

    /// Counts the members of a remote state, a few at a time, without the one whose join replaces what it says of them.
    async fn remote_members(
        &self,
        members: Vec<EventNid>,
        join: &Event,
        counted: RoomHead,
    ) -> Result<Members, Refusal> {
        let mut remote = Members {
            counted,
            memberships: Vec::with_capacity(members.len()),
        };
        for members in members.chunks(MEMBERS_TOGETHER) {
            for stored in self.store.rooms.events_by_nid(members).await?.into_values() {
                if stored.event.state_key != join.state_key {
                    let _ = remote.counted.count_member(None, Some(&stored.event));
                    remote.memberships.extend(membership_of(&stored));
                }
            }
        }
        Ok(remote)
    }

    /// Destination intervals of a room that begins anew.
    async fn new_interests(
        &self,
        head: &RoomHead,
    ) -> Result<impl Iterator<Item = Interest> + use<>, Refusal> {
        let room = head.room;
        let open = self.store.federation.interested_in(room).await?;
        let anew = destinations::anew(&head.servers, &open, self.identity.name());
        Ok(anew.into_iter().map(move |(server_name, change)| Interest {
            room,
            server_name,
            change,
        }))
    }

    /// A remote state of a room that this server is in, numbered for a verdict: the state before an event whose
    /// previous events cannot be had.
    ///
    /// # Errors
    /// When the remote state is inconsistent.
    pub async fn state_of(&self, room: i64, ids: &[OwnedEventId]) -> Result<State, Refusal> {
        Ok(self.remote_state(room, ids).await?.0)
    }
}

/// Members of a remote state.
struct Members {
    /// A head in which they are counted.
    counted: RoomHead,
    memberships: Vec<Membership>,
}
