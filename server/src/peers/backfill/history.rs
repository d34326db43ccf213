//! Backfill (`/backfill` of the server-server API): gaps in a room's timeline, from before this server had it or from while it
//! was away, are filled a page at a time.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::gap::backfill::{Effect, Page};
use maru_protocol::gap::{Answer, Offer, Question, patience};
use maru_protocol::state::State;
use maru_protocol::wire::request::history::Events;
use ruma::{EventId, OwnedEventId};
use tokio::time::{Instant, timeout_at};

use super::remote_state::ReferenceState;
use crate::peers::backfill::event_fetcher::EventFetcher;
use crate::peers::backfill::pages::PagesUnderWay;
use crate::peers::backfill::remote_state::StateFetcher;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::ingest::Incoming;
use crate::store::Store;
use crate::store::rooms::events::Direction;
use crate::store::rooms::gaps::Gap;
use crate::tasks::Tasks;

/// How often a page of the past is offered to the room, which other nodes write into as well.
const MOST_TRIES: u32 = 3;

/// Most servers that are asked whether there is such an event.
const MOST_SERVERS: usize = 4;

/// Most pages that are fetched to reach one event.
const MOST_PAGES: usize = 20;

/// The filling of gaps in timelines, page by page.
#[derive(Debug)]
pub(in crate::peers) struct Backfill {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    fetcher: Arc<EventFetcher>,
    states: Arc<StateFetcher>,
    pages: PagesUnderWay,
    tasks: Arc<Tasks>,
}

impl Backfill {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        fetcher: Arc<EventFetcher>,
        states: Arc<StateFetcher>,
    ) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            fetcher,
            states,
            pages: PagesUnderWay::default(),
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// The newest gap in what is here of a room; none where history is whole.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn newest_gap(&self, room: &Room) -> Result<Option<Gap>, Refusal> {
        self.rooms.gaps.gap_back_from(room, Place(i64::MAX)).await
    }

    /// Fetches a page of what is missing in a gap, so that clients can read on: by a task of its own, which goes on when the
    /// caller is gone. Answers whether there is more to read than before.
    ///
    /// # Errors
    /// When nobody in the room gives it in time.
    pub(in crate::peers) async fn page(
        self: &Arc<Self>,
        room: &Arc<Room>,
        gap: &Gap,
    ) -> Result<bool, Refusal> {
        loop {
            let (mut page, fetching) = self.pages.join(&room.room_id, gap.before);
            if let Some(fetching) = fetching {
                let (backfill, room, gap) = (Arc::clone(self), Arc::clone(room), gap.clone());
                drop(self.tasks.finish("history_page", async move {
                    let outcome = backfill.fetch_page(&room, &gap).await;
                    fetching.end(outcome);
                }));
            }
            let outcome = page.ended().await;
            if page.before == gap.before {
                return outcome;
            }
            // Another gap of the room, whose page may have been ended by an error: this one's turn is next.
        }
    }

    /// Like [`Backfill::page`], for somebody who waits until `deadline` and no longer. False where nothing came.
    pub(in crate::peers) async fn page_by(
        self: &Arc<Self>,
        room: &Arc<Room>,
        gap: &Gap,
        deadline: Instant,
    ) -> bool {
        let page = timeout_at(deadline, self.page(room, gap)).await;
        matches!(page, Ok(Ok(true)))
    }

    async fn fetch_page(&self, room: &Arc<Room>, gap: &Gap) -> Result<bool, Refusal> {
        let (begun, gap) = match self.rooms.gaps.gap_back_from(room, gap.before).await? {
            Some(now) if now.before == gap.before => (std::time::Instant::now(), now),
            // Somebody else has fetched it meanwhile.
            _ => return Ok(true),
        };
        let (mut page, mut effect) =
            Page::before(gap.missing.clone(), self.fetcher.candidates_in(room, None));
        let reference = self.reference_after(room, &gap).await?;
        let (mut states, mut last) = (HashMap::new(), None);
        loop {
            effect = match effect {
                Effect::Ask(peer, question) => {
                    let patience = patience(&question, begun.elapsed());
                    let answer = match question {
                        Question::State(edge) => {
                            let state = self.states.state_at(room, &peer, &edge, reference.as_ref());
                            let state = self.fetcher.in_time(&peer, patience, state).await;
                            state.map(|state| {
                                states.insert(edge, state);
                                // Its events are kept already.
                                Answer::default()
                            })
                        }
                        question => {
                            self.fetcher
                                .in_time(&peer, patience, self.states.answer(room, &peer, question))
                                .await
                        }
                    };
                    match answer {
                        Ok(answer) => page.answered(answer),
                        Err(refusal) => {
                            tracing::debug!(%peer, room = %room.room_id, %refusal, "no past from a server");
                            last = Some(refusal);
                            page.refused()
                        }
                    }
                }
                Effect::LookUp(ids) => {
                    let here = self.fetcher.here(room, &ids).await?;
                    page.found(ids, &here)
                }
                Effect::Keep(events) => {
                    self.fetcher
                        .keep_outliers(RoomFormat::of(room), room.nid, events)
                        .await?;
                    page.kept()
                }
                Effect::TakeIn(offers) => {
                    let past = offers.into_iter().map(|offer| past_of(offer, &mut states));
                    match self.take_in(room, &gap, past.collect()).await? {
                        Some(is_new) => page.taken(is_new),
                        None => return Ok(true),
                    }
                }
                Effect::Filled => return Ok(true),
                Effect::GivenUp => return last.map_or(Ok(false), Err),
            };
        }
    }

    /// Takes a page into its gap, again where another node was faster in the room. Whether any of it was new; nothing where the
    /// gap is not there any more, because another node has filled it.
    async fn take_in(
        &self,
        room: &Arc<Room>,
        gap: &Gap,
        past: Vec<Incoming>,
    ) -> Result<Option<bool>, Refusal> {
        let mut tries = 0;
        loop {
            let taken = {
                let lock = self.rooms.ingest_locks.lock(&room.room_id).await;
                self.rooms
                    .ingest
                    .ingest_page(&lock, room, gap, past.clone())
                    .await
            };
            tries += 1;
            match taken {
                Ok(is_new) => return Ok(Some(is_new)),
                Err(refusal) if tries == MOST_TRIES => return Err(refusal),
                Err(refusal) => tracing::debug!(room = %room.room_id, %refusal, "a page is taken in again"),
            }
            let now = self.rooms.gaps.gap_back_from(room, gap.before).await?;
            if now.is_none_or(|now| now.before != gap.before) {
                return Ok(None);
            }
        }
    }

    /// The event after a gap, whose state is the reference for those of the past: they differ in what a page changed, and the
    /// whole state of a large room comes once and not with every page.
    async fn reference_after(&self, room: &Room, gap: &Gap) -> Result<Option<ReferenceState>, Refusal> {
        let after = self
            .store
            .rooms
            .timeline(room.nid, gap.before, Direction::Forward, 1)
            .await?;
        match after.first() {
            Some(event) => self.states.reference_at(event).await,
            None => Ok(None),
        }
    }

    /// Fetches a room's past back to an event that somebody asks for, until `deadline`. Answers whether it is here then.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::peers) async fn reach(
        self: &Arc<Self>,
        room: &Arc<Room>,
        event_id: &EventId,
        deadline: Instant,
    ) -> Result<bool, Refusal> {
        let Some(mut gap) = self.newest_gap(room).await? else {
            return Ok(false);
        };
        let exists = timeout_at(deadline, self.exists(room, event_id)).await;
        if !exists.unwrap_or(false) {
            return Ok(false);
        }
        for _ in 0..MOST_PAGES {
            let is_filled = self.page_by(room, &gap, deadline).await;
            let stored = self.store.rooms.event(event_id).await?;
            if stored.is_some_and(|stored| stored.place.is_some()) {
                return Ok(true);
            }
            // What the page did not bring lies before it, or in an earlier gap.
            let from = if is_filled {
                gap.before
            } else {
                Place(gap.before.0 - 1)
            };
            match self.rooms.gaps.gap_back_from(room, from).await? {
                Some(next) => gap = next,
                None => break,
            }
        }
        Ok(false)
    }

    /// Whether a server in the room has an event, so that ids that clients make up do not fetch whole histories.
    async fn exists(&self, room: &Arc<Room>, event_id: &EventId) -> bool {
        for server in self.fetcher.candidates_in(room, None).iter().take(MOST_SERVERS) {
            let call = Events {
                room_id: room.room_id.clone(),
                ids: vec![event_id.to_owned()],
            };
            let Ok(answer) = self.rpc.request_stream(server, call).await else {
                continue;
            };
            if let Ok((events, _)) = self.fetcher.read_events(answer, RoomFormat::of(room), 1).await
                && events.iter().any(|event| event.id == event_id)
            {
                return true;
            }
        }
        false
    }
}

/// What a page offers as part of the past; their states are taken from `states`.
fn past_of(offer: Offer, states: &mut HashMap<OwnedEventId, State>) -> Incoming {
    let mut incoming = Incoming::live(offer.event);
    incoming.backfilled = true;
    if offer.told.is_some() {
        incoming.before = states.remove(&incoming.event.id);
    }
    incoming
}
