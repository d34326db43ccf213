//! The verdict on one event with everything that it writes: neither I/O nor a lock, so that one that takes long is reached on
//! a thread of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use maru_protocol::cursor::Place;
use maru_protocol::gap::timeline::next_place;
use maru_protocol::ingest::{
    self, After, Facts, Head, Ingested, Known, Outcome, Received, Step, Verdict, Wanted,
};
use maru_protocol::state::{EventNid, State, StateNid};
use ruma::OwnedEventId;

use super::redactions::Redacts;
use super::{Incoming, IngestResult, records};
use crate::identity::Identity;
use crate::observe::metrics;
use crate::push::PushOutcome;
use crate::rooms::Room;
use crate::store::Store;
use crate::store::log::Record;
use crate::store::rooms::RoomHead;
use crate::store::rooms::events::{Redaction, StoredEvent};
use crate::store::rooms::gaps::{Gap, GapChange};

/// Placement of an event: its local number, its place in the timeline, and what is missing before it.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    pub(super) nid: EventNid,
    /// Its number as an outlier, if it was one.
    pub(super) outlier: Option<EventNid>,
    /// Its place in the timeline; none for the end.
    pub(super) place: Option<Place>,
    /// The events before it that nobody gave and that no gap stands for yet.
    pub(super) missing: Vec<OwnedEventId>,
}

/// Events of the current state's changes, loaded as they are stored.
pub(super) type ChangedState = HashMap<EventNid, Arc<StoredEvent>>;

/// An event before its verdict, with what had to be found out about it.
pub(super) struct Candidate {
    pub(super) room: Arc<Room>,
    pub(super) incoming: Incoming,
    pub(super) placement: Placement,
    pub(super) push: PushOutcome,
    pub(super) redaction: Redacts,
    pub(super) identity: Arc<Identity>,
    /// Gives numbers to new states.
    pub(super) store: Arc<Store>,
}

/// What the facts at hand lead to.
pub(super) enum Decision {
    /// Nothing is stored of it.
    NotStored(IngestResult),
    /// This is stored.
    Verdict(Box<VerdictRecords>),
    /// This has to be loaded first.
    Load(Wanted),
}

/// A verdict and the records that store it.
pub(super) struct VerdictRecords {
    pub(super) verdict: Verdict,
    /// All but the head.
    pub(super) records: Vec<Record>,
    /// The head after the event.
    pub(super) head: RoomHead,
    pub(super) stored: Arc<StoredEvent>,
    /// The event as a fact for later events of the same batch.
    pub(super) known: Arc<Known>,
    /// States to be remembered.
    pub(super) new_states: Vec<State>,
}

impl Candidate {
    /// Whether the verdict may take long: needs state resolution, which costs all events of the forks' states and auth chains. Never
    /// false where it does; what is not loaded yet is wanted before that.
    pub(super) fn may_take_long(&self, head: &RoomHead, facts: &Facts) -> bool {
        let event = &self.incoming.event;
        let after = |id: &OwnedEventId| match &facts.known(id)?.state_after {
            After::State(state) => Some(state.nid()),
            After::Nowhere | After::Unread(_) => None,
        };
        if self.incoming.before.is_some() {
            // What differs from the current state is looked for over all of both.
            return true;
        }
        let before: BTreeSet<_> = event.prev_events.iter().filter_map(after).collect();
        let goes_beside = || {
            let others = head.extremities.iter();
            let mut others = others.filter(|other| !event.prev_events.contains(&other.id));
            others.any(|other| event.is_state() || !before.contains(&other.state.nid()))
        };
        before.len() > 1 || (!self.incoming.backfilled && goes_beside())
    }

    /// One try, by a head of the room.
    pub(super) fn decide(&self, head: &RoomHead, facts: &mut Facts, changed: &ChangedState) -> Decision {
        let (incoming, placement, room) = (&self.incoming, &self.placement, &self.room);
        let received = Received {
            event: Arc::clone(&incoming.event),
            nid: placement.nid,
            before: incoming.before.clone(),
            backfilled: incoming.backfilled,
            accepted: incoming.accepted,
        };
        let graph = Head {
            extremities: Arc::clone(&head.extremities),
            state: head.state.clone(),
        };
        let mut number = || StateNid(self.store.log.next_nid());
        let begun = Instant::now();
        let decision = ingest::ingest(&received, room.version, &graph, facts, &mut number);
        metrics::JUDGING_TIME.observe(begun.elapsed());
        match decision {
            Ok(Step::Load(wanted)) => Decision::Load(wanted),
            Ok(Step::Lacks {
                prev_events,
                auth_events,
            }) => Decision::NotStored(IngestResult::Lacks {
                prev_events,
                auth_events,
            }),
            Ok(Step::Done(ingested)) => self.records_of(head, *ingested, changed),
            Err(error) => Decision::NotStored(IngestResult::Broken(error.to_string())),
        }
    }

    /// What a verdict writes, unless events of what changes with it are missing.
    fn records_of(&self, head: &RoomHead, ingested: Ingested, changed: &ChangedState) -> Decision {
        let (incoming, placement, room) = (&self.incoming, &self.placement, &self.room);
        let place = place_of(head, placement, &ingested);
        let mut stored = records::stored_event(
            &incoming.event,
            placement.nid,
            room.nid,
            place,
            &ingested,
            &self.push,
        );
        stored.own = incoming.own;
        stored.redacted_by = incoming.redacted_by.clone();
        let stored = Arc::new(stored);
        let mut next = next_head(head, &ingested, place, &stored);
        let changes = records::changes(&head.state, &next.state);
        let mut known = changed.clone();
        known.insert(placement.nid, Arc::clone(&stored));
        let missing = records::numbers(&changes)
            .into_iter()
            .filter(|nid| !known.contains_key(nid));
        let missing: BTreeSet<EventNid> = missing.collect();
        if !missing.is_empty() {
            return Decision::Load(Wanted {
                nids: missing,
                ..Wanted::default()
            });
        }
        let mut list: Vec<Record> = records::states(room.nid, &ingested.new_states).collect();
        list.extend(placement.outlier.map(Record::Placed));
        list.push(Record::Event(Arc::clone(&stored)));
        list.extend(place.filter(|_| !placement.missing.is_empty()).map(|before| {
            Record::Gap(GapChange::Opened(Gap {
                room: room.nid,
                before,
                missing: placement.missing.clone(),
            }))
        }));
        let own = self.identity.name();
        list.extend(records::members(
            &mut next,
            &incoming.event,
            &changes,
            &known,
            own,
        ));
        list.extend(records::notifications(&stored, &self.push));
        if ingested.verdict.outcome == Outcome::Accepted {
            list.extend(self.redaction.record(room.nid, &incoming.event));
        }
        list.extend(stored.redacted_by.as_ref().map(|by| {
            Record::Redaction(Redaction {
                target: placement.nid,
                room: room.nid,
                event: Arc::clone(&stored.event),
                by: by.clone(),
            })
        }));
        list.extend(incoming.inbox.map(Record::Ingested));
        let known = Arc::new(Known {
            event: Arc::clone(&incoming.event),
            nid: placement.nid,
            outcome: ingested.verdict.outcome,
            state_after: After::State(ingested.state_after),
        });
        Decision::Verdict(Box::new(VerdictRecords {
            verdict: ingested.verdict,
            records: list,
            head: next,
            stored,
            known,
            new_states: ingested.new_states,
        }))
    }
}

/// Where an event stands in the timeline: accepted ones where they were put, else at its end, after a gap if there is one.
fn place_of(head: &RoomHead, placement: &Placement, ingested: &Ingested) -> Option<Place> {
    let at_the_end = || next_place(head.last_place, !placement.missing.is_empty());
    (ingested.verdict.outcome == Outcome::Accepted).then(|| placement.place.unwrap_or_else(at_the_end))
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
