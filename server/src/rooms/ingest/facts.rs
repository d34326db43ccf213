//! Loading of the facts that verdicts ask for, in few queries.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use maru_protocol::ingest::{After, Facts, Known, Wanted};
use maru_protocol::state::StateNid;
use ruma::OwnedEventId;

use crate::refusal::Refusal;
use crate::rooms::RoomRepository;
use crate::store::Store;

/// Doublings of the generations that one round loads.
const MOST_DOUBLINGS: u32 = 10;

/// Loading of the facts that verdicts on received events ask for.
#[derive(Debug)]
pub struct FactLoader {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    /// Most events that the verdict on a received one may look at.
    pub(in crate::rooms) verdict_events: usize,
}

impl FactLoader {
    /// Whether a verdict would look at more events than one may, with what is wanted for it.
    pub(super) fn is_too_costly(&self, facts: &Facts, wanted: &Wanted) -> bool {
        facts.len() + wanted.ids.len() + wanted.nids.len() > self.verdict_events
    }

    /// Loads what is wanted, or notes that it is not there. Three queries at most, none for what is in memory.
    pub(super) async fn load(&self, facts: &mut Facts, wanted: Wanted) -> Result<(), Refusal> {
        let by_id = self.repository.events_by_id(&wanted.ids).await?;
        let nids: Vec<_> = wanted.nids.into_iter().collect();
        let by_nid = self.repository.events(&nids).await?;
        for stored in by_id.into_iter().chain(by_nid.into_values()) {
            facts.learn(Arc::new(Known {
                event: Arc::clone(&stored.event),
                nid: stored.nid,
                outcome: stored.outcome,
                state_after: stored.state.map_or(After::Nowhere, After::Unread),
            }));
        }
        self.load_states(facts, &wanted.with_state).await?;
        wanted.ids.into_iter().for_each(|id| facts.lacks(id));
        Ok(())
    }

    /// Loads what is wanted and, from the third round on, the auth events of that: twice as many generations in each round.
    /// What needs a chain of auth events needs all of it, and is begun anew with every round.
    pub(super) async fn load_with_chains(
        &self,
        facts: &mut Facts,
        wanted: Wanted,
        round: u32,
    ) -> Result<(), Refusal> {
        let mut newest = wanted.ids.clone();
        self.load(facts, wanted).await?;
        let generations = 1_u32 << round.min(MOST_DOUBLINGS);
        for _ in 3..generations {
            let loaded = newest.iter().filter_map(|id| facts.known(id));
            let named = loaded.flat_map(|known| known.event.auth_events.iter());
            newest = named.filter(|id| !facts.was_asked(id)).cloned().collect();
            let wanted = Wanted {
                ids: newest.clone(),
                ..Wanted::default()
            };
            if newest.is_empty() || self.is_too_costly(facts, &wanted) {
                break;
            }
            self.load(facts, wanted).await?;
        }
        Ok(())
    }

    /// Loads the states after events that are held.
    async fn load_states(&self, facts: &mut Facts, after: &BTreeSet<OwnedEventId>) -> Result<(), Refusal> {
        let unread = |id: &OwnedEventId| {
            let known = facts.known(id)?;
            match known.state_after {
                After::Unread(nid) => Some((nid, Arc::clone(known))),
                _ => None,
            }
        };
        let unread: Vec<(StateNid, Arc<Known>)> = after.iter().filter_map(unread).collect();
        let nids: HashSet<StateNid> = unread.iter().map(|(nid, _)| *nid).collect();
        let states = self.store.rooms.states(nids.into_iter().collect()).await?;
        for (nid, known) in unread {
            let state = states.get(&nid).cloned();
            let state = state.ok_or_else(|| Refusal::internal(format!("state {} is missing", nid.0)))?;
            let state_after = After::State(state);
            facts.learn(Arc::new(Known {
                state_after,
                ..(*known).clone()
            }));
        }
        Ok(())
    }
}
