//! Loading what the rules ask for, in few queries.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use maru_protocol::ingest::{After, Facts, Known, Wanted};
use maru_protocol::state::StateNid;
use ruma::OwnedEventId;

use crate::refusal::Refusal;
use crate::rooms::Rooms;

/// Most events that one verdict may look at. A room that needs more cannot be resolved here.
const MOST_FACTS: usize = 200_000;

impl Rooms {
    /// Loads what is wanted, or notes that it is not there. Three queries at most, none for what is in memory.
    pub(super) async fn load_facts(&self, facts: &mut Facts, wanted: Wanted) -> Result<(), Refusal> {
        if facts.len() > MOST_FACTS {
            return Err(Refusal::internal("a verdict that needs too many events"));
        }
        let by_id = self.events_by_id(&wanted.ids).await?;
        let nids: Vec<_> = wanted.nids.into_iter().collect();
        let by_nid = self.events(&nids).await?;
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
        let states = self.store.states(nids.into_iter().collect()).await?;
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
