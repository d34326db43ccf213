//! Ingest of backfilled events: pages of the past that close or move a gap of the timeline.

use std::sync::Arc;

use maru_protocol::gap::timeline::{Filling, Moved};

use super::live::Destination;
use super::{Incoming, IngestLock, IngestResult};
use crate::observe::metrics;
use crate::refusal::Refusal;
use crate::rooms::{Ingest, Room};
use crate::store::log::{Change, Record};
use crate::store::rooms::gaps::{Gap, GapChange};

impl Ingest {
    /// Ingests a page of backfilled events, oldest first, each with its state worked out from those before it. They are
    /// placed right before the event after a gap, in the order in which they happened, and the gap moves before them, all in
    /// one change: a page that is cut off leaves the gap as it was. Answers whether any was new.
    ///
    /// Those whose ancestors are neither here nor among them are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ingest_page(
        &self,
        ingest_lock: &IngestLock,
        room: &Arc<Room>,
        gap: &Gap,
        mut incoming: Vec<Incoming>,
    ) -> Result<bool, Refusal> {
        ingest_lock.check(&room.room_id)?;
        // Places count down from the gap, so room is made for all of them first and filled upwards.
        let mut filling = Filling::new(gap.before, &gap.missing, incoming.len());
        let mut facts = self.facts_about(room, &mut incoming).await?;
        let (mut page, mut taken) = (Vec::new(), Vec::with_capacity(incoming.len()));
        for (incoming, place) in incoming.into_iter().zip(filling.places()) {
            let event = Arc::clone(&incoming.event);
            let mut destination = Destination::Page(place, &mut page);
            let (result, _) = self
                .ingest_one(room, incoming, &mut facts, &mut destination)
                .await?;
            filling.took(&event, matches!(result, IngestResult::Stored(_)));
            taken.push(result);
        }
        let missing = self.gaps.missing_of(filling.named(), &mut facts).await?;
        self.store_page(room, filling.moved(missing), page).await?;
        taken.iter().for_each(|taken| metrics::INGESTED.add(taken.name()));
        Ok(taken.iter().any(|taken| matches!(taken, IngestResult::Stored(_))))
    }

    /// Stores a page of the past and what is missing before it; the timeline may begin there now.
    async fn store_page(&self, room: &Room, gap: Moved, page: Vec<Record>) -> Result<(), Refusal> {
        let _alone = room.past.write().await;
        let pending = {
            let lock = room.lock();
            let mut head = (**lock.head()).clone();
            head.first_place = head.first_place.min(gap.to);
            let mut records = vec![Record::Gap(GapChange::Closed(room.nid, gap.from))];
            records.extend(page);
            if !gap.missing.is_empty() {
                records.push(Record::Gap(GapChange::Opened(Gap {
                    room: room.nid,
                    before: gap.to,
                    missing: gap.missing,
                })));
            }
            records.push(Record::Head(head.clone()));
            let pending = self
                .store
                .log
                .enqueue(Change::new(records).on_head(lock.ticket()))?;
            lock.advance(Arc::new(head));
            pending
        };
        pending.wait().await?;
        Ok(())
    }
}
