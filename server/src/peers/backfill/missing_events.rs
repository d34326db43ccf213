//! Filling gaps: the effects of [`maru_protocol::gap`], run on this server's database and its peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maru_protocol::gap::backfill::PAGE;
use maru_protocol::gap::{self, AT_ONCE, Answer, Effect, Gap, Here, LARGEST_GAP, Offer, Question};
use maru_protocol::ingest::Outcome;
use maru_protocol::wire::limits::MAX_EXTREMITIES;
use maru_protocol::wire::request::history::{Backfill, Events, MissingEvents};
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use tokio::time::timeout;

use crate::peers::Peers;
use crate::peers::inbound::verify::RoomFormat;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};

/// What a gap is filled for.
struct Drive<'a> {
    room: &'a Arc<Room>,
    /// The event that has a row in the inbox, which goes with it.
    target: Option<Incoming>,
    /// Whether anything was taken in.
    moved: bool,
}

impl Peers {
    /// Takes in an event after everything that it names and that is not here.
    ///
    /// # Errors
    /// When nobody gives what is missing, or the database fails.
    pub(in crate::peers) async fn fill_gap(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        incoming: Incoming,
    ) -> Result<(), Refusal> {
        let gap = Gap::before(Arc::clone(&incoming.event), self.helpers(room, Some(peer)));
        let drive = Drive {
            room,
            target: Some(incoming),
            moved: false,
        };
        self.fill(gap, drive).await.map(drop)
    }

    /// Compares where a peer's replica ends with this server's, and fetches what is not here. Answers whether anything was.
    ///
    /// # Errors
    /// When nobody gives what is missing, or the database fails.
    pub(in crate::peers) async fn close_gaps(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        extremities: Vec<OwnedEventId>,
    ) -> Result<bool, Refusal> {
        let gap = Gap::up_to(extremities, self.helpers(room, Some(peer)));
        let drive = Drive {
            room,
            target: None,
            moved: false,
        };
        self.fill(gap, drive).await
    }

    /// Whom to ask about a room: whoever told of the gap, if somebody did, then those that are connected; last those that
    /// did not help lately.
    pub(in crate::peers) fn helpers(&self, room: &Room, first: Option<&ServerName>) -> Vec<OwnedServerName> {
        let (now, mut servers) = (
            Instant::now(),
            self.candidates(first.map(ToOwned::to_owned), Some(room)),
        );
        servers.sort_by_cached_key(|name| {
            let is_first = first.is_some_and(|first| first == *name);
            (
                !is_first,
                self.unhelpful.is(name, now),
                !self.rpc.is_connected(name),
            )
        });
        servers
    }

    /// Runs the effects of a gap on this server's database and its peers. Answers whether anything was taken in.
    async fn fill(
        &self,
        (mut gap, mut effect): (Gap, Effect),
        mut drive: Drive<'_>,
    ) -> Result<bool, Refusal> {
        let begun = Instant::now();
        loop {
            effect = match effect {
                Effect::LookUp(ids) => {
                    let here = self.here(drive.room, &ids).await?;
                    gap.found(ids, &here)
                }
                Effect::Ask(peer, question) => {
                    let patience = gap::patience(&question, begun.elapsed());
                    let answer = self.put(drive.room, &peer, question);
                    match self.in_time(&peer, patience, answer).await {
                        Ok(answer) => gap.answered(answer),
                        Err(refusal) => {
                            tracing::debug!(%peer, room = %drive.room.room_id, %refusal, "a peer does not help with a gap");
                            gap.refused()
                        }
                    }
                }
                Effect::Keep(events) => {
                    let format = RoomFormat::of(drive.room);
                    self.keep_outliers(format, drive.room.nid, events).await?;
                    gap.kept()
                }
                Effect::TakeIn(offer) => match self.offer(&mut drive, offer).await? {
                    Some(taken) => gap.taken(taken),
                    None => gap.refused(),
                },
                Effect::Filled => return Ok(drive.moved),
                Effect::GivenUp => {
                    return Err(Refusal::Unavailable("nobody gives what a gap lacks".into()));
                }
            }
        }
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
        let helped = !matches!(answer, Err(Refusal::Unavailable(_)));
        self.unhelpful.note(peer, helped, Instant::now());
        answer
    }

    /// Asks a peer what a gap wants to know.
    pub(in crate::peers) async fn put(
        &self,
        room: &Room,
        peer: &ServerName,
        question: Question,
    ) -> Result<Answer, Refusal> {
        let room_id = room.room_id.clone();
        let (events, state) = match question {
            Question::Ancestors(latest) => {
                let head = room.head();
                let earliest = head.extremities.iter().map(|tip| tip.id.clone());
                let call = MissingEvents {
                    room_id,
                    earliest: earliest.collect(),
                    latest,
                    limit: AT_ONCE,
                };
                let answer = self.rpc.request_stream(peer, call).await?;
                let most = AT_ONCE as usize;
                (
                    self.read_events(answer, RoomFormat::of(room), most).await?.0,
                    Vec::new(),
                )
            }
            Question::Events(ids) => {
                let answer = self.rpc.request_stream(peer, Events { room_id, ids }).await?;
                let read = self.read_events(answer, RoomFormat::of(room), LARGEST_GAP);
                (read.await?.0, Vec::new())
            }
            Question::Past(from) => {
                let from = from.into_iter().take(MAX_EXTREMITIES).collect();
                let call = Backfill {
                    room_id,
                    from,
                    limit: PAGE,
                };
                let answer = self.rpc.request_stream(peer, call).await?;
                let read = self.read_events(answer, RoomFormat::of(room), PAGE as usize);
                (read.await?.0, Vec::new())
            }
            Question::State(at) => {
                // Its events are kept already.
                (Vec::new(), self.ask_state(room, peer, &at, None).await?.state)
            }
        };
        Ok(Answer { events, state })
    }

    /// Takes in one event that a gap offers; none where the state that a peer told for it is none.
    async fn offer(&self, drive: &mut Drive<'_>, offer: Offer) -> Result<Option<gap::Taken>, Refusal> {
        let target = drive.target.clone();
        let mut incoming = target
            .filter(|target| target.event.id == offer.event.id)
            .unwrap_or_else(|| Incoming::live(offer.event));
        if let Some(told) = offer.told {
            match self.rooms.join_importer.state_of(drive.room.nid, &told).await {
                Ok(before) => incoming.before = Some(before),
                Err(Refusal::Forbidden(_)) => return Ok(None),
                Err(refusal) => return Err(refusal),
            }
        }
        let taken = self.take_in(drive.room, vec![incoming]).await?;
        Ok(Some(match taken.into_iter().next() {
            Some(Taken::Lacks {
                prev_events,
                auth_events,
            }) => gap::Taken::Lacks {
                prev_events,
                auth_events,
            },
            taken => {
                drive.moved |= matches!(taken, Some(Taken::Stored(_)));
                gap::Taken::Settled
            }
        }))
    }
}
