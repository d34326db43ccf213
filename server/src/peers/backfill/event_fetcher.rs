//! Events of a room as other servers send them on request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maru_federation::pool::Answering;
use maru_protocol::event::Event;
use maru_protocol::gap::backfill::PAGE;
use maru_protocol::gap::{AT_ONCE, Here, LARGEST_GAP};
use maru_protocol::ingest::Outcome;
use maru_protocol::wire::answer::Part;
use maru_protocol::wire::limits::{MAX_ANSWER_BYTES, MAX_EXTREMITIES, MAX_PART_BYTES};
use maru_protocol::wire::request::Call;
use maru_protocol::wire::request::history::{Backfill, Events, MissingEvents};
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use tokio::time::timeout;

use crate::peers::backfill::unresponsive::Unresponsive;
use crate::peers::dependencies::Dependencies;
use crate::peers::identity::known_servers::KnownServers;
use crate::peers::inbound::drop_counters::DropCounters;
use crate::peers::inbound::drop_counters::Dropped;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::membership::room_resolution::RoomResolver;
use crate::peers::rpc_client::RpcClient;
use crate::peers::rpc_client::refusal;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::Store;

/// Parts of an answer that may hold no event, such as those with records alone.
pub(in crate::peers) const SPARE_PARTS: usize = 100;

/// The client for events of a room: whom to ask, what to ask, and the events of answers, verified.
#[derive(Debug)]
pub(in crate::peers) struct EventFetcher {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
    verifier: Arc<EventVerifier>,
    drops: Arc<DropCounters>,
    resolver: Arc<RoomResolver>,
    unresponsive: Unresponsive,
}

impl EventFetcher {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            servers: Arc::clone(&dependencies.servers),
            rpc: Arc::clone(&dependencies.rpc),
            verifier: Arc::clone(&dependencies.verifier),
            drops: Arc::clone(&dependencies.drops),
            resolver: Arc::clone(&dependencies.resolver),
            unresponsive: Unresponsive::default(),
        }
    }

    /// Servers in a room, in the order in which they are asked: `first`, then those that are connected, last those that did
    /// not answer lately.
    pub(in crate::peers) fn candidates_in(
        &self,
        room: &Room,
        first: Option<&ServerName>,
    ) -> Vec<OwnedServerName> {
        let (now, mut servers) = (
            Instant::now(),
            self.resolver.candidates(first.map(ToOwned::to_owned), Some(room)),
        );
        servers.sort_by_cached_key(|name| {
            let is_first = first.is_some_and(|first| first == *name);
            (
                !is_first,
                self.unresponsive.is(name, now),
                !self.rpc.is_connected(name),
            )
        });
        servers
    }

    /// Waits for a peer's answer for so long and no longer, and remembers whether it helped.
    pub(in crate::peers) async fn in_time<T>(
        &self,
        peer: &ServerName,
        patience: Duration,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let answer = timeout(patience, answer).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Refusal::Unavailable(format!("{peer} does not answer in time"))));
        let answered = !matches!(answer, Err(Refusal::Unavailable(_)));
        self.unresponsive.note(peer, answered, Instant::now());
        answer
    }

    /// Which of some events are here, and which stand at a gap of the timeline.
    pub(in crate::peers) async fn here(
        &self,
        room: &Room,
        ids: &BTreeSet<OwnedEventId>,
    ) -> Result<Here, Refusal> {
        let mut here = Here::default();
        let at_gaps = self.rooms.gaps.missing_at_gaps(room).await?;
        here.at_gaps
            .extend(at_gaps.into_iter().filter(|id| ids.contains(id)));
        let ids = ids.iter().map(ToString::to_string).collect();
        for stored in self.store.rooms.events_by_id(ids).await? {
            if stored.state.is_some() || stored.outcome == Outcome::Rejected {
                here.settled.insert(stored.event.id.clone());
            }
            if stored.state.is_none() {
                here.outliers.insert(stored.event.id.clone());
            }
        }
        Ok(here)
    }

    /// Events before some, as far as the forward extremities of this server's replica: at most [`AT_ONCE`].
    ///
    /// # Errors
    /// What the peer says, that it sends too much, or that the database fails.
    pub(in crate::peers) async fn ancestors(
        &self,
        room: &Room,
        peer: &ServerName,
        latest: Vec<OwnedEventId>,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let head = room.head();
        let earliest = head.extremities.iter().map(|tip| tip.id.clone());
        let call = MissingEvents {
            room_id: room.room_id.clone(),
            earliest: earliest.collect(),
            latest,
            limit: AT_ONCE,
        };
        self.request_events(room, peer, call, AT_ONCE as usize).await
    }

    /// Events by their ids.
    ///
    /// # Errors
    /// As [`EventFetcher::ancestors`].
    pub(in crate::peers) async fn events(
        &self,
        room: &Room,
        peer: &ServerName,
        ids: Vec<OwnedEventId>,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let room_id = room.room_id.clone();
        self.request_events(room, peer, Events { room_id, ids }, LARGEST_GAP)
            .await
    }

    /// A page of the past before some events, those included.
    ///
    /// # Errors
    /// As [`EventFetcher::ancestors`].
    pub(in crate::peers) async fn past(
        &self,
        room: &Room,
        peer: &ServerName,
        from: Vec<OwnedEventId>,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let call = Backfill {
            room_id: room.room_id.clone(),
            from: from.into_iter().take(MAX_EXTREMITIES).collect(),
            limit: PAGE,
        };
        self.request_events(room, peer, call, PAGE as usize).await
    }

    async fn request_events<C: Call>(
        &self,
        room: &Room,
        peer: &ServerName,
        call: C,
        most: usize,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let answer = self.rpc.request_stream(peer, call).await?;
        let (events, _) = self.read_events(answer, RoomFormat::of(room), most).await?;
        Ok(events)
    }

    /// Reads the events of an answer to its end, all of them into memory; those that do not verify are left out.
    pub(in crate::peers) async fn read_events<C: Call>(
        &self,
        mut answer: Answering<C>,
        format: RoomFormat<'_>,
        most: usize,
    ) -> Result<(Vec<Arc<Event>>, C::Done), Refusal> {
        let peer = answer.peer().clone();
        let too_much = || {
            self.drops.count(&Dropped::TooMuch);
            Refusal::forbidden(format!("{peer} answers with too much"))
        };
        let mut events = Vec::new();
        // What is dropped counts, too: an answer ends some time, whatever it holds.
        let (mut left, mut bytes_left) = (most + SPARE_PARTS, MAX_ANSWER_BYTES);
        while let Some(part) = answer.part().await.map_err(|error| refusal(&peer, error))? {
            let bytes = bytes_of(&part).ok_or_else(too_much)?;
            left = left.checked_sub(part.events.len().max(1)).ok_or_else(too_much)?;
            bytes_left = bytes_left.checked_sub(bytes).ok_or_else(too_much)?;
            events.extend(self.verified_part(&peer, format, part).await?);
        }
        let done = answer.done().await.map_err(|error| refusal(&peer, error))?;
        Ok((events, done))
    }

    /// The events of one part of an answer that verify. The records in it are kept before the events are looked at.
    pub(in crate::peers) async fn verified_part(
        &self,
        peer: &ServerName,
        format: RoomFormat<'_>,
        part: Part,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        self.servers.keep_all(&part.records).await?;
        let mut events = Vec::with_capacity(part.events.len());
        for verified in self.verifier.verify_all(format, part.events).await? {
            match verified {
                Ok(event) => events.push(event),
                Err(why) => {
                    tracing::debug!(%peer, %why, "an event of an answer is dropped");
                    self.drops.count(&why);
                }
            }
        }
        Ok(events)
    }

    /// Stores outliers (events without a place in the graph) of the room with a number. Its inbox may bring the same ones, but not meanwhile: an
    /// event is stored once.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn keep_outliers(
        &self,
        format: RoomFormat<'_>,
        room: i64,
        events: Vec<Arc<Event>>,
    ) -> Result<(), Refusal> {
        let lock = self.rooms.ingest_locks.lock(format.room_id).await;
        self.rooms
            .outliers
            .store_all(&lock, room, format.version, events)
            .await
    }
}

/// The bytes of the events in a part; none where they are more than a part may have.
pub(in crate::peers) fn bytes_of(part: &Part) -> Option<usize> {
    let bytes = part.events.iter().map(|json| json.len()).sum();
    (bytes <= MAX_PART_BYTES).then_some(bytes)
}
