//! Ingest of live events: each gets a verdict on the room's newest head and moves it.

use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::ingest::{Facts, Outcome, Wanted};
use maru_protocol::state::EventNid;

use super::verdict::{Candidate, ChangedState, Decision, Placement, VerdictRecords};
use super::{Incoming, IngestLock, IngestResult, records};
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::observe::metrics;
use crate::refusal::Refusal;
use crate::rooms::repository::room::{BUILDS_IN_FLIGHT, BuildLock};
use crate::rooms::{FactLoader, PushEvaluation, Room, RoomRepository, TimelineGaps};
use crate::store::Store;
use crate::store::StoreError;
use crate::store::log::{Change, Pending, Record};
use crate::store::rooms::RoomHead;
use ruma::OwnedServerName;

/// Rounds of loading that one event may need. The later ones load many generations of auth events each.
const MOST_LOADS: u32 = 100;

/// Attempts at a slow verdict beside those who build on the room, before they have to wait for it.
const TRIES_BESIDE: u32 = 2;

/// Where what an event writes goes.
pub(super) enum Destination<'a> {
    /// To the log at once, with the head.
    Log,
    /// To a page of the past, which moves no head and is stored whole: the event has this place in the timeline.
    Page(Place, &'a mut Vec<Record>),
}

impl Destination<'_> {
    fn place(&self) -> Option<Place> {
        match self {
            Self::Log => None,
            Self::Page(place, _) => Some(*place),
        }
    }
}

/// What one event became, and what has to be on disk for that.
type Enqueued = (IngestResult, Option<Pending>);

/// Ingest of received events that have a place in a timeline, live and backfilled.
#[derive(Debug)]
pub struct Ingest {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) push_evaluation: Arc<PushEvaluation>,
    pub(in crate::rooms) gaps: Arc<TimelineGaps>,
    pub(in crate::rooms) facts: Arc<FactLoader>,
    /// State resolution and what else takes long, by the servers whose events need it.
    pub(in crate::rooms) resolving: FairSemaphore<OwnedServerName>,
}

impl Ingest {
    /// Ingests verified events into the locked room, each after those it names. Returns once everything that was stored is on
    /// disk.
    ///
    /// # Errors
    /// When the database fails, or the room's head was lost to another failure: nothing is lost, offer them again.
    pub async fn ingest(
        &self,
        ingest_lock: &IngestLock,
        room: &Arc<Room>,
        mut incoming: Vec<Incoming>,
    ) -> Result<Vec<IngestResult>, Refusal> {
        ingest_lock.check(&room.room_id)?;
        let mut facts = self.facts_about(room, &mut incoming).await?;
        let mut taken = Vec::with_capacity(incoming.len());
        let mut pending = Vec::new();
        for at in 0..incoming.len() {
            let next = incoming[at].clone();
            let (mut result, change) = self
                .ingest_one(room, next, &mut facts, &mut Destination::Log)
                .await?;
            pending.extend(change);
            if result == IngestResult::TooCostly && incoming.len() > 1 {
                // Perhaps only with what those before it needed, which have to be on disk to be looked up.
                all_stored(pending.drain(..)).await?;
                (result, facts) = self.ingest_alone(room, &mut incoming[at..]).await?;
            }
            taken.push(result);
        }
        all_stored(pending).await?;
        taken.iter().for_each(|taken| metrics::INGESTED.add(taken.name()));
        Ok(taken)
    }

    /// Ingests the first of some events with the facts that it needs alone. Returns the facts about the others.
    async fn ingest_alone(
        &self,
        room: &Arc<Room>,
        incoming: &mut [Incoming],
    ) -> Result<(IngestResult, Facts), Refusal> {
        let (first, others) = incoming.split_at_mut(1);
        let mut facts = self.facts_about(room, first).await?;
        let first = first[0].clone();
        let (result, change) = self
            .ingest_one(room, first, &mut facts, &mut Destination::Log)
            .await?;
        all_stored(change).await?;
        Ok((result, self.facts_about(room, others).await?))
    }

    /// Facts about events and those that they name. Events whose redaction came before them are emptied.
    pub(super) async fn facts_about(
        &self,
        room: &Arc<Room>,
        incoming: &mut [Incoming],
    ) -> Result<Facts, Refusal> {
        let mut facts = Facts::default();
        let events = incoming.iter().map(|incoming| &incoming.event);
        let ids: Vec<_> = events.clone().map(|event| event.id.clone()).collect();
        let mut wanted = Wanted::of(events.map(|event| &**event), room.version);
        // Most are new, and name each other or what is in memory: then this is all that the database is asked.
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        if self.store.rooms.heard_of_any(room.nid, names.clone()).await? {
            let early = self.store.rooms.early_redactions(room.nid, names).await?;
            self.redact_early(room, incoming, early).await?;
            wanted.ids.extend(ids);
        } else {
            for id in ids {
                wanted.ids.remove(&id);
                facts.lacks(id);
            }
        }
        self.facts.load(&mut facts, wanted).await?;
        Ok(facts)
    }

    /// Ingests one event: loads facts until they suffice for a verdict. What it writes goes to `destination`.
    pub(super) async fn ingest_one(
        &self,
        room: &Arc<Room>,
        incoming: Incoming,
        facts: &mut Facts,
        destination: &mut Destination<'_>,
    ) -> Result<Enqueued, Refusal> {
        if let Some(known) = facts.known(&incoming.event.id)
            && (!known.is_outlier() || known.outcome == Outcome::Rejected)
        {
            return self.already_known(&incoming, known.outcome);
        }
        let candidate = self.candidate(room, incoming, facts, destination.place());
        let candidate = Arc::new(candidate.await?);
        let mut changed = ChangedState::new();
        for round in 0..MOST_LOADS {
            match self.try_once(&candidate, facts, &changed, destination).await? {
                Attempt::Done(enqueued) => return Ok(enqueued),
                Attempt::Load(wanted) if self.facts.is_too_costly(facts, &wanted) => break,
                Attempt::Load(wanted) => {
                    // What the head's changes need is wanted as stored, the rest as facts.
                    let nids: Vec<_> = wanted.nids.iter().copied().collect();
                    changed.extend(self.repository.events(&nids).await?);
                    self.facts.load_with_chains(facts, wanted, round).await?;
                }
            }
        }
        Ok((IngestResult::TooCostly, None))
    }

    async fn candidate(
        &self,
        room: &Arc<Room>,
        incoming: Incoming,
        facts: &mut Facts,
        place: Option<Place>,
    ) -> Result<Candidate, Refusal> {
        // Asked once: a try that ends for want of other facts has told them of the state after the event.
        let outlier = records::was_outlier(facts, &incoming.event);
        let nid = outlier.unwrap_or_else(|| EventNid(self.store.log.next_nid()));
        let push = self
            .push_evaluation
            .evaluate(room, &records::as_draft(&incoming.event))
            .await?;
        let target = incoming.event.redacts.as_ref().and_then(|id| facts.known(id));
        let target = target.cloned();
        let redaction = self.redaction(room, &incoming.event, target).await?;
        let missing = self.gaps.missing_before(&incoming, facts).await?;
        let missing = self.gaps.outside_gaps(room, missing).await?;
        Ok(Candidate {
            room: Arc::clone(room),
            incoming,
            placement: Placement {
                nid,
                outlier,
                place,
                missing,
            },
            push,
            redaction,
            identity: Arc::clone(&self.identity),
            store: Arc::clone(&self.store),
        })
    }

    fn already_known(&self, incoming: &Incoming, outcome: Outcome) -> Result<Enqueued, Refusal> {
        let change = incoming.inbox.map(|row| Change::from(Record::Ingested(row)));
        let change = change.map(|change| self.store.log.enqueue(change)).transpose()?;
        Ok((IngestResult::Known(outcome), change))
    }

    /// One attempt at a verdict: under the room's lock where that takes moments, else on another thread and without it.
    async fn try_once(
        &self,
        candidate: &Arc<Candidate>,
        facts: &mut Facts,
        changed: &ChangedState,
        destination: &mut Destination<'_>,
    ) -> Result<Attempt, Refusal> {
        let room = &candidate.room;
        {
            let _permit = room.builds.acquire().await.map_err(Refusal::internal)?;
            let lock = room.lock();
            if !candidate.may_take_long(lock.head(), facts) {
                let decision = candidate.decide(lock.head(), facts, changed);
                return self.enqueue_decided(room, decision, lock, facts, destination);
            }
        }
        for attempt in 0..=TRIES_BESIDE {
            // In the end those who build on the room wait, so that it stays as it is meanwhile.
            let permits = match attempt {
                TRIES_BESIDE => BUILDS_IN_FLIGHT,
                _ => 1,
            };
            let _permits = room.builds.acquire_many(permits);
            let _permits = _permits.await.map_err(Refusal::internal)?;
            let head = room.newest();
            let decision = self.decide_on_worker(candidate, &head, facts, changed).await?;
            let lock = room.lock();
            if matches!(destination, Destination::Page(..)) || Arc::ptr_eq(lock.head(), &head) {
                return self.enqueue_decided(room, decision, lock, facts, destination);
            }
        }
        Err(StoreError::StaleHead.into())
    }

    /// The verdict of one that may take long, reached on a blocking thread: few at a time, shared fairly among the servers
    /// whose events need it.
    async fn decide_on_worker(
        &self,
        candidate: &Arc<Candidate>,
        head: &Arc<RoomHead>,
        facts: &mut Facts,
        changed: &ChangedState,
    ) -> Result<Decision, Refusal> {
        let whose = candidate.incoming.event.sender.server_name().to_owned();
        let permit = self.resolving.acquire(whose.clone()).await;
        let permit = permit.map_err(|_| Refusal::Unavailable(format!("too much of {whose} waits")))?;
        let (candidate, head, changed) = (Arc::clone(candidate), Arc::clone(head), changed.clone());
        let mut known = std::mem::take(facts);
        let aside = tokio::task::spawn_blocking(move || {
            // Held by the work itself: it goes on when nobody waits for it any more.
            let _permit = permit;
            let decision = candidate.decide(&head, &mut known, &changed);
            (decision, known)
        });
        let (decision, known) = aside.await.map_err(Refusal::internal)?;
        *facts = known;
        Ok(decision)
    }

    /// Enqueues the records of a decided event. Nothing may wait here: the room is locked.
    fn enqueue_decided(
        &self,
        room: &Room,
        decision: Decision,
        lock: BuildLock<'_>,
        facts: &mut Facts,
        destination: &mut Destination<'_>,
    ) -> Result<Attempt, Refusal> {
        let written = match decision {
            Decision::Verdict(written) => *written,
            Decision::NotStored(taken) => return Ok(Attempt::Done((taken, None))),
            Decision::Load(wanted) => return Ok(Attempt::Load(wanted)),
        };
        let VerdictRecords {
            verdict,
            mut records,
            head,
            stored,
            known,
            new_states,
        } = written;
        let pending = match destination {
            Destination::Log => {
                if records.iter().any(|record| matches!(record, Record::Gap(_))) {
                    room.opened_gap();
                }
                records.push(Record::Head(head.clone()));
                Some(
                    self.store
                        .log
                        .enqueue(Change::new(records).on_head(lock.ticket()))?,
                )
            }
            Destination::Page(_, page) => {
                page.append(&mut records);
                None
            }
        };
        facts.learn(known);
        let tops = new_states.iter().filter_map(|state| state.top());
        tops.for_each(|run| self.store.rooms.runs().remember(run));
        if stored.event.is_state() {
            self.repository.cache().events.insert(stored.nid, stored);
        }
        if pending.is_some() {
            lock.advance(Arc::new(head));
        }
        Ok(Attempt::Done((IngestResult::Stored(verdict), pending)))
    }
}

/// Waits until changes are on disk.
async fn all_stored(changes: impl IntoIterator<Item = Pending>) -> Result<(), Refusal> {
    for change in changes {
        change.wait().await?;
    }
    Ok(())
}

/// Result of one attempt at a verdict.
enum Attempt {
    Done(Enqueued),
    Load(Wanted),
}
