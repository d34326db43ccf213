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
use super::{Incoming, Taken, records};
use crate::identity::Identity;
use crate::observe::metrics;
use crate::push::Verdict as PushVerdict;
use crate::rooms::Room;
use crate::store::Store;
use crate::store::log::Record;
use crate::store::rooms::RoomHead;
use crate::store::rooms::events::{Redaction, StoredEvent};
use crate::store::rooms::gaps::{Gap, GapChange};

/// Where an event goes.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) nid: EventNid,
    /// The number under which it hung nowhere until now.
    pub(super) outlier: Option<EventNid>,
    /// Its place in the timeline; none for the end.
    pub(super) place: Option<Place>,
    /// The events before it that nobody gave and that no gap stands for yet.
    pub(super) missing: Vec<OwnedEventId>,
}

/// Events of the current state's changes, loaded as they are stored.
pub(super) type Changed = HashMap<EventNid, Arc<StoredEvent>>;

/// An event before its verdict, with what had to be found out about it.
pub(super) struct Candidate {
    pub(super) room: Arc<Room>,
    pub(super) incoming: Incoming,
    pub(super) spot: Spot,
    pub(super) push: PushVerdict,
    pub(super) redaction: Redacts,
    pub(super) identity: Arc<Identity>,
    /// Gives numbers to new states.
    pub(super) store: Arc<Store>,
}

/// What a look at an event leads to.
pub(super) enum Judged {
    /// Nothing is stored of it.
    Taken(Taken),
    /// This is stored.
    Verdict(Box<Written>),
    /// This has to be loaded first.
    Load(Wanted),
}

/// A verdict as it is written.
pub(super) struct Written {
    pub(super) verdict: Verdict,
    /// All but the head.
    pub(super) records: Vec<Record>,
    /// The head after the event.
    pub(super) head: RoomHead,
    pub(super) stored: Arc<StoredEvent>,
    /// What later events of the same batch are judged by.
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
    pub(super) fn judge(&self, head: &RoomHead, facts: &mut Facts, changed: &Changed) -> Judged {
        let (incoming, spot, room) = (&self.incoming, &self.spot, &self.room);
        let received = Received {
            event: Arc::clone(&incoming.event),
            nid: spot.nid,
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
        let judged = ingest::ingest(&received, room.version, &graph, facts, &mut number);
        metrics::JUDGING_TIME.observe(begun.elapsed());
        match judged {
            Ok(Step::Load(wanted)) => Judged::Load(wanted),
            Ok(Step::Lacks {
                prev_events,
                auth_events,
            }) => Judged::Taken(Taken::Lacks {
                prev_events,
                auth_events,
            }),
            Ok(Step::Done(ingested)) => self.written(head, *ingested, changed),
            Err(error) => Judged::Taken(Taken::Broken(error.to_string())),
        }
    }

    /// What a verdict writes, unless events of what changes with it are missing.
    fn written(&self, head: &RoomHead, ingested: Ingested, changed: &Changed) -> Judged {
        let (incoming, spot, room) = (&self.incoming, &self.spot, &self.room);
        let place = place_of(head, spot, &ingested);
        let mut stored =
            records::stored_event(&incoming.event, spot.nid, room.nid, place, &ingested, &self.push);
        stored.own = incoming.own;
        stored.redacted_by = incoming.redacted_by.clone();
        let stored = Arc::new(stored);
        let mut next = next_head(head, &ingested, place, &stored);
        let changes = records::changes(&head.state, &next.state);
        let mut known = changed.clone();
        known.insert(spot.nid, Arc::clone(&stored));
        let missing = records::numbers(&changes)
            .into_iter()
            .filter(|nid| !known.contains_key(nid));
        let missing: BTreeSet<EventNid> = missing.collect();
        if !missing.is_empty() {
            return Judged::Load(Wanted {
                nids: missing,
                ..Wanted::default()
            });
        }
        let mut list: Vec<Record> = records::states(room.nid, &ingested.new_states).collect();
        list.extend(spot.outlier.map(Record::Placed));
        list.push(Record::Event(Arc::clone(&stored)));
        list.extend(place.filter(|_| !spot.missing.is_empty()).map(|before| {
            Record::Gap(GapChange::Opened(Gap {
                room: room.nid,
                before,
                missing: spot.missing.clone(),
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
                target: spot.nid,
                room: room.nid,
                event: Arc::clone(&stored.event),
                by: by.clone(),
            })
        }));
        list.extend(incoming.inbox.map(Record::Ingested));
        let known = Arc::new(Known {
            event: Arc::clone(&incoming.event),
            nid: spot.nid,
            outcome: ingested.verdict.outcome,
            state_after: After::State(ingested.state_after),
        });
        Judged::Verdict(Box::new(Written {
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
fn place_of(head: &RoomHead, spot: &Spot, ingested: &Ingested) -> Option<Place> {
    let at_the_end = || next_place(head.last_place, !spot.missing.is_empty());
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
