//! The state before an event: whole with its auth chain, or as far as it differs from one that the peer knows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::event::Event;
use maru_protocol::gap::order;
use maru_protocol::ingest::Outcome;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::wire::answer::{Part, Refused, RefusedCode};
use maru_protocol::wire::limits::{MAX_AUTH_CHAIN, MAX_STATE_IDS};
use maru_protocol::wire::request::state::{self, Difference, Extent, StateIds};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::{Asked, refused};
use crate::peers::Peers;
use crate::refusal::Refusal;
use crate::store::events::StoredEvent;

/// Most servers whose records go before a state; those of the others go with their events.
const MOST_SERVERS: usize = maru_protocol::wire::limits::MAX_RECORDS;

/// A slot of a state, and what is in it instead.
pub(in crate::peers) type Change = (SlotHash, Option<EventNid>);

impl Peers {
    /// The state before an event that the peer may see.
    pub(super) async fn give_state(
        &self,
        peer: &ServerName,
        call: state::State,
        parts: &Parts,
    ) -> Result<Finished, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let before = self.told_state_before(peer, &asked, &call.at).await;
        let before = before
            .map_err(refused)?
            .ok_or_else(|| refused(Refusal::not_found("the room has no such event")))?;
        let beside = match &call.beside {
            Some(id) => self.told_state_before(peer, &asked, id).await.map_err(refused)?,
            None => None,
        };
        let ids = match beside {
            Some(beside) => self.give_difference(&beside, &before, parts).await?,
            None => None,
        };
        Finished::done::<state::State>(match ids {
            Some(ids) => ids,
            None => StateIds {
                state: self.give_whole(&before, std::iter::empty(), parts).await?,
                difference: None,
            },
        })
    }

    /// The state before an event of a room, if the peer may be told of the event and the state is known.
    async fn told_state_before(
        &self,
        peer: &ServerName,
        Asked { room, audience }: &Asked,
        at: &EventId,
    ) -> Result<Option<State>, Refusal> {
        let found = self.events_of(room, &[at.to_owned()]).await?;
        let Some(at) = found.first().cloned() else {
            return Ok(None);
        };
        if self.rooms.told(room, peer, *audience, found).await?.is_empty() {
            return Ok(None);
        }
        self.state_before(&at).await
    }

    /// Sends all events of a state and its auth chain, each after those that allow it, and answers which are the state.
    /// The records of `servers` go first.
    ///
    /// Costs grow with the state, in memory too.
    pub(super) async fn give_whole(
        &self,
        state: &State,
        servers: impl Iterator<Item = &OwnedServerName>,
        parts: &Parts,
    ) -> Result<Vec<OwnedEventId>, Refused> {
        let state = self.whole(state).await.map_err(refused)?;
        let all = self.with_auth_chain(&state).await.map_err(refused)?;
        let chain = all.len().saturating_sub(state.len());
        if state.len() > MAX_STATE_IDS || chain > MAX_AUTH_CHAIN {
            let why = "the state of the room is too large to be told";
            return Err(Refused::new(RefusedCode::TooLarge, why));
        }
        let first = Part {
            extent: Some(extent(state.len(), chain)),
            records: self.records_of(servers.take(MOST_SERVERS).map(AsRef::as_ref)),
            ..Part::default()
        };
        parts.send(first).await?;
        self.give(&all, parts).await?;
        Ok(state.iter().map(|stored| stored.event.id.clone()).collect())
    }

    /// Sends the events in which a state differs from one that the peer knows. None where the whole is not much more.
    async fn give_difference(
        &self,
        beside: &State,
        state: &State,
        parts: &Parts,
    ) -> Result<Option<StateIds>, Refused> {
        let changes = beside.changes_to(state);
        let filled = state.entries().len();
        if changes.len() > filled / 2 {
            return Ok(None);
        }
        let there: Vec<_> = changes.iter().filter_map(|(_, event)| *event).collect();
        let emptied = changes.iter().filter(|(_, event)| event.is_none());
        let gone: Vec<_> = emptied.filter_map(|(slot, _)| beside.get(slot)).collect();
        let there = self.rooms.events(&there).await.map_err(refused)?;
        let gone = self.rooms.events(&gone).await.map_err(refused)?;
        let events = there.values().map(|stored| Arc::clone(&stored.event));
        let events = order::by_auth(events);
        let first = Part {
            extent: Some(extent(events.len(), 0)),
            ..Part::default()
        };
        parts.send(first).await?;
        self.give(&events, parts).await?;
        Ok(Some(StateIds {
            state: events.iter().map(|event| event.id.clone()).collect(),
            difference: Some(Difference {
                gone: gone.values().map(|stored| stored.event.id.clone()).collect(),
                filled: filled as u64,
            }),
        }))
    }

    /// The state before an event, as far as it is known.
    pub(super) async fn state_before(&self, at: &StoredEvent) -> Result<Option<State>, Refusal> {
        let around = self.state_around(at).await?;
        // It only serves to be looked at: the number is that of no state.
        Ok(around.map(|(after, back)| after.with(StateNid(0), back)))
    }

    /// The state after an event, and what to change in it for the one before: where it is state, what it replaced is back
    /// in its slot.
    pub(in crate::peers) async fn state_around(
        &self,
        at: &StoredEvent,
    ) -> Result<Option<(State, Option<Change>)>, Refusal> {
        let Some(nid) = at.state else { return Ok(None) };
        let after = self.store.state(nid).await?;
        let slot = StateSlot::of(&at.event).map(|slot| slot.hash());
        let filled = slot.filter(|slot| after.get(slot) == Some(at.nid));
        Ok(Some((after, filled.map(|slot| (slot, at.replaces)))))
    }

    /// The events of a state. Costs grow with their number.
    async fn whole(&self, state: &State) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        Ok(self.rooms.events(&state.events()).await?.into_values().collect())
    }

    /// Events and everything that allows them, each after those that allow it. A query for each generation.
    async fn with_auth_chain(&self, events: &[Arc<StoredEvent>]) -> Result<Vec<Arc<Event>>, Refusal> {
        let mut found: HashMap<OwnedEventId, Arc<Event>> = events
            .iter()
            .map(|stored| (stored.event.id.clone(), Arc::clone(&stored.event)))
            .collect();
        let mut open: HashSet<OwnedEventId> = events
            .iter()
            .flat_map(|stored| stored.event.auth_events.iter().cloned())
            .collect();
        loop {
            open.retain(|id| !found.contains_key(id));
            if open.is_empty() {
                break;
            }
            let ids = open.drain().map(String::from).collect();
            let mut generation = self.store.events_by_id(ids).await?;
            generation.retain(|stored| stored.outcome != Outcome::Rejected);
            for stored in generation {
                open.extend(stored.event.auth_events.iter().cloned());
                found.insert(stored.event.id.clone(), Arc::clone(&stored.event));
            }
        }
        Ok(order::by_auth(found.into_values()))
    }
}

fn extent(state: usize, chain: usize) -> Extent {
    Extent {
        state: state as u64,
        chain: chain as u64,
    }
}
