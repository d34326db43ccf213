//! Filling gaps: events that others have and this server lacks, fetched from whoever has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::event::Event;
use maru_protocol::state::State;
use maru_protocol::wire::request::history::{Backfill, Events, MissingEvents};
use maru_protocol::wire::request::state;
use ruma::{OwnedEventId, OwnedServerName, ServerName};

use super::Peers;
use super::ask::Subject;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};

/// Events asked for at once.
const AT_ONCE: u32 = 200;

/// Most events that one gap is filled with; beyond that the state at its end stands in, and history is left to backfill.
const LARGEST_GAP: usize = 4_000;

/// Most rounds of asking for one gap.
const ROUNDS: usize = 40;

/// Most events of an auth chain and state.
pub(super) const LARGEST_STATE: usize = 250_000;

impl Peers {
    fn subject<'r>(&self, room: &'r Room) -> Subject<'r> {
        Subject {
            room_id: &room.room_id,
            version: room.version,
            max_event_bytes: room.max_event_bytes,
        }
    }

    /// Takes in an event after everything that it names and that is not here.
    ///
    /// # Errors
    /// When nobody gives what is missing.
    pub(super) async fn fill_gap(
        self: &Arc<Self>,
        room: &Arc<Room>,
        peer: &ServerName,
        incoming: Incoming,
    ) -> Result<(), Refusal> {
        let servers = self.candidates([peer.to_owned()], Some(room));
        let mut last = Refusal::Unavailable("no other server is in the room".into());
        for server in servers.iter().take(4) {
            match self.fill_gap_from(room, server, incoming.clone()).await {
                Ok(()) => return Ok(()),
                Err(refusal) => last = refusal,
            }
        }
        Err(last)
    }

    async fn fill_gap_from(
        self: &Arc<Self>,
        room: &Arc<Room>,
        peer: &ServerName,
        incoming: Incoming,
    ) -> Result<(), Refusal> {
        let gap = self.ancestors(room, peer, &incoming.event).await?;
        for event in gap {
            self.take_in_with_help(room, peer, Incoming::live(event)).await?;
        }
        self.take_in_with_help(room, peer, incoming).await
    }

    /// The ancestors of an event that are not here, oldest first.
    async fn ancestors(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        event: &Arc<Event>,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let mut found: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        let mut open = vec![Arc::clone(event)];
        for _ in 0..ROUNDS {
            let lacking = self.lacking(&open, &found).await?;
            if lacking.is_empty() || found.len() >= LARGEST_GAP {
                break;
            }
            let named = |event: &&Arc<Event>| event.prev_events.iter().any(|id| lacking.contains(id));
            let latest: Vec<OwnedEventId> = open
                .iter()
                .filter(named)
                .map(|event| event.id.clone())
                .take(100)
                .collect();
            let call = MissingEvents {
                room_id: room.room_id.clone(),
                earliest: room.head().extremities.iter().map(|tip| tip.id.clone()).collect(),
                latest,
                limit: AT_ONCE,
            };
            let answer = self.ask(peer, call).await?;
            let (events, _) = self
                .read_events(answer, self.subject(room), AT_ONCE as usize)
                .await?;
            let fresh: Vec<_> = events
                .into_iter()
                .filter(|event| !found.contains_key(&event.id))
                .collect();
            if fresh.is_empty() {
                break;
            }
            found.extend(fresh.iter().map(|event| (event.id.clone(), Arc::clone(event))));
            open = fresh;
        }
        Ok(oldest_first(found))
    }

    /// Those previous events of `events` that are neither here nor among `found`.
    async fn lacking(
        &self,
        events: &[Arc<Event>],
        found: &HashMap<OwnedEventId, Arc<Event>>,
    ) -> Result<HashSet<OwnedEventId>, Refusal> {
        let named = events.iter().flat_map(|event| event.prev_events.iter());
        let mut lacking: HashSet<OwnedEventId> =
            named.filter(|id| !found.contains_key(*id)).cloned().collect();
        let ids = lacking.iter().map(ToString::to_string).collect();
        for stored in self.store.events_by_id(ids).await? {
            if stored.state.is_some() {
                lacking.remove(&stored.event.id);
            }
        }
        Ok(lacking)
    }

    /// Takes in one event; what it lacks is fetched: auth events one by one, the state at it where its ancestors are out
    /// of reach.
    async fn take_in_with_help(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        mut incoming: Incoming,
    ) -> Result<(), Refusal> {
        for _ in 0..3 {
            let taken = self.rooms.take_in(room, vec![incoming.clone()]).await?;
            let lacks = match taken.into_iter().next() {
                Some(Taken::Lacks {
                    prev_events,
                    auth_events,
                }) => (prev_events, auth_events),
                _ => return Ok(()),
            };
            if !lacks.1.is_empty() {
                self.fetch_auth(room, peer, lacks.1).await?;
            }
            if !lacks.0.is_empty() {
                incoming.before = Some(self.state_at(room, peer, &incoming.event.id).await?);
            }
        }
        Err(Refusal::Unavailable(format!(
            "{peer} does not give what an event lacks"
        )))
    }

    /// Fetches auth events with what they name in turn.
    async fn fetch_auth(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        ids: Vec<OwnedEventId>,
    ) -> Result<(), Refusal> {
        let mut events: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        let mut open = ids;
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            open.truncate(maru_protocol::wire::limits::MAX_EVENT_IDS);
            let call = Events {
                room_id: room.room_id.clone(),
                ids: open,
            };
            let answer = self.ask(peer, call).await?;
            let (fresh, _) = self.read_events(answer, self.subject(room), LARGEST_GAP).await?;
            let named: HashSet<OwnedEventId> = fresh
                .iter()
                .flat_map(|event| event.auth_events.iter().cloned())
                .collect();
            if fresh.is_empty() {
                break;
            }
            events.extend(fresh.into_iter().map(|event| (event.id.clone(), event)));
            let here = self
                .store
                .events_by_id(named.iter().map(ToString::to_string).collect())
                .await?;
            let here: HashSet<_> = here.iter().map(|stored| stored.event.id.clone()).collect();
            open = named
                .into_iter()
                .filter(|id| !here.contains(id) && !events.contains_key(id))
                .collect();
        }
        self.rooms
            .keep_outliers(room.nid, room.version, events.into_values().collect())
            .await
    }

    /// The state before an event, as a peer tells it.
    async fn state_at(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        at: &OwnedEventId,
    ) -> Result<State, Refusal> {
        let call = state::State {
            room_id: room.room_id.clone(),
            at: at.clone(),
        };
        let answer = self.ask(peer, call).await?;
        let (events, done) = self
            .read_events(answer, self.subject(room), LARGEST_STATE)
            .await?;
        self.rooms.keep_outliers(room.nid, room.version, events).await?;
        self.rooms.state_from(room.nid, &done.state).await
    }

    /// Compares where a peer's replicas end with this server's, and fetches what is not here.
    pub(super) async fn close_gaps(
        self: &Arc<Self>,
        peer: &ServerName,
        room_id: ruma::OwnedRoomId,
        extremities: Vec<OwnedEventId>,
    ) -> Result<(), Refusal> {
        let Ok(room) = self.rooms.room(&room_id).await else {
            return Ok(());
        };
        if !room.head().servers.contains_key(&self.identity.server_name) {
            return Ok(());
        }
        let ids: Vec<String> = extremities.iter().map(ToString::to_string).collect();
        let here: HashSet<_> = self
            .store
            .events_by_id(ids)
            .await?
            .into_iter()
            .filter(|stored| stored.state.is_some())
            .map(|stored| stored.event.id.clone())
            .collect();
        let missing: Vec<_> = extremities.into_iter().filter(|id| !here.contains(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let call = Events {
            room_id: room_id.clone(),
            ids: missing,
        };
        let answer = self.ask(peer, call).await?;
        let (events, _) = self.read_events(answer, self.subject(&room), LARGEST_GAP).await?;
        for event in events {
            self.fill_gap(&room, peer, Incoming::live(event)).await?;
        }
        Ok(())
    }

    /// Fetches a page of a room's past from before the earliest event that is here, so that clients can read on. Answers
    /// whether anything came.
    ///
    /// # Errors
    /// When nobody in the room gives it.
    pub async fn backfill(self: &Arc<Self>, room: &Arc<Room>, limit: u32) -> Result<bool, Refusal> {
        let Some(earliest) = self.earliest(room).await? else {
            return Ok(false);
        };
        let mut last = Ok(false);
        for server in self.candidates([], Some(room)).iter().take(4) {
            match self.backfill_from(room, server, &earliest, limit).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(refusal) => last = Err(refusal),
            }
        }
        last
    }

    /// The earliest event of the timeline, unless it is the room's first.
    async fn earliest(&self, room: &Arc<Room>) -> Result<Option<Arc<Event>>, Refusal> {
        use crate::store::events::Direction;
        let first = room.head().first_place;
        let page = self
            .store
            .timeline(room.nid, first, Direction::Forward, 1)
            .await?;
        let event = page.first().map(|stored| Arc::clone(&stored.event));
        Ok(event.filter(|event| !event.prev_events.is_empty()))
    }

    async fn backfill_from(
        self: &Arc<Self>,
        room: &Arc<Room>,
        peer: &OwnedServerName,
        earliest: &Arc<Event>,
        limit: u32,
    ) -> Result<bool, Refusal> {
        let call = Backfill {
            room_id: room.room_id.clone(),
            from: earliest.prev_events.clone(),
            limit,
        };
        let answer = self.ask(peer, call).await?;
        let (events, _) = self
            .read_events(answer, self.subject(room), limit as usize)
            .await?;
        let events: HashMap<_, _> = events
            .into_iter()
            .map(|event| (event.id.clone(), event))
            .collect();
        let events = oldest_first(events);
        let Some(oldest) = events.first() else {
            return Ok(false);
        };
        let mut before = match oldest.prev_events.is_empty() {
            true => Some(State::default()),
            false => Some(self.state_at(room, peer, &oldest.id).await?),
        };
        let mut placed = Vec::with_capacity(events.len());
        for event in events {
            placed.push(Incoming {
                event,
                inbox: None,
                before: before.take(),
                backfilled: true,
                own: false,
            });
        }
        self.rooms.take_in_past(room, placed).await
    }
}

/// Events in an order in which each comes after those it names.
fn oldest_first(events: HashMap<OwnedEventId, Arc<Event>>) -> Vec<Arc<Event>> {
    let mut ordered: Vec<Arc<Event>> = Vec::with_capacity(events.len());
    let mut entered = HashSet::new();
    let mut done = HashSet::new();
    let mut starts: Vec<_> = events.values().collect();
    starts.sort_by(|one, other| (one.depth, &one.id).cmp(&(other.depth, &other.id)));
    for start in starts {
        let mut open = vec![start.id.clone()];
        while let Some(id) = open.last().cloned() {
            let Some(event) = events.get(&id).filter(|_| !done.contains(&id)) else {
                open.pop();
                continue;
            };
            if entered.insert(id.clone()) {
                open.extend(
                    event
                        .prev_events
                        .iter()
                        .filter(|id| events.contains_key(*id))
                        .cloned(),
                );
            } else {
                open.pop();
                done.insert(id);
                ordered.push(Arc::clone(event));
            }
        }
    }
    ordered
}
