//! Loading what the rules ask for, in few queries.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::ingest::{Facts, Known, Wanted};
use maru_protocol::state::StateNid;

use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::events::StoredEvent;

/// Most events that one verdict may look at. A room that needs more cannot be resolved here.
const MOST_FACTS: usize = 200_000;

impl Rooms {
    /// Loads what is wanted, or notes that it is not there. Three queries at most.
    pub(super) async fn load_facts(&self, facts: &mut Facts, wanted: Wanted) -> Result<(), Refusal> {
        if facts.len() > MOST_FACTS {
            return Err(Refusal::internal("a verdict that needs too many events"));
        }
        let by_id = self
            .store
            .events_by_id(wanted.ids.iter().map(ToString::to_string).collect())
            .await?;
        let nids: Vec<_> = wanted.nids.into_iter().collect();
        let by_nid = self.events(&nids).await?;
        let events: Vec<Arc<StoredEvent>> = by_id.into_iter().chain(by_nid.into_values()).collect();
        let nids: HashSet<StateNid> = events.iter().filter_map(|stored| stored.state).collect();
        let states = self.store.states(nids.into_iter().collect()).await?;
        for stored in events {
            facts.learn(Arc::new(Known {
                event: Arc::clone(&stored.event),
                nid: stored.nid,
                outcome: stored.outcome,
                state_after: stored.state.and_then(|nid| states.get(&nid).cloned()),
            }));
        }
        wanted.ids.into_iter().for_each(|id| facts.lacks(id));
        Ok(())
    }
}
