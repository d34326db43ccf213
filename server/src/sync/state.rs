//! The state part of rooms: what a device must know besides the timeline.
//!
//! Given before the timeline by default, and after it on `use_state_after`. For a room that the device knows, it is
//! the state events that the timeline leaves out; for one it does not know, the whole state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{Place, Position};
use maru_protocol::state::{EventNid, State, StateNid};
use ruma::UserId;

use super::lazy_members::GivenMembers;
use super::memory_window::last_of_each_slot;
use super::window::JoinedWindow;
use super::{Sync, SyncRequest, members};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::rooms::events::StoredEvent;

/// Whole states of more entries than this are not loaded for a device that loads members lazily; the database picks
/// out what is no membership.
const LOAD_WHOLE: usize = 256;

/// Whose state is asked for, and what of it.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) sync: &'a Sync,
    pub(super) caller: &'a Caller,
    pub(super) wish: &'a SyncRequest,
    /// What the device has been given, if it loads members lazily.
    pub(super) given: Option<&'a GivenMembers>,
    /// The cursor that the answer takes the device to.
    pub(super) until: Position,
}

impl Asking<'_> {
    /// The state events to send, by room. With `whole`, whole states.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn of_rooms(
        &self,
        rooms: impl Iterator<Item = &JoinedWindow> + Send,
        whole: bool,
    ) -> Result<HashMap<i64, Vec<Arc<StoredEvent>>>, Refusal> {
        let mut needed: HashMap<i64, Vec<EventNid>> = HashMap::new();
        let mut to_send: HashMap<i64, Vec<Arc<StoredEvent>>> = HashMap::new();
        for joined in rooms {
            let nid = joined.room.nid;
            if joined.entire || whole {
                let (state, edge) = self.state_for(joined).await?;
                needed.insert(nid, self.whole(joined, &state).await?);
                // What changed after that and is not shown in the timeline.
                let mut beyond = joined.skipped_state.clone();
                beyond.retain(|stored| stored.place > edge);
                to_send.insert(nid, beyond);
            } else {
                let mut events = joined.skipped_state.clone();
                if self.wish.state.is_after() {
                    events.extend(
                        joined
                            .timeline
                            .iter()
                            .filter(|stored| stored.event.is_state())
                            .cloned(),
                    );
                    events.sort_by_key(|stored| stored.place);
                    events = last_of_each_slot(events);
                }
                if let Some(given) = self.given.filter(|_| joined.end.is_none()) {
                    needed.insert(nid, self.speakers(given, joined, &events));
                }
                to_send.insert(nid, events);
            }
        }
        let all: Vec<EventNid> = needed.values().flatten().copied().collect();
        let loaded = match all[..] {
            [] => HashMap::new(),
            _ => self.sync.rooms.repository.events(&all).await?,
        };
        for (nid, events) in needed {
            let mut whole: Vec<_> = events
                .iter()
                .filter_map(|event| loaded.get(event).cloned())
                .collect();
            let to_send = to_send.entry(nid).or_default();
            if whole.is_empty() {
                continue;
            }
            whole.append(to_send);
            *to_send = last_of_each_slot(whole);
        }
        for events in to_send.values_mut() {
            events.retain(|stored| self.wish.filter.state.wants_event(&stored.event));
        }
        to_send.retain(|_, events| !events.is_empty());
        Ok(to_send)
    }

    /// The state before or after a window's timeline, and the place of the newest event whose change may be in it. Where
    /// the timeline shows nothing it is the one in the end: the room's present one, or that in which the user left.
    async fn state_for(&self, joined: &JoinedWindow) -> Result<(State, Option<Place>), Refusal> {
        let after = self.wish.state.is_after();
        let edge = if after {
            joined.timeline.last()
        } else {
            joined.timeline.first()
        };
        let Some(edge) = edge.or(joined.end.as_ref()) else {
            return Ok((joined.room.head().state.clone(), Some(Place(i64::MAX))));
        };
        let at_edge = match edge.state {
            Some(nid) if joined.room.head().state.nid() == Some(nid) => joined.room.head().state.clone(),
            Some(nid) => self.sync.store.rooms.state(nid).await?,
            None => State::default(),
        };
        // The state before a state event is the one after it with the replaced event back in its slot.
        let state = match StateSlot::of(&edge.event) {
            Some(slot) if !after && !joined.timeline.is_empty() => {
                at_edge.with(StateNid(edge.nid.0), [(slot.hash(), edge.replaces)])
            }
            _ => at_edge,
        };
        Ok((state, edge.place))
    }

    /// The events of a whole state, without members who do not speak if the device loads them lazily.
    async fn whole(&self, joined: &JoinedWindow, state: &State) -> Result<Vec<EventNid>, Refusal> {
        let mut events = state.events();
        let Some(given) = self.given else {
            return Ok(events);
        };
        if events.len() > LOAD_WHOLE {
            events = self.sync.store.rooms.without_members(&events).await?;
        } else {
            let loaded = self.sync.rooms.repository.events(&events).await?;
            events.retain(|nid| {
                loaded
                    .get(nid)
                    .is_some_and(|stored| &*stored.event.event_type != "m.room.member")
            });
        }
        let members = self.member_events(joined, state, true);
        given.remember(&members, self.until);
        events.extend(members);
        Ok(events)
    }

    /// The membership events of those who speak in a timeline, as far as the device lacks them. Where events were left
    /// out, the device may have dropped what it knew: then all of them, and the user's own.
    fn speakers(
        &self,
        given: &GivenMembers,
        joined: &JoinedWindow,
        to_send: &[Arc<StoredEvent>],
    ) -> Vec<EventNid> {
        let mut members = self.member_events(joined, &joined.room.head().state, joined.limited);
        if !self.wish.state.is_after() {
            members = self.before_timeline(joined, members);
        }
        let here: HashSet<EventNid> = to_send
            .iter()
            .chain(&joined.timeline)
            .map(|stored| stored.nid)
            .collect();
        members.retain(|nid| !here.contains(nid));
        if !joined.limited && !self.wish.filter.include_redundant_members {
            given.keep_new(&mut members);
        }
        given.remember(&members, self.until);
        members
    }

    /// The same memberships as they were before the timeline: of those that it changes, the ones that are replaced first.
    fn before_timeline(&self, joined: &JoinedWindow, members: Vec<EventNid>) -> Vec<EventNid> {
        let mut replaced: HashMap<&UserId, Option<EventNid>> = HashMap::new();
        let mut latest: HashMap<EventNid, &UserId> = HashMap::new();
        for stored in &joined.timeline {
            if let Some(user_id) = members::subject(&stored.event) {
                replaced.entry(user_id).or_insert(stored.replaces);
                latest.insert(stored.nid, user_id);
            }
        }
        let before = |member: EventNid| match latest.get(&member) {
            Some(user_id) => replaced.get(user_id).copied().flatten(),
            None => Some(member),
        };
        members.into_iter().filter_map(before).collect()
    }

    fn member_events(&self, joined: &JoinedWindow, state: &State, with_own: bool) -> Vec<EventNid> {
        let senders = joined.timeline.iter().map(|stored| stored.event.sender.as_str());
        let own = with_own.then_some(self.caller.user_id.as_str());
        let mut senders: Vec<_> = senders.chain(own).collect();
        senders.sort_unstable();
        senders.dedup();
        let of = |sender: &str| state.get(&StateSlot::new("m.room.member", sender).hash());
        senders.into_iter().filter_map(of).collect()
    }
}
