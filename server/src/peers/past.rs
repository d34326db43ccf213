//! What is missing in a room's timeline, from before this server had it or from while it was away: fetched a page at a
//! time, when somebody reads there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::event::Event;
use maru_protocol::gap::{Question, order};
use maru_protocol::wire::limits::{MAX_EVENT_IDS, MAX_EXTREMITIES};
use maru_protocol::wire::request::history::{Backfill, Events};
use ruma::{EventId, OwnedEventId, ServerName};

use super::Peers;
use super::told_state::Beside;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::Incoming;
use crate::store::events::Direction;
use crate::store::gaps::Gap;

/// Events asked for at once.
pub(super) const AT_ONCE: u32 = 500;

/// Most servers that are asked for one page.
const MOST_SERVERS: usize = 4;

/// Most events of a page whose state before has to be told, because events before them are not in the page.
const MOST_EDGES: usize = 10;

/// Most generations of events that allow those of a page and are fetched for it.
const MOST_GENERATIONS: usize = 40;

/// Bytes of them after which no more are: 8 MiB.
const MOST_ALLOWING_BYTES: usize = 8 * 1024 * 1024;

/// Most pages that are fetched to reach one event.
const MOST_PAGES: usize = 20;

impl Peers {
    /// The newest gap in what is here of a room; none where history is whole.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn newest_gap(&self, room: &Room) -> Result<Option<Gap>, Refusal> {
        self.rooms.gap_back_from(room, Place(i64::MAX)).await
    }

    /// Fetches a page of what is missing in a gap, so that clients can read on. Answers whether there is more to read than
    /// before.
    ///
    /// # Errors
    /// When nobody in the room gives it.
    pub(super) async fn backfill(self: &Arc<Self>, room: &Arc<Room>, gap: &Gap) -> Result<bool, Refusal> {
        let _turn = self.pasts.take(&room.room_id).await;
        let gap = match self.rooms.gap_back_from(room, gap.before).await? {
            Some(now) if now.before == gap.before => now,
            // Somebody else has fetched it while we waited.
            _ => return Ok(true),
        };
        let mut last = Ok(false);
        for server in self.candidates([], Some(room)).iter().take(MOST_SERVERS) {
            match self.backfill_from(room, server, &gap).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(refusal) => {
                    tracing::debug!(%server, %refusal, "no past from a server");
                    last = Err(refusal);
                }
            }
        }
        last
    }

    async fn backfill_from(
        self: &Arc<Self>,
        room: &Arc<Room>,
        peer: &ServerName,
        gap: &Gap,
    ) -> Result<bool, Refusal> {
        let call = Backfill {
            room_id: room.room_id.clone(),
            from: gap.missing.iter().take(MAX_EXTREMITIES).cloned().collect(),
            limit: AT_ONCE,
        };
        let answer = self.ask(peer, call).await?;
        let (events, _) = self
            .read_events(answer, self.subject(room), AT_ONCE as usize)
            .await?;
        let events: HashMap<_, _> = events
            .into_iter()
            .map(|event| (event.id.clone(), event))
            .collect();
        self.fetch_allowing(room, peer, &events).await?;
        let beside = self.after_gap(room, gap).await?;
        let mut placed = Vec::with_capacity(events.len());
        let mut edges = 0;
        for event in order::by_previous(events.values().cloned()) {
            let mut incoming = Incoming::live(Arc::clone(&event));
            incoming.backfilled = true;
            if self.is_edge(room, &event, &events).await? {
                edges += 1;
                if edges > MOST_EDGES {
                    continue;
                }
                let before = self.state_at(room, peer, &event.id, beside.as_ref());
                incoming.before = Some(before.await?);
            }
            placed.push(incoming);
        }
        self.rooms.take_in_past(room, gap, placed).await
    }

    /// The event after a gap, beside whose state those of the past are told: they differ in what a page changed, and the
    /// whole state of a large room comes once and not with every page.
    async fn after_gap(&self, room: &Room, gap: &Gap) -> Result<Option<Beside>, Refusal> {
        let after = self
            .store
            .timeline(room.nid, gap.before, Direction::Forward, 1)
            .await?;
        match after.first() {
            Some(event) => self.beside(event).await,
            None => Ok(None),
        }
    }

    /// Fetches the events that allow those of a page and are neither in it nor here.
    pub(super) async fn fetch_allowing(
        &self,
        room: &Room,
        peer: &ServerName,
        page: &HashMap<OwnedEventId, Arc<Event>>,
    ) -> Result<(), Refusal> {
        let mut fetched: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        let mut looking = page.clone();
        for _ in 0..MOST_GENERATIONS {
            let named = looking.values().flat_map(|event| event.auth_events.iter());
            let named = named.filter(|id| !page.contains_key(*id) && !fetched.contains_key(*id));
            let named: HashSet<OwnedEventId> = named.cloned().collect();
            let here = self
                .store
                .events_by_id(named.iter().map(ToString::to_string).collect())
                .await?;
            let here: HashSet<&OwnedEventId> = here.iter().map(|stored| &stored.event.id).collect();
            let missing = named.iter().filter(|id| !here.contains(id));
            let missing: Vec<OwnedEventId> = missing.take(MAX_EVENT_IDS).cloned().collect();
            let bytes: usize = fetched.values().map(|event| event.json.len()).sum();
            if missing.is_empty() || bytes >= MOST_ALLOWING_BYTES {
                break;
            }
            let told = self.put(room, peer, Question::Events(missing)).await?;
            if told.events.is_empty() {
                break;
            }
            looking = told
                .events
                .into_iter()
                .map(|event| (event.id.clone(), event))
                .collect();
            fetched.extend(looking.clone());
        }
        if fetched.is_empty() {
            return Ok(());
        }
        let events = fetched.into_values().collect();
        self.rooms.keep_outliers(room.nid, room.version, events).await
    }

    /// Whether the state before an event of a page cannot be worked out from the page and what is here.
    async fn is_edge(
        &self,
        room: &Room,
        event: &Event,
        page: &HashMap<OwnedEventId, Arc<Event>>,
    ) -> Result<bool, Refusal> {
        let elsewhere = event.prev_events.iter().filter(|id| !page.contains_key(*id));
        let elsewhere: Vec<String> = elsewhere.map(ToString::to_string).collect();
        let count = elsewhere.len();
        let here = self.store.events_by_id(elsewhere).await?;
        let with_state = here
            .iter()
            .filter(|stored| stored.room == room.nid && stored.state.is_some());
        Ok(with_state.count() < count)
    }

    /// Fetches a room's past back to an event that somebody asks for. Answers whether it is here then.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn reach(
        self: &Arc<Self>,
        room: &Arc<Room>,
        event_id: &EventId,
    ) -> Result<bool, Refusal> {
        let Some(mut gap) = self.newest_gap(room).await? else {
            return Ok(false);
        };
        if !self.exists(room, event_id).await {
            return Ok(false);
        }
        for _ in 0..MOST_PAGES {
            let is_filled = self.backfill(room, &gap).await.unwrap_or(false);
            let stored = self.store.event(event_id).await?;
            if stored.is_some_and(|stored| stored.place.is_some()) {
                return Ok(true);
            }
            // What the page did not bring lies before it, or in an earlier gap.
            let from = if is_filled {
                gap.before
            } else {
                Place(gap.before.0 - 1)
            };
            match self.rooms.gap_back_from(room, from).await? {
                Some(next) => gap = next,
                None => break,
            }
        }
        Ok(false)
    }

    /// Whether a server in the room has an event, so that ids that clients make up do not fetch whole histories.
    async fn exists(&self, room: &Arc<Room>, event_id: &EventId) -> bool {
        for server in self.candidates([], Some(room)).iter().take(MOST_SERVERS) {
            let call = Events {
                room_id: room.room_id.clone(),
                ids: vec![event_id.to_owned()],
            };
            let Ok(answer) = self.ask(server, call).await else {
                continue;
            };
            if let Ok((events, _)) = self.read_events(answer, self.subject(room), 1).await
                && events.iter().any(|event| event.id == event_id)
            {
                return true;
            }
        }
        false
    }
}
