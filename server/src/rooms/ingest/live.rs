//! Events that a room goes on with.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use maru_protocol::cursor::Place;
use maru_protocol::ingest::{self, After, Facts, Head, Ingested, Known, Outcome, Received, Step, Wanted};
use maru_protocol::state::{EventNid, StateNid};
use ruma::OwnedEventId;

use super::redactions::Redacts;
use super::{Incoming, Taken, records};
use crate::observe::metrics;
use crate::push::Verdict as PushVerdict;
use crate::refusal::Refusal;
use crate::rooms::{Room, Rooms};
use crate::store::events::{Redaction, StoredEvent};
use crate::store::gaps::{Gap, GapChange};
use crate::store::log::{Change, Pending, Record};
use crate::store::rooms::RoomHead;

/// Loads that one event may need: auth chains are loaded a generation at a time.
const MOST_LOADS: usize = 2_000;

/// Where an event goes.
#[derive(Clone, Debug)]
struct Spot {
    nid: EventNid,
    /// The number under which it hung nowhere until now.
    outlier: Option<EventNid>,
    /// Its place in the timeline; none for the end.
    place: Option<Place>,
    /// The events before it that nobody gave and that no gap stands for yet.
    missing: Vec<OwnedEventId>,
}

/// What one event became, before it is on disk.
enum Judged {
    Taken(Taken),
    Enqueued(Taken, Pending),
    Load(Wanted),
}

impl Rooms {
    /// Takes verified events into a room, each after those it names. Returns once everything that was stored is on disk.
    ///
    /// # Errors
    /// When the database fails, or the room's head was lost to another failure: nothing is lost, offer them again.
    pub async fn take_in(&self, room: &Arc<Room>, incoming: Vec<Incoming>) -> Result<Vec<Taken>, Refusal> {
        let at_the_end = incoming.into_iter().map(|incoming| (incoming, None)).collect();
        self.take_in_at(room, at_the_end).await
    }

    /// Like [`Rooms::take_in`], each event at a given place of the timeline, or at its end.
    pub(super) async fn take_in_at(
        &self,
        room: &Arc<Room>,
        mut incoming: Vec<(Incoming, Option<Place>)>,
    ) -> Result<Vec<Taken>, Refusal> {
        let mut facts = Facts::default();
        let events = incoming.iter().map(|(incoming, _)| &incoming.event);
        let ids: Vec<_> = events.clone().map(|event| event.id.clone()).collect();
        let mut wanted = Wanted::of(events.map(|event| &**event), room.version);
        // Most are new, and name each other or what is in memory: then this is all that the database is asked.
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        if self.store.heard_of_any(room.nid, names.clone()).await? {
            let early = self.store.early_redactions(room.nid, names).await?;
            self.redact_early(room, &mut incoming, early).await?;
            wanted.ids.extend(ids);
        } else {
            for id in ids {
                wanted.ids.remove(&id);
                facts.lacks(id);
            }
        }
        self.load_facts(&mut facts, wanted).await?;
        let mut taken = Vec::with_capacity(incoming.len());
        let mut pending = Vec::new();
        for (incoming, place) in incoming {
            match self.take_one(room, incoming, place, &mut facts).await? {
                Judged::Enqueued(result, change) => {
                    pending.push(change);
                    taken.push(result);
                }
                Judged::Taken(result) => taken.push(result),
                Judged::Load(_) => return Err(Refusal::internal("an event that needs too much")),
            }
        }
        for change in pending {
            change.wait().await?;
        }
        taken.iter().for_each(|taken| metrics::INGESTED.add(taken.name()));
        Ok(taken)
    }

    async fn take_one(
        &self,
        room: &Arc<Room>,
        incoming: Incoming,
        place: Option<Place>,
        facts: &mut Facts,
    ) -> Result<Judged, Refusal> {
        if let Some(known) = facts.known(&incoming.event.id)
            && (!known.is_outlier() || known.outcome == Outcome::Rejected)
        {
            return self.already_known(&incoming, known.outcome);
        }
        // Asked once: a try that ends for want of other facts has told them of the state after the event.
        let outlier = records::was_outlier(facts, &incoming.event);
        let nid = outlier.unwrap_or_else(|| EventNid(self.store.next_nid()));
        let push = self.judge(room, &records::as_draft(&incoming.event)).await?;
        let target = incoming.event.redacts.as_ref().and_then(|id| facts.known(id));
        let target = target.cloned();
        let redaction = self.redaction(room, &incoming.event, target).await?;
        let missing = self.missing_before(&incoming, facts).await?;
        let missing = self.outside_gaps(room, missing).await?;
        let spot = Spot {
            nid,
            outlier,
            place,
            missing,
        };
        let mut changed = HashMap::new();
        for _ in 0..MOST_LOADS {
            let permit = room.builds.acquire().await.map_err(Refusal::internal)?;
            let judged = self.judge_one(room, &incoming, &spot, facts, &push, &redaction, &changed)?;
            drop(permit);
            match judged {
                Judged::Load(wanted) => {
                    // What the head's changes need is wanted as stored, the rest as facts.
                    let nids: Vec<_> = wanted.nids.iter().copied().collect();
                    changed.extend(self.events(&nids).await?);
                    self.load_facts(facts, wanted).await?;
                }
                judged => return Ok(judged),
            }
        }
        Ok(Judged::Load(Wanted::default()))
    }

    /// Those of some events that no gap of the timeline stands for yet.
    async fn outside_gaps(
        &self,
        room: &Room,
        mut ids: Vec<OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Refusal> {
        if !ids.is_empty() {
            let gaps = self.store.gaps(room.nid).await?;
            ids.retain(|id| !gaps.iter().any(|gap| gap.missing.contains(id)));
        }
        Ok(ids)
    }

    fn already_known(&self, incoming: &Incoming, outcome: Outcome) -> Result<Judged, Refusal> {
        let taken = Taken::Known(outcome);
        Ok(match incoming.inbox {
            Some(nid) => Judged::Enqueued(taken, self.store.enqueue(Change::from(Record::Ingested(nid)))?),
            None => Judged::Taken(taken),
        })
    }

    /// One try, under the room's lock and without waiting.
    #[allow(clippy::too_many_arguments)]
    fn judge_one(
        &self,
        room: &Arc<Room>,
        incoming: &Incoming,
        spot: &Spot,
        facts: &mut Facts,
        push: &PushVerdict,
        redaction: &Redacts,
        changed: &HashMap<EventNid, Arc<StoredEvent>>,
    ) -> Result<Judged, Refusal> {
        let nid = spot.nid;
        let received = Received {
            event: Arc::clone(&incoming.event),
            nid,
            before: incoming.before.clone(),
            backfilled: incoming.backfilled,
            accepted: incoming.accepted,
        };
        let lock = room.lock();
        let head = Arc::clone(lock.head());
        let graph = Head {
            extremities: Arc::clone(&head.extremities),
            state: head.state.clone(),
        };
        let mut number = || StateNid(self.store.next_nid());
        let begun = Instant::now();
        let judged = ingest::ingest(&received, room.version, &graph, facts, &mut number);
        metrics::JUDGING_TIME.observe(begun.elapsed());
        let ingested = match judged {
            Ok(Step::Load(wanted)) => return Ok(Judged::Load(wanted)),
            Ok(Step::Lacks {
                prev_events,
                auth_events,
            }) => {
                return Ok(Judged::Taken(Taken::Lacks {
                    prev_events,
                    auth_events,
                }));
            }
            Ok(Step::Done(ingested)) => ingested,
            Err(error) => return Ok(Judged::Taken(Taken::Broken(error.to_string()))),
        };
        let place = place_of(&head, spot, &ingested);
        let mut stored = records::stored_event(&incoming.event, nid, room.nid, place, &ingested, push);
        stored.own = incoming.own;
        stored.redacted_by = incoming.redacted_by.clone();
        let stored = Arc::new(stored);
        let mut next = next_head(&head, &ingested, place, &stored);
        let mut known = changed.clone();
        known.insert(nid, Arc::clone(&stored));
        let changes = records::changes(&head.state, &next.state);
        let missing = records::numbers(&changes)
            .into_iter()
            .filter(|nid| !known.contains_key(nid));
        let missing: BTreeSet<EventNid> = missing.collect();
        if !missing.is_empty() {
            return Ok(Judged::Load(Wanted {
                nids: missing,
                ..Wanted::default()
            }));
        }
        let mut list: Vec<Record> = records::states(room.nid, &ingested.new_states).collect();
        list.extend(spot.outlier.map(Record::Placed));
        list.push(Record::Event(Arc::clone(&stored)));
        list.extend(place.filter(|_| !spot.missing.is_empty()).map(|before| {
            room.opened_gap();
            Record::Gap(GapChange::Opened(Gap {
                room: room.nid,
                before,
                missing: spot.missing.clone(),
            }))
        }));
        list.extend(records::members(
            &mut next,
            &incoming.event,
            &changes,
            &known,
            self.identity.name(),
        ));
        list.extend(records::notifications(&stored, push));
        if ingested.verdict.outcome == Outcome::Accepted {
            list.extend(redaction.record(room.nid, &incoming.event));
        }
        list.extend(stored.redacted_by.as_ref().map(|by| {
            Record::Redaction(Redaction {
                target: nid,
                room: room.nid,
                event: Arc::clone(&stored.event),
                by: by.clone(),
            })
        }));
        list.extend(incoming.inbox.map(Record::Ingested));
        list.push(Record::Head(next.clone()));
        let pending = self.store.enqueue(Change::new(list).on_head(lock.ticket()))?;
        facts.learn(Arc::new(Known {
            event: Arc::clone(&incoming.event),
            nid,
            outcome: ingested.verdict.outcome,
            state_after: After::State(ingested.state_after.clone()),
        }));
        for state in &ingested.new_states {
            state
                .top()
                .into_iter()
                .for_each(|run| self.store.runs().remember(run));
        }
        if stored.event.is_state() {
            self.table.events.insert(stored.nid, Arc::clone(&stored));
        }
        lock.advance(Arc::new(next));
        Ok(Judged::Enqueued(Taken::Stored(ingested.verdict.clone()), pending))
    }
}

/// Where an event stands in the timeline: accepted ones where they were put, else at its end, after a gap if there is one.
fn place_of(head: &RoomHead, spot: &Spot, ingested: &Ingested) -> Option<Place> {
    let at_the_end = || match spot.missing.is_empty() {
        true => Place(head.last_place.0 + 1),
        false => head.last_place.next_stretch(),
    };
    (ingested.verdict.outcome == Outcome::Accepted).then(|| spot.place.unwrap_or_else(at_the_end))
}

fn next_head(head: &RoomHead, ingested: &Ingested, place: Option<Place>, stored: &StoredEvent) -> RoomHead {
    let mut next = head.clone();
    if let Some(place) = place {
        next.first_place = next.first_place.min(place);
        next.last_place = next.last_place.max(place);
    }
    if let Some(graph) = &ingested.head {
        next.extremities = Arc::clone(&graph.extremities);
        next.state = graph.state.clone();
        next.depth = next.depth.max(stored.event.depth);
    }
    next
}
