//! Storage of outliers: events of auth chains and of other servers' states, without a place in a timeline.

use std::sync::Arc;

use maru_protocol::RoomVersion;
use maru_protocol::event::Event;
use maru_protocol::gap::order;
use maru_protocol::ingest::{After, Facts, Known, Outcome, Outlier, Wanted, judge_outlier};
use maru_protocol::state::EventNid;

use super::IngestLock;
use crate::refusal::Refusal;
use crate::rooms::FactLoader;
use crate::store::Store;
use crate::store::log::{Change, Record};
use crate::store::rooms::events::StoredEvent;

/// Events that are stored in one change.
const STORED_TOGETHER: usize = 256;

/// Loads that one event may need.
const MOST_LOADS: usize = 16;

/// Storage of outliers: events of auth chains and of states before a join.
#[derive(Debug)]
pub struct Outliers {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) facts: Arc<FactLoader>,
}

impl Outliers {
    /// Stores verified events of an auth chain or a state as outliers, each after its auth events. Events whose auth events are
    /// neither here nor among them are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn store_all(
        &self,
        _lock: &IngestLock,
        room: i64,
        version: RoomVersion,
        events: Vec<Arc<Event>>,
    ) -> Result<(), Refusal> {
        let mut facts = Facts::default();
        let ids = events
            .iter()
            .flat_map(|event| event.auth_events.iter().chain([&event.id]).cloned());
        let wanted = Wanted {
            ids: ids.collect(),
            ..Wanted::default()
        };
        self.facts.load(&mut facts, wanted).await?;
        let mut records = Vec::new();
        for event in order::by_auth(events) {
            if facts.known(&event.id).is_some() {
                continue;
            }
            let Some(outcome) = self.decide(&event, version, &mut facts).await? else {
                continue;
            };
            let nid = EventNid(self.store.log.next_nid());
            let mut stored = StoredEvent::new(Arc::clone(&event), nid, room, None, None);
            stored.own = false;
            stored.outcome = outcome;
            facts.learn(Arc::new(Known {
                event,
                nid,
                outcome,
                state_after: After::Nowhere,
            }));
            records.push(Record::Event(Arc::new(stored)));
        }
        let mut stored = Vec::new();
        while !records.is_empty() {
            let rest = records.split_off(STORED_TOGETHER.min(records.len()));
            let together = std::mem::replace(&mut records, rest);
            stored.push(self.store.log.enqueue(Change::new(together))?);
        }
        for pending in stored {
            pending.wait().await?;
        }
        Ok(())
    }

    async fn decide(
        &self,
        event: &Event,
        version: RoomVersion,
        facts: &mut Facts,
    ) -> Result<Option<Outcome>, Refusal> {
        for _ in 0..MOST_LOADS {
            match judge_outlier(event, version, facts) {
                Outlier::Load(wanted) => self.facts.load(facts, wanted).await?,
                Outlier::Lacks(_) => return Ok(None),
                Outlier::Done(verdict) => return Ok(Some(verdict.outcome)),
            }
        }
        Ok(None)
    }
}
