//! Room state from another server (`/state` of the server-server API). It may be large: its events are stored as they
//! arrive, part by part, so that what a peer makes up costs this server no memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_federation::pool::Answering;
use maru_protocol::auth::StateSlot;
use maru_protocol::event::Event;
use maru_protocol::gap::{Answer, Question};
use maru_protocol::state::{State, StateNid};
use maru_protocol::wire::answer::Part;
use maru_protocol::wire::limits::{MAX_AUTH_CHAIN, MAX_EVENT_IDS, MAX_STATE_BYTES, MAX_STATE_IDS};
use maru_protocol::wire::request::Call;
use maru_protocol::wire::request::state::{self, Extent, StateIds};
use ruma::{EventId, OwnedEventId, ServerName};

use super::event_fetcher::{SPARE_PARTS, bytes_of};
use crate::peers::backfill::event_fetcher::EventFetcher;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::drop_counters::DropCounters;
use crate::peers::inbound::drop_counters::Dropped;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::request_handlers::{Change, state_around};
use crate::peers::rpc_client::RpcClient;
use crate::peers::rpc_client::refusal;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// Most generations of auth events that are fetched for a remote state.
const MOST_GENERATIONS: usize = 40;

/// Bytes of them after which no more are: 8 MiB.
const MOST_ALLOWING_BYTES: usize = 8 * 1024 * 1024;

/// The part of a remote state that is still to come, by what the peer announced.
struct Left {
    /// Events of the state and its chain, and parts without events.
    items: u64,
    bytes: usize,
}

impl Left {
    /// What a state that is announced like this may have. None for one that is too large, or of which nothing is said.
    fn of(announced: Option<Extent>) -> Option<Self> {
        let Extent { state, chain } = announced?;
        let fits = state <= MAX_STATE_IDS as u64 && chain <= MAX_AUTH_CHAIN as u64;
        fits.then_some(Self {
            items: state + chain + SPARE_PARTS as u64,
            bytes: MAX_STATE_BYTES,
        })
    }

    /// Takes off what a part holds. None where that is more than was announced.
    fn without(&self, part: &Part) -> Option<Self> {
        let bytes = bytes_of(part)?;
        Some(Self {
            items: self.items.checked_sub(part.events.len().max(1) as u64)?,
            bytes: self.bytes.checked_sub(bytes)?,
        })
    }
}

/// An event whose state is known here: the states at others are requested as what differs from it.
pub(in crate::peers) struct ReferenceState {
    id: OwnedEventId,
    /// The state after the event, and what to change in it for the one before.
    after: State,
    back: Option<Change>,
}

/// The client for states of a room.
#[derive(Debug)]
pub(in crate::peers) struct StateFetcher {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    drops: Arc<DropCounters>,
    fetcher: Arc<EventFetcher>,
}

impl StateFetcher {
    pub(in crate::peers) fn new(dependencies: &Dependencies, fetcher: Arc<EventFetcher>) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            drops: Arc::clone(&dependencies.drops),
            fetcher,
        }
    }

    /// Reads an answer that carries a state with its auth chain, and keeps the events as they come: while one part is
    /// stored, the next is read and verified. Those that do not verify, or come before what allows them, are left out.
    ///
    /// # Errors
    /// What the peer says, that it sends too much, or that the database fails.
    pub(in crate::peers) async fn read_state<C: Call>(
        &self,
        mut answer: Answering<C>,
        format: RoomFormat<'_>,
        room: i64,
    ) -> Result<C::Done, Refusal> {
        let peer = answer.peer().clone();
        let (mut left, mut kept) = (None, Vec::new());
        loop {
            let keep = self
                .fetcher
                .keep_outliers(format, room, std::mem::take(&mut kept));
            let read = async {
                let part = answer.part().await.map_err(|error| refusal(&peer, error))?;
                let Some(part) = part else { return Ok(None) };
                let before = left.take().or_else(|| Left::of(part.extent));
                left = before.and_then(|left: Left| left.without(&part));
                if left.is_none() {
                    self.drops.count(&Dropped::TooMuch);
                    return Err(Refusal::forbidden(format!(
                        "{peer} tells a state that is too large, or larger than it said"
                    )));
                }
                self.fetcher.verified_part(&peer, format, part).await.map(Some)
            };
            let (keep, read) = tokio::join!(keep, read);
            keep?;
            match read? {
                Some(events) => kept = events,
                None => break,
            }
        }
        answer.done().await.map_err(|error| refusal(&peer, error))
    }

    /// The reference that an event here gives; none where its state is not known.
    pub(in crate::peers) async fn reference_at(
        &self,
        event: &StoredEvent,
    ) -> Result<Option<ReferenceState>, Refusal> {
        let around = state_around(&self.store, event).await?;
        Ok(around.map(|(after, back)| ReferenceState {
            id: event.event.id.clone(),
            after,
            back,
        }))
    }

    /// The state before an event by a peer, its events stored here. Where it comes as what differs from a state
    /// that is here, only that is fetched.
    ///
    /// # Errors
    /// What the peer says, or that what it sends is no state.
    pub(in crate::peers) async fn state_at(
        &self,
        room: &Room,
        peer: &ServerName,
        at: &EventId,
        reference: Option<&ReferenceState>,
    ) -> Result<State, Refusal> {
        let remote = self.request_state(room, peer, at, reference).await?;
        if let (Some(difference), Some(reference)) = (&remote.difference, reference) {
            let filled = usize::try_from(difference.filled).unwrap_or(usize::MAX);
            let state = self
                .with_difference(room, peer, reference, &remote.state, &difference.gone)
                .await?;
            if state.entries().len() == filled {
                return Ok(state);
            }
            tracing::debug!(%peer, room = %room.room_id, "a state that differs from one that is another here");
            return self.whole_state_at(room, peer, at).await;
        }
        self.rooms.join_importer.state_of(room.nid, &remote.state).await
    }

    async fn whole_state_at(&self, room: &Room, peer: &ServerName, at: &EventId) -> Result<State, Refusal> {
        let remote = self.request_state(room, peer, at, None).await?;
        self.rooms.join_importer.state_of(room.nid, &remote.state).await
    }

    /// Asks for a state and keeps its events. What comes back are those that are the state, or that differ.
    pub(in crate::peers) async fn request_state(
        &self,
        room: &Room,
        peer: &ServerName,
        at: &EventId,
        reference: Option<&ReferenceState>,
    ) -> Result<StateIds, Refusal> {
        let call = state::State {
            room_id: room.room_id.clone(),
            at: at.to_owned(),
            beside: reference.map(|reference| reference.id.clone()),
        };
        let answer = self.rpc.request_stream(peer, call).await?;
        self.read_state(answer, RoomFormat::of(room), room.nid).await
    }

    /// A state that is here, with some slots changed by a peer's answer.
    async fn with_difference(
        &self,
        room: &Room,
        peer: &ServerName,
        reference: &ReferenceState,
        there: &[OwnedEventId],
        gone: &[OwnedEventId],
    ) -> Result<State, Refusal> {
        let there = self.with_auth_events(room, peer, there).await?;
        let there = there.iter().map(|stored| (stored, Some(stored.nid)));
        let gone = self.events_here(room, gone).await?;
        let gone = gone.iter().map(|stored| (stored, None));
        let slots = there
            .chain(gone)
            .filter_map(|(stored, event)| Some((StateSlot::of(&stored.event)?.hash(), event)));
        let slots = reference.back.into_iter().chain(slots);
        Ok(reference.after.with(StateNid(self.store.log.next_nid()), slots))
    }

    /// Events that a peer names as part of a state, from the store. Those that could not be kept, because what allows them
    /// is not here either, are fetched with it.
    async fn with_auth_events(
        &self,
        room: &Room,
        peer: &ServerName,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let here = self.events_here(room, ids).await?;
        let missing = ids
            .iter()
            .filter(|id| !here.iter().any(|stored| stored.event.id == **id));
        let missing: Vec<_> = missing.take(MAX_EVENT_IDS).cloned().collect();
        if missing.is_empty() {
            return Ok(here);
        }
        let fetched = self.fetcher.events(room, peer, missing).await?;
        let events = fetched.into_iter().map(|event| (event.id.clone(), event));
        let events = events.collect();
        self.fetch_auth_events(room, peer, &events).await?;
        let events = events.into_values().collect();
        self.fetcher
            .keep_outliers(RoomFormat::of(room), room.nid, events)
            .await?;
        self.events_here(room, ids).await
    }

    async fn events_here(&self, room: &Room, ids: &[OwnedEventId]) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let mut events = self.store.rooms.events_by_id(ids).await?;
        events.retain(|stored| stored.room == room.nid);
        Ok(events)
    }

    /// Fetches the auth events of a remote state that are neither in it nor here.
    async fn fetch_auth_events(
        &self,
        room: &Room,
        peer: &ServerName,
        remote: &HashMap<OwnedEventId, Arc<Event>>,
    ) -> Result<(), Refusal> {
        let mut fetched: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        let mut looking = remote.clone();
        for _ in 0..MOST_GENERATIONS {
            let named = looking.values().flat_map(|event| event.auth_events.iter());
            let named = named.filter(|id| !remote.contains_key(*id) && !fetched.contains_key(*id));
            let named: HashSet<OwnedEventId> = named.cloned().collect();
            let here = self
                .store
                .rooms
                .events_by_id(named.iter().map(ToString::to_string).collect())
                .await?;
            let here: HashSet<&OwnedEventId> = here.iter().map(|stored| &stored.event.id).collect();
            let missing = named.iter().filter(|id| !here.contains(id));
            let missing: Vec<OwnedEventId> = missing.take(MAX_EVENT_IDS).cloned().collect();
            let bytes: usize = fetched.values().map(|event| event.json.len()).sum();
            if missing.is_empty() || bytes >= MOST_ALLOWING_BYTES {
                break;
            }
            let events = self.fetcher.events(room, peer, missing).await?;
            if events.is_empty() {
                break;
            }
            looking = events
                .into_iter()
                .map(|event| (event.id.clone(), event))
                .collect();
            fetched.extend(looking.clone());
        }
        if fetched.is_empty() {
            return Ok(());
        }
        let events = fetched.into_values().collect();
        self.fetcher
            .keep_outliers(RoomFormat::of(room), room.nid, events)
            .await
    }

    /// What a gap machine wants to know of a peer.
    ///
    /// # Errors
    /// What the peer says, that it sends too much, or that the database fails.
    pub(in crate::peers) async fn answer(
        &self,
        room: &Room,
        peer: &ServerName,
        question: Question,
    ) -> Result<Answer, Refusal> {
        let mut answer = Answer::default();
        match question {
            Question::Ancestors(latest) => answer.events = self.fetcher.ancestors(room, peer, latest).await?,
            Question::Events(ids) => answer.events = self.fetcher.events(room, peer, ids).await?,
            Question::Past(from) => answer.events = self.fetcher.past(room, peer, from).await?,
            // The events of a state are kept as they come.
            Question::State(at) => answer.state = self.request_state(room, peer, &at, None).await?.state,
        }
        Ok(answer)
    }
}
