//! The verdict on one received event.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

use super::{After, Extremity, Facts, Head, Known, Outcome, Verdict, Wanted, merge};
use crate::auth::{self, Denied, StateSlot};
use crate::event::Event;
use crate::resolve::ResolveError;
use crate::state::{EventNid, State, StateNid};
use crate::version::RoomVersion;

/// An event to ingest: verified, and numbered in case it is stored.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event.
    pub event: Arc<Event>,
    /// Its local number.
    pub nid: EventNid,
    /// The state before it, when a peer had to tell because events before it cannot be had; else it is made of the
    /// states after its `prev_events`.
    pub before: Option<State>,
    /// Whether it is older than what the room goes on from, so that the head stays where it is.
    pub backfilled: bool,
    /// Whether a server in the room has let it in already, as it does with a join: the current state, which that server may
    /// not have known, does not speak against it. Resolution still does, here and there, once both know all.
    pub accepted: bool,
}

/// What comes next for an event.
#[derive(Debug)]
pub enum Step {
    /// Load these facts from the replica and ask again.
    Load(Wanted),
    /// The replica lacks these events; fetch and ingest them first.
    Lacks {
        /// Missing `prev_events`, or outliers among them, whose state nobody knows.
        prev_events: Vec<OwnedEventId>,
        /// Missing `auth_events`.
        auth_events: Vec<OwnedEventId>,
    },
    /// The verdict.
    Done(Box<Ingested>),
}

/// What became of an event, and the room after it.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// What the rules say.
    pub verdict: Verdict,
    /// The state after the event: for one that is not a state event, or not accepted, the state before it.
    pub state_after: State,
    /// The event that it replaces in its slot.
    pub replaces: Option<EventNid>,
    /// The head after it; none when it does not move.
    pub head: Option<Head>,
    /// States that are new with it and have to be stored, in this order.
    pub new_states: Vec<State>,
}

/// What became of an event that hangs nowhere: part of an auth chain or of a state that a peer told.
#[derive(Debug)]
pub enum Outlier {
    /// Load these facts from the replica and ask again.
    Load(Wanted),
    /// The replica lacks these `auth_events`.
    Lacks(Vec<OwnedEventId>),
    /// The verdict.
    Done(Verdict),
}

/// Judges an event that came from another server by its auth events, the state before it and the current state.
///
/// # Errors
/// [`ResolveError`] when forks cannot be resolved.
pub fn ingest(
    received: &Received,
    version: RoomVersion,
    head: &Head,
    facts: &mut Facts,
    number: &mut dyn FnMut() -> StateNid,
) -> Result<Step, ResolveError> {
    facts.take_wanted();
    let event = &received.event;
    let auth_events = missing(&event.auth_events, facts, |_| true);
    let prev_events = match received.before {
        Some(_) => Vec::new(),
        None => missing(&event.prev_events, facts, |known| !known.is_outlier()),
    };
    if let Some(step) = load_first(facts) {
        return Ok(step);
    }
    if !auth_events.is_empty() || !prev_events.is_empty() {
        return Ok(Step::Lacks {
            prev_events,
            auth_events,
        });
    }
    let mut new_states = Vec::new();
    let by_auth_events = allowed_by_auth_events(event, version, facts);
    let Some(before) = state_before(received, version, facts, number)? else {
        return Ok(Step::Load(facts.take_wanted()));
    };
    if received.before.is_some() || is_new(&before, event, facts) {
        new_states.push(before.clone());
    }
    let by_state_before = allowed_by_state(event, version, &before, facts);
    let by_current_state = match received.backfilled || received.accepted {
        true => Ok(()),
        false => allowed_by_state(event, version, &head.state, facts),
    };
    let replaces = StateSlot::of(event).and_then(|slot| before.get(&slot.hash()));
    if let Some(nid) = replaces {
        // Whoever counts members will want to know what it replaces.
        facts.numbered(nid);
    }
    if let Some(step) = load_first(facts) {
        return Ok(step);
    }
    let verdict = match (by_auth_events, by_state_before, by_current_state) {
        (Err(denied), _, _) | (Ok(()), Err(denied), _) => Verdict::of(Outcome::Rejected, denied),
        (Ok(()), Ok(()), Err(denied)) => Verdict::of(Outcome::SoftFailed, denied),
        (Ok(()), Ok(()), Ok(())) => Verdict::accepted(),
    };
    let state_after = match StateSlot::of(event) {
        Some(slot) if verdict.outcome != Outcome::Rejected => {
            let after = before.with(StateNid(received.nid.0), [(slot.hash(), Some(received.nid))]);
            new_states.push(after.clone());
            after
        }
        _ => before,
    };
    let mut ingested = Ingested {
        verdict,
        state_after,
        replaces,
        head: None,
        new_states,
    };
    if received.backfilled || ingested.verdict.outcome != Outcome::Accepted {
        return Ok(Step::Done(Box::new(ingested)));
    }
    let extremity = Extremity {
        id: event.id.clone(),
        state: ingested.state_after.clone(),
    };
    let extremities = head.extremities_with(extremity, &event.prev_events);
    let states: Vec<State> = extremities
        .iter()
        .map(|extremity| extremity.state.clone())
        .collect();
    // The state after the event names it.
    facts.learn(Arc::new(Known {
        event: Arc::clone(event),
        nid: received.nid,
        outcome: Outcome::Accepted,
        state_after: After::State(ingested.state_after.clone()),
    }));
    let Some(state) = merge(version, &states, facts, number)? else {
        return Ok(Step::Load(facts.take_wanted()));
    };
    let known = |known: &State| known.nid() == state.nid();
    if !states.iter().any(known) {
        ingested.new_states.push(state.clone());
    }
    ingested.head = Some(Head {
        extremities: extremities.into(),
        state,
    });
    Ok(Step::Done(Box::new(ingested)))
}

/// Judges an event of an auth chain or of a told state by its auth events alone.
pub fn judge_outlier(event: &Event, version: RoomVersion, facts: &Facts) -> Outlier {
    facts.take_wanted();
    let lacking = missing(&event.auth_events, facts, |_| true);
    let allowed = allowed_by_auth_events(event, version, facts);
    let wanted = facts.take_wanted();
    if !wanted.is_empty() {
        return Outlier::Load(wanted);
    }
    if !lacking.is_empty() {
        return Outlier::Lacks(lacking);
    }
    Outlier::Done(match allowed {
        Ok(()) => Verdict::accepted(),
        Err(denied) => Verdict::of(Outcome::Rejected, denied),
    })
}

fn load_first(facts: &Facts) -> Option<Step> {
    let wanted = facts.take_wanted();
    (!wanted.is_empty()).then_some(Step::Load(wanted))
}

/// Those of `ids` that are absent or not as they have to be.
fn missing(ids: &[OwnedEventId], facts: &Facts, fits: impl Fn(&Known) -> bool) -> Vec<OwnedEventId> {
    ids.iter()
        .filter(|id| !facts.event(id).is_some_and(|known| fits(known)))
        .cloned()
        .collect()
}

fn state_before(
    received: &Received,
    version: RoomVersion,
    facts: &Facts,
    number: &mut dyn FnMut() -> StateNid,
) -> Result<Option<State>, ResolveError> {
    if let Some(before) = &received.before {
        return Ok(Some(before.clone()));
    }
    let prev_events = received.event.prev_events.iter();
    let states: Vec<State> = prev_events
        .filter_map(|id| facts.state_after(id).cloned())
        .collect();
    if states.len() < received.event.prev_events.len() {
        // All of them are here, so those states are not loaded yet.
        return Ok(None);
    }
    merge(version, &states, facts, number)
}

/// Whether the state before an event was made for it, and is the state after none of its `prev_events`.
fn is_new(before: &State, event: &Event, facts: &Facts) -> bool {
    before.nid().is_some()
        && !event
            .prev_events
            .iter()
            .filter_map(|id| facts.state_after(id))
            .any(|state| state.nid() == before.nid())
}

/// The rules over the event's own `auth_events`.
fn allowed_by_auth_events(event: &Event, version: RoomVersion, facts: &Facts) -> Result<(), Denied> {
    auth::check_independent(event, version, |id| facts.allowed(id))?;
    let named: Vec<Arc<Event>> = event
        .auth_events
        .iter()
        .filter_map(|id| facts.allowed(id))
        .collect();
    let create = create_of(event, version).and_then(|id| facts.allowed(&id));
    auth::check(event, version, |slot| {
        named
            .iter()
            .chain(&create)
            .find(|event| event.is_state_at(&slot.event_type, &slot.state_key))
            .cloned()
    })
}

/// The create event that gives the room its id, from version 12 on; none for that event itself.
pub(super) fn create_of(event: &Event, version: RoomVersion) -> Option<OwnedEventId> {
    if !version.room_id_is_hash() || &*event.event_type == "m.room.create" {
        return None;
    }
    let id = format!("${}", event.room_id.strip_sigil());
    EventId::parse(id).ok()
}

/// The rules over a state of the room.
fn allowed_by_state(event: &Event, version: RoomVersion, state: &State, facts: &Facts) -> Result<(), Denied> {
    auth::check(event, version, |slot| {
        let known = facts.numbered(state.get(&slot.hash())?)?;
        (known.outcome != Outcome::Rejected).then(|| Arc::clone(&known.event))
    })
}
