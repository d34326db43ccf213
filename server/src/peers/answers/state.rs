//! The state before an event, with its auth chain.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::auth::StateSlot;
use maru_protocol::ingest::Outcome;
use maru_protocol::state::{State, StateNid};
use maru_protocol::wire::answer::Refused;
use maru_protocol::wire::request::state;
use ruma::{OwnedEventId, ServerName};

use super::{Asked, refused};
use crate::peers::Peers;
use crate::refusal::Refusal;
use crate::store::events::StoredEvent;

impl Peers {
    /// The state before an event that the peer may see.
    pub(super) async fn give_state(
        &self,
        peer: &ServerName,
        call: state::State,
        parts: &Parts,
    ) -> Result<Finished, Refused> {
        let Asked { room, audience } = self.room_for(peer, &call.room_id).await?;
        let found = self.events_of(&room, &[call.at]).await.map_err(refused)?;
        let nowhere = || refused(Refusal::not_found("the room has no such event"));
        let at = found.first().ok_or_else(nowhere)?;
        let told = self.rooms.told(&room, peer, audience, found.clone()).await;
        if told.map_err(refused)?.is_empty() {
            return Err(nowhere());
        }
        let before = self
            .state_before(at)
            .await
            .map_err(refused)?
            .ok_or_else(nowhere)?;
        let state = self.whole(&before).await.map_err(refused)?;
        let all = self.with_auth_chain(&state).await.map_err(refused)?;
        self.give_whole(&all, parts).await?;
        Finished::done::<state::State>(state::StateIds {
            state: state.iter().map(|stored| stored.event.id.clone()).collect(),
        })
    }

    /// The state before an event, as far as it is known.
    pub(super) async fn state_before(&self, at: &StoredEvent) -> Result<Option<State>, Refusal> {
        let Some(nid) = at.state else { return Ok(None) };
        let after = self.store.state(nid).await?;
        // The state before a state event is the one after it with what it replaced back in its slot.
        Ok(Some(match StateSlot::of(&at.event) {
            Some(slot) if after.get(&slot.hash()) == Some(at.nid) => {
                after.with(StateNid(at.nid.0), [(slot.hash(), at.replaces)])
            }
            _ => after,
        }))
    }

    /// The events of a state. Costs grow with their number.
    pub(super) async fn whole(&self, state: &State) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        Ok(self.rooms.events(&state.events()).await?.into_values().collect())
    }

    /// Events and everything that allows them, each after what it names. A query for each generation.
    pub(super) async fn with_auth_chain(
        &self,
        events: &[Arc<StoredEvent>],
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut found: HashMap<OwnedEventId, Arc<StoredEvent>> = events
            .iter()
            .map(|stored| (stored.event.id.clone(), Arc::clone(stored)))
            .collect();
        let named = |events: &[Arc<StoredEvent>]| -> HashSet<OwnedEventId> {
            events
                .iter()
                .flat_map(|stored| stored.event.auth_events.iter().cloned())
                .collect()
        };
        let mut open = named(events);
        loop {
            open.retain(|id| !found.contains_key(id));
            if open.is_empty() {
                break;
            }
            let ids = open.drain().map(String::from).collect();
            let mut generation = self.store.events_by_id(ids).await?;
            generation.retain(|stored| stored.outcome != Outcome::Rejected);
            open = named(&generation);
            found.extend(
                generation
                    .into_iter()
                    .map(|stored| (stored.event.id.clone(), stored)),
            );
        }
        let mut all: Vec<_> = found.into_values().collect();
        all.sort_by_key(|stored| (stored.event.depth, stored.nid));
        Ok(all)
    }
}
