//! Filling gaps in the event graph, from the forward extremities to what is missing before an event.

use std::sync::Arc;
use std::time::Instant;

use maru_protocol::gap::{self, Effect, Gap, Offer};
use ruma::{OwnedEventId, ServerName};

use crate::peers::backfill::event_fetcher::EventFetcher;
use crate::peers::backfill::remote_state::StateFetcher;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::ingestor::Ingestor;
use crate::peers::inbound::verify::RoomFormat;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::ingest::{Incoming, IngestResult};

/// What a gap is filled for.
struct Filling<'a> {
    room: &'a Arc<Room>,
    /// The event that has a row in the inbox, which goes with it.
    target: Option<Incoming>,
    /// Whether anything was taken in.
    moved: bool,
}

/// The driver of [gap machines](maru_protocol::gap): runs their effects on the database and the peers.
#[derive(Debug)]
pub(in crate::peers) struct GapFiller {
    rooms: Arc<Rooms>,
    fetcher: Arc<EventFetcher>,
    states: Arc<StateFetcher>,
    ingestor: Arc<Ingestor>,
}

impl GapFiller {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        fetcher: Arc<EventFetcher>,
        states: Arc<StateFetcher>,
        ingestor: Arc<Ingestor>,
    ) -> Self {
        Self {
            rooms: Arc::clone(&dependencies.rooms),
            fetcher,
            states,
            ingestor,
        }
    }

    /// Takes in an event after everything that it names and that is not here.
    ///
    /// # Errors
    /// When nobody gives what is missing, or the database fails.
    pub(in crate::peers) async fn fill_before(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        incoming: Incoming,
    ) -> Result<(), Refusal> {
        let gap = Gap::before(
            Arc::clone(&incoming.event),
            self.fetcher.candidates_in(room, Some(peer)),
        );
        let filling = Filling {
            room,
            target: Some(incoming),
            moved: false,
        };
        self.run(gap, filling).await.map(drop)
    }

    /// Compares where a peer's replica ends with this server's, and fetches what is not here. Answers whether anything was.
    ///
    /// # Errors
    /// When nobody gives what is missing, or the database fails.
    pub(in crate::peers) async fn fill_up_to(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        extremities: Vec<OwnedEventId>,
    ) -> Result<bool, Refusal> {
        let gap = Gap::up_to(extremities, self.fetcher.candidates_in(room, Some(peer)));
        let filling = Filling {
            room,
            target: None,
            moved: false,
        };
        self.run(gap, filling).await
    }

    /// Runs the effects of a gap on this server's database and its peers. Answers whether anything was taken in.
    async fn run(
        &self,
        (mut gap, mut effect): (Gap, Effect),
        mut filling: Filling<'_>,
    ) -> Result<bool, Refusal> {
        let begun = Instant::now();
        loop {
            effect = match effect {
                Effect::LookUp(ids) => {
                    let here = self.fetcher.here(filling.room, &ids).await?;
                    gap.found(ids, &here)
                }
                Effect::Ask(peer, question) => {
                    let patience = gap::patience(&question, begun.elapsed());
                    let answer = self.states.answer(filling.room, &peer, question);
                    match self.fetcher.in_time(&peer, patience, answer).await {
                        Ok(answer) => gap.answered(answer),
                        Err(refusal) => {
                            tracing::debug!(%peer, room = %filling.room.room_id, %refusal, "a peer does not help with a gap");
                            gap.refused()
                        }
                    }
                }
                Effect::Keep(events) => {
                    let format = RoomFormat::of(filling.room);
                    self.fetcher
                        .keep_outliers(format, filling.room.nid, events)
                        .await?;
                    gap.kept()
                }
                Effect::TakeIn(offer) => match self.offer(&mut filling, offer).await? {
                    Some(taken) => gap.taken(taken),
                    None => gap.refused(),
                },
                Effect::Filled => return Ok(filling.moved),
                Effect::GivenUp => {
                    return Err(Refusal::Unavailable("nobody gives what a gap lacks".into()));
                }
            }
        }
    }

    /// Takes in one event that a gap offers; none where the state that a peer sent for it is none.
    async fn offer(&self, filling: &mut Filling<'_>, offer: Offer) -> Result<Option<gap::Taken>, Refusal> {
        let target = filling.target.clone();
        let mut incoming = target
            .filter(|target| target.event.id == offer.event.id)
            .unwrap_or_else(|| Incoming::live(offer.event));
        if let Some(state) = offer.told {
            match self.rooms.join_importer.state_of(filling.room.nid, &state).await {
                Ok(before) => incoming.before = Some(before),
                Err(Refusal::Forbidden(_)) => return Ok(None),
                Err(refusal) => return Err(refusal),
            }
        }
        let taken = self.ingestor.take_in(filling.room, vec![incoming]).await?;
        Ok(Some(match taken.into_iter().next() {
            Some(IngestResult::Lacks {
                prev_events,
                auth_events,
            }) => gap::Taken::Lacks {
                prev_events,
                auth_events,
            },
            taken => {
                filling.moved |= matches!(taken, Some(IngestResult::Stored(_)));
                gap::Taken::Settled
            }
        }))
    }
}
