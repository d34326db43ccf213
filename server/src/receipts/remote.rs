//! Receipts of other servers' users. One for an event that is not here yet waits for it, for a while.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::{Receipts, Thread};
use crate::observe::metrics;
use crate::refusal::Refusal;
use crate::store::log::Record;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::{Receipt, WaitingReceipt};

/// How long a receipt waits for its event, in milliseconds: one day.
pub const WAIT_MS: u64 = 24 * 60 * 60 * 1000;

/// A public receipt that another server tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardReceipt {
    /// Where.
    pub room_id: OwnedRoomId,
    /// Who has read.
    pub user_id: OwnedUserId,
    /// The last event read.
    pub event_id: OwnedEventId,
    /// Of which part of the room.
    pub thread: Thread,
    /// When, in milliseconds since 1970.
    pub ts: i64,
}

impl Receipts {
    /// What receipts of other servers' users become: receipts here, or some that wait, while there is room for them. Those
    /// of users who are not in the room are refused; one that would move back is left where it is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn judge(&self, heard: Vec<HeardReceipt>) -> Result<Vec<Record>, Refusal> {
        if heard.is_empty() {
            return Ok(Vec::new());
        }
        let users: HashSet<String> = heard.iter().map(|heard| heard.user_id.to_string()).collect();
        let users: Vec<String> = users.into_iter().collect();
        let rooms: HashSet<String> = heard.iter().map(|heard| heard.room_id.to_string()).collect();
        let events = heard.iter().map(|heard| heard.event_id.to_string()).collect();
        let joined = self
            .store
            .rooms
            .joined_in(users.clone(), rooms.into_iter().collect())
            .await?;
        let events: HashMap<_, _> = self
            .store
            .rooms
            .events_by_id(events)
            .await?
            .into_iter()
            .map(|stored| (stored.event.id.clone(), stored))
            .collect();
        let rooms: HashSet<i64> = joined.values().copied().collect();
        let mut now: HashMap<_, _> = self
            .store
            .rooms
            .public_receipts(users, rooms.into_iter().collect())
            .await?
            .into_iter()
            .map(|receipt| ((receipt.room, receipt.user_id, receipt.thread), receipt.place))
            .collect();
        let heard_at = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let mut records = Vec::new();
        for heard in heard {
            let Some(room) = joined.get(&(heard.room_id.clone(), heard.user_id.clone())) else {
                metrics::PEER_ITEMS_REFUSED.add(1);
                continue;
            };
            let stored = events
                .get(&heard.event_id)
                .filter(|stored| stored.place.is_some());
            let waiting = WaitingReceipt {
                room: *room,
                user_id: heard.user_id,
                thread: heard.thread.as_str().to_owned(),
                event_id: heard.event_id,
                ts: heard.ts,
                heard_at,
            };
            let Some(stored) = stored else {
                if self.awaited.add(&waiting.event_id) {
                    records.push(Record::WaitingReceipt(waiting));
                } else {
                    metrics::PEER_ITEMS_REFUSED.add(1);
                }
                continue;
            };
            let Some(receipt) = receipt(waiting, stored) else {
                metrics::PEER_ITEMS_REFUSED.add(1);
                continue;
            };
            let key = (receipt.room, receipt.user_id.clone(), receipt.thread.clone());
            if now.get(&key).is_none_or(|before| *before < receipt.place) {
                now.insert(key, receipt.place);
                records.push(Record::Receipt(receipt));
            }
        }
        Ok(records)
    }

    /// Awaits the events that receipts wait for, and settles what has come unseen.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        let awaited = self.store.rooms.awaited_events().await?;
        self.awaited.replace(awaited.clone());
        self.settle(awaited).await
    }

    /// Has receipts that waited when the server stopped wait on, and settles whatever has come.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Refusal> {
        self.refresh().await?;
        let (receipts, awaited) = (Arc::downgrade(self), Arc::clone(&self.awaited));
        self.tasks.keep("settle_receipts", move || {
            let (receipts, awaited) = (Weak::clone(&receipts), Arc::clone(&awaited));
            async move {
                loop {
                    let come = awaited.take().await;
                    let Some(receipts) = receipts.upgrade() else {
                        return;
                    };
                    if let Err(refusal) = receipts.settle(come).await {
                        tracing::warn!(%refusal, "receipts that waited are not shown");
                    }
                }
            }
        });
        Ok(())
    }

    /// Stores the receipts that waited for events which are here now. Those events that are not, after all, go on being
    /// awaited.
    ///
    /// # Errors
    /// When the database cannot be read, or nothing was stored.
    pub async fn settle(&self, events: Vec<OwnedEventId>) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = events.iter().map(ToString::to_string).collect();
        let waiting = self.store.rooms.receipts_waiting_for(names.clone()).await?;
        let stored: HashMap<_, _> = self
            .store
            .rooms
            .events_by_id(names)
            .await?
            .into_iter()
            .filter(|stored| stored.place.is_some())
            .map(|stored| (stored.event.id.clone(), stored))
            .collect();
        if stored.is_empty() {
            return Ok(());
        }
        let receipts = waiting.into_iter().filter_map(|waiting| {
            let stored = stored.get(&waiting.event_id)?;
            receipt(waiting, stored)
        });
        let settled: Vec<String> = stored.keys().map(ToString::to_string).collect();
        self.store
            .rooms
            .settle_receipts(receipts.collect(), settled)
            .await?;
        stored.keys().for_each(|event_id| self.awaited.remove(event_id));
        Ok(())
    }
}

/// The receipt for an event that is here; none where the event is of another room or thread.
fn receipt(waiting: WaitingReceipt, stored: &StoredEvent) -> Option<Receipt> {
    let thread = Thread::named(&waiting.thread)?;
    if stored.room != waiting.room || !thread.may_hold(stored) {
        return None;
    }
    Some(Receipt {
        room: waiting.room,
        user_id: waiting.user_id,
        receipt_type: "m.read".to_owned(),
        thread: waiting.thread,
        event_id: waiting.event_id,
        place: stored.place?,
        ts: waiting.ts,
        own: false,
    })
}
