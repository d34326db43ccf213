//! Gaps of timelines: points before which events are missing, and which those are.

use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::gap::missing::{Found, Missing};
use maru_protocol::ingest::{Facts, Outcome};
use ruma::OwnedEventId;

use super::Incoming;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::Store;
use crate::store::log::{Change, Record};
use crate::store::rooms::gaps::{Gap, GapChange};

/// Gaps of timelines, and the events that are missing in them.
#[derive(Debug)]
pub struct TimelineGaps {
    pub(in crate::rooms) store: Arc<Store>,
}

impl TimelineGaps {
    /// What is missing of events that accepted ones name, and before those of them that were turned down. Asks the database
    /// once for each generation of those, 40 at most; `facts` are what is known without asking.
    pub(super) async fn missing_of(
        &self,
        named: impl IntoIterator<Item = OwnedEventId>,
        facts: &mut Facts,
    ) -> Result<Vec<OwnedEventId>, Refusal> {
        let mut missing = Missing::of(named);
        while let Some(mut ids) = missing.next_generation() {
            for known in ids.iter().filter_map(|id| facts.known(id)) {
                let is_here = !known.is_outlier() || known.outcome == Outcome::Rejected;
                let found = found(is_here, known.outcome, &known.event.prev_events);
                missing.found(known.event.id.clone(), found);
            }
            ids.retain(|id| facts.known(id).is_none());
            let asked = ids.iter().map(ToString::to_string).collect();
            for stored in self.store.rooms.events_by_id(asked).await? {
                let is_here = stored.state.is_some() || stored.outcome == Outcome::Rejected;
                let found = found(is_here, stored.outcome, &stored.event.prev_events);
                ids.remove(&stored.event.id);
                missing.found(stored.event.id.clone(), found);
            }
            ids.into_iter().for_each(|id| missing.found(id, Found::Not));
        }
        Ok(missing.end())
    }

    /// What is missing before a live event, if it is accepted: of those that it names, where the state before it had to be
    /// told, and before those that were turned down. Asks nothing where it names accepted events alone.
    pub(super) async fn missing_before(
        &self,
        incoming: &Incoming,
        facts: &mut Facts,
    ) -> Result<Vec<OwnedEventId>, Refusal> {
        if may_lack(incoming, facts) {
            return self
                .missing_of(incoming.event.prev_events.iter().cloned(), facts)
                .await;
        }
        Ok(Vec::new())
    }

    /// What is missing at the newest gaps of a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn missing_at_gaps(&self, room: &Room) -> Result<Vec<OwnedEventId>, Refusal> {
        let gaps = self.store.rooms.gaps(room.nid).await?;
        let named = gaps.into_iter().flat_map(|gap| gap.missing);
        self.missing_of(named, &mut Facts::default()).await
    }

    /// The gap that a reader meets who goes back along a timeline from a place, with what is missing there now. One in which
    /// nothing is missing any more is closed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn gap_back_from(&self, room: &Room, place: Place) -> Result<Option<Gap>, Refusal> {
        let mut place = place;
        while let Some(mut gap) = self.store.rooms.gap_back_from(room.nid, place).await? {
            gap.missing = self.missing_of(gap.missing, &mut Facts::default()).await?;
            if !gap.missing.is_empty() {
                return Ok(Some(gap));
            }
            let closed = GapChange::Closed(room.nid, gap.before);
            self.store.log.append(Change::from(Record::Gap(closed))).await?;
            place = Place(gap.before.0 - 1);
        }
        Ok(None)
    }

    /// Those of some events that no gap of the timeline stands for yet.
    pub(super) async fn outside_gaps(
        &self,
        room: &Room,
        mut ids: Vec<OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Refusal> {
        if !ids.is_empty() {
            let gaps = self.store.rooms.gaps(room.nid).await?;
            ids.retain(|id| !gaps.iter().any(|gap| gap.missing.contains(id)));
        }
        Ok(ids)
    }
}

/// Whether something may be missing before an event where it is taken in: otherwise it names accepted ones alone, or has to
/// wait for what it names.
fn may_lack(incoming: &Incoming, facts: &Facts) -> bool {
    let known = |id| facts.known(id).filter(|known| !known.is_outlier());
    let outcomes = incoming
        .event
        .prev_events
        .iter()
        .map(|id| known(id).map(|known| known.outcome));
    let outcomes: Vec<_> = outcomes.collect();
    let has_to_wait = incoming.before.is_none() && outcomes.contains(&None);
    let is_plain = outcomes.iter().all(|outcome| *outcome == Some(Outcome::Accepted));
    !incoming.backfilled && !has_to_wait && !is_plain
}

fn found(is_here: bool, outcome: Outcome, prev_events: &[OwnedEventId]) -> Found {
    match (is_here, outcome) {
        (false, _) => Found::Not,
        (true, Outcome::Accepted) => Found::Accepted,
        (true, _) => Found::TurnedDown(prev_events.to_vec()),
    }
}
