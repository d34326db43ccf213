//! Builds events on a room's head, each on the one before: links, authorisation, state, counts. Pure: everything it
//! needs is loaded, and nothing is stored here.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::auth::{self, StateSlot};
use maru_protocol::cursor::Place;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::ingest::Extremity;
use maru_protocol::state::{EventNid, StateNid};
use maru_protocol::version::RoomVersion;

use crate::identity::Identity;
use crate::push::PushOutcome;
use crate::refusal::Refusal;
use crate::store::log::Record;
use crate::store::rooms::RoomHead;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::notifications::NewNotification;
use crate::store::rooms::state::NewState;

use crate::rooms::repository::members::membership_of;

/// Events of the state that building needs, by local number.
pub(in crate::rooms) type LoadedState = HashMap<EventNid, Arc<StoredEvent>>;

/// Why an event was not added.
pub(in crate::rooms) enum NotAdded {
    /// State events that are needed and not among the known ones.
    Missing,
    /// The room's rules or limits say no.
    Refused(Refusal),
}

impl From<Refusal> for NotAdded {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A growing piece of a room's history.
pub(in crate::rooms) struct EventBuilder<'a> {
    pub(in crate::rooms) identity: &'a Identity,
    pub(in crate::rooms) version: RoomVersion,
    pub(in crate::rooms) max_event_bytes: usize,
    /// The head after the events so far.
    pub(in crate::rooms) head: RoomHead,
    pub(in crate::rooms) known: &'a mut LoadedState,
    /// What to store for them.
    pub(in crate::rooms) records: Vec<Record>,
}

impl EventBuilder<'_> {
    /// Adds one event, numbered `nid`, of which push rules say `verdict`.
    pub(in crate::rooms) fn add(
        &mut self,
        draft: Draft,
        nid: EventNid,
        verdict: &PushOutcome,
    ) -> Result<Arc<StoredEvent>, NotAdded> {
        let event = self.build(draft)?;
        Ok(self.accept(event, nid, verdict))
    }

    /// Builds an event on the head and checks it by the room's rules.
    pub(in crate::rooms) fn build(&self, draft: Draft) -> Result<Event, NotAdded> {
        let auth_slots = self.slots(&draft, auth::auth_slots)?;
        let needed = self.slots(&draft, auth::slots_needed)?;
        for slot in &needed {
            if self
                .head
                .state
                .get(&slot.hash())
                .is_some_and(|nid| !self.known.contains_key(&nid))
            {
                return Err(NotAdded::Missing);
            }
        }
        let links = Links {
            prev_events: self.head.extremities.iter().map(|tip| tip.id.clone()).collect(),
            auth_events: auth_slots
                .iter()
                .filter_map(|slot| Some(self.in_slot(slot)?.id.clone()))
                .collect(),
            depth: self.head.depth + 1,
        };
        let event = build(
            draft,
            links,
            self.version,
            self.max_event_bytes,
            &self.identity.server_name,
            &self.identity.signing_key,
        )
        .map_err(not_built)?;
        auth::check(&event, self.version, |slot| self.in_slot(slot))
            .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        Ok(event)
    }

    fn slots(
        &self,
        draft: &Draft,
        rule: impl Fn(
            &str,
            &ruma::UserId,
            Option<&str>,
            &maru_protocol::canonical::Content,
            RoomVersion,
        ) -> Result<Vec<StateSlot>, auth::Denied>,
    ) -> Result<Vec<StateSlot>, Refusal> {
        rule(
            &draft.event_type,
            &draft.sender,
            draft.state_key.as_deref(),
            &draft.content,
            self.version,
        )
        .map_err(|denied| Refusal::forbidden(denied.to_string()))
    }

    fn in_slot(&self, slot: &StateSlot) -> Option<Arc<Event>> {
        let nid = self.head.state.get(&slot.hash())?;
        self.known.get(&nid).map(|stored| Arc::clone(&stored.event))
    }

    fn accept(&mut self, event: Event, nid: EventNid, verdict: &PushOutcome) -> Arc<StoredEvent> {
        let place = Place(self.head.last_place.0 + 1);
        let (mut replaces, mut interest) = (None, None);
        if let Some(slot) = StateSlot::of(&event) {
            replaces = self.head.state.get(&slot.hash());
            let before = replaces.and_then(|nid| self.known.get(&nid));
            interest = self
                .head
                .count_member(before.map(|stored| &*stored.event), Some(&event));
            self.head.state = self.head.state.with(StateNid(nid.0), [(slot.hash(), Some(nid))]);
            if let Some(run) = self.head.state.top() {
                self.records
                    .push(Record::State(NewState::of(self.head.room, run)));
            }
        }
        self.head.last_place = place;
        self.head.depth = event.depth;
        self.head.extremities = [Extremity {
            id: event.id.clone(),
            state: self.head.state.clone(),
        }]
        .into();
        let event = Arc::new(event);
        let mut stored = StoredEvent::new(
            Arc::clone(&event),
            nid,
            self.head.room,
            Some(place),
            self.head.state.nid(),
        );
        stored.replaces = replaces;
        (stored.relation, stored.thread) = super::relation::of(&event);
        stored.notify = verdict.to_others;
        let stored = Arc::new(stored);
        if event.is_state() {
            self.known.insert(nid, Arc::clone(&stored));
        }
        self.records.push(Record::Event(Arc::clone(&stored)));
        if let Some(membership) = membership_of(&stored) {
            self.records.push(Record::Membership(membership));
        }
        let own = self.identity.name();
        let of_another = interest.filter(|interest| interest.server_name != own);
        self.records.extend(of_another.map(Record::Interest));
        let exceptions = verdict.exceptions.iter();
        self.records.extend(exceptions.map(|(user_id, notify)| {
            Record::Notification(NewNotification {
                user_id: user_id.clone(),
                room: stored.room,
                place,
                notify: *notify,
                thread: stored.thread.as_ref().map(ToString::to_string),
            })
        }));
        stored
    }
}

fn not_built(error: maru_protocol::event::BuildError) -> Refusal {
    use maru_protocol::event::{BuildError, FormatError};
    let text = error.to_string();
    match error {
        BuildError::Format(FormatError::TooLarge { .. } | FormatError::TooLong(_)) => Refusal::TooLarge(text),
        BuildError::Format(FormatError::Nul(_)) => Refusal::InvalidParam(text),
        BuildError::Format(_) | BuildError::Content(_) => Refusal::BadJson(text),
        BuildError::ForeignSender => Refusal::forbidden(text),
        BuildError::Id(_) => Refusal::internal(text),
    }
}
