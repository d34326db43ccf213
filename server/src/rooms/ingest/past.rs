//! The past of a room, from before this server had it, and what is missing in between: the gaps of its timeline.

use std::collections::BTreeSet;
use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::ingest::Facts;
use ruma::OwnedEventId;

use super::{Incoming, Taken};
use crate::refusal::Refusal;
use crate::rooms::{Room, Rooms};
use crate::store::gaps::{Gap, GapChange};
use crate::store::log::{Change, Pending, Record};

impl Rooms {
    /// The gap that a reader meets who goes back along a timeline from a place, with what is missing there now. One in which
    /// nothing is missing any more is closed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn gap_back_from(&self, room: &Room, place: Place) -> Result<Option<Gap>, Refusal> {
        let mut place = place;
        while let Some(mut gap) = self.store.gap_back_from(room.nid, place).await? {
            gap.missing = self.missing_of(gap.missing, &mut Facts::default()).await?;
            if !gap.missing.is_empty() {
                return Ok(Some(gap));
            }
            let closed = GapChange::Closed(room.nid, gap.before);
            self.store.append(Change::from(Record::Gap(closed))).await?;
            place = Place(gap.before.0 - 1);
        }
        Ok(None)
    }

    /// Takes in backfilled events, oldest first, each with its state worked out from those before it. They are placed right
    /// before the event after a gap, in the order in which they happened, and the gap moves before them. Answers whether any
    /// was new.
    ///
    /// Those whose ancestors are neither here nor among them are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_in_past(
        &self,
        room: &Arc<Room>,
        gap: &Gap,
        incoming: Vec<Incoming>,
    ) -> Result<bool, Refusal> {
        let _alone = room.past.write().await;
        // Places count down from the gap, so room is made for all of them first and filled upwards. Until all are stored,
        // whatever any of them names may be missing.
        let count = i64::try_from(incoming.len()).unwrap_or(i64::MAX);
        let moved = Gap {
            room: room.nid,
            before: Place(gap.before.0 - count),
            missing: gap.missing.clone(),
        };
        let named = incoming.iter().flat_map(|incoming| &incoming.event.prev_events);
        let named: BTreeSet<OwnedEventId> = named.chain(&gap.missing).cloned().collect();
        let before_that = self.move_gap(room, gap.before, &moved)?;
        let places = (moved.before.0..).map(|at| Some(Place(at)));
        let placed = incoming.into_iter().zip(places).collect();
        let taken = self.take_in_at(room, placed).await?;
        before_that.wait().await?;
        let missing = self.missing_of(named, &mut Facts::default()).await?;
        let change = match missing.is_empty() {
            true => GapChange::Closed(room.nid, moved.before),
            false => GapChange::Opened(Gap { missing, ..moved }),
        };
        self.store.append(Change::from(Record::Gap(change))).await?;
        Ok(taken.iter().any(|taken| matches!(taken, Taken::Stored(_))))
    }

    /// Moves a gap further back; the timeline may begin there now.
    fn move_gap(&self, room: &Room, from: Place, to: &Gap) -> Result<Pending, Refusal> {
        let lock = room.lock();
        let mut head = (**lock.head()).clone();
        head.first_place = head.first_place.min(to.before);
        let records = vec![
            Record::Gap(GapChange::Closed(room.nid, from)),
            Record::Gap(GapChange::Opened(to.clone())),
            Record::Head(head.clone()),
        ];
        let pending = self.store.enqueue(Change::new(records).on_head(lock.ticket()))?;
        lock.advance(Arc::new(head));
        Ok(pending)
    }
}
