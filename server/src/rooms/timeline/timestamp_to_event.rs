//! Finding a place in a room's timeline by the clock (client-server API, "Jump to date").

use std::sync::Arc;

use maru_protocol::cursor::Place;
use maru_protocol::event::Event;
use ruma::UserId;

use super::client_event_format::VisibleEvent;
use super::history::ScanRange;
use crate::refusal::Refusal;
use crate::rooms::{Room, TimelineReader};
use crate::store::rooms::events::{Direction, StoredEvent};

impl TimelineReader {
    /// The event closest to a time: the first at or after it going forward, the last at or before it going backward.
    /// Finds it by halving, so that events whose senders' clocks ran wrong may be missed by a little.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is none that the user may see.
    pub async fn event_at_time(
        &self,
        user_id: &UserId,
        room: &Room,
        time_ms: u64,
        direction: Direction,
    ) -> Result<VisibleEvent, Refusal> {
        let scan = self.scan_for(user_id, room).await?;
        let boundary = self.boundary_at_time(room, time_ms, direction).await?;
        let is_due = |event: &Event| is_due(event, time_ms, direction);
        let range = ScanRange {
            from: boundary,
            to: None,
            direction,
            limit: 1,
            wanted: &is_due,
        };
        let mut scanned = self.scan(&scan, range).await?;
        let none = || Refusal::not_found("there is no event at that time that you may see");
        scanned.found.pop().ok_or_else(none)
    }

    /// Up to `limit` events of a room next to a time, nearest first, whoever may see them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn near_time(
        &self,
        room: &Room,
        time_ms: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let boundary = self.boundary_at_time(room, time_ms, direction).await?;
        let from = Place(boundary.0.saturating_add(1));
        let mut events = self
            .store
            .rooms
            .timeline(room.nid, from, direction, limit)
            .await?;
        events.retain(|stored| is_due(&stored.event, time_ms, direction));
        Ok(events)
    }

    /// The boundary of a timeline at a time, as the place before it.
    async fn boundary_at_time(
        &self,
        room: &Room,
        time_ms: u64,
        direction: Direction,
    ) -> Result<Place, Refusal> {
        let head = room.head();
        // The first place whose event is not before (forward), or is after (backward), the time.
        let (mut low, mut high) = (head.first_place.0, head.last_place.0.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let passed = match self.store.rooms.time_at(room.nid, Place(middle)).await? {
                Some((_, sent)) => match direction {
                    Direction::Forward => u64::try_from(sent).unwrap_or(0) >= time_ms,
                    Direction::Backward => u64::try_from(sent).unwrap_or(0) > time_ms,
                },
                None => true,
            };
            if passed {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Place(low.saturating_sub(1)))
    }
}

/// Whether an event is not before a time (forward), or not after it (backward).
fn is_due(event: &Event, time_ms: u64, direction: Direction) -> bool {
    match direction {
        Direction::Forward => event.origin_server_ts >= time_ms,
        Direction::Backward => event.origin_server_ts <= time_ms,
    }
}
