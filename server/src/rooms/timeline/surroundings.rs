//! What stands around many events of any rooms: a little of each timeline, for results of a search.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::{PageToken, Place};
use ruma::{OwnedUserId, UserId};

use super::client_event_format::VisibleEvent;
use super::history::leaves_out;
use crate::refusal::Refusal;
use crate::rooms::TimelineReader;
use crate::store::rooms::events::StoredEvent;

/// Most events on either side.
pub const MOST_AROUND: usize = 20;

/// What stands around an event.
#[derive(Debug)]
pub struct Surroundings {
    /// Events before it, newest first.
    pub before: Vec<VisibleEvent>,
    /// Events after it, oldest first.
    pub after: Vec<VisibleEvent>,
    /// Where to go on backwards.
    pub start: PageToken,
    /// Where to go on forwards.
    pub end: PageToken,
}

impl Surroundings {
    /// All of the events.
    pub fn events(&self) -> impl Iterator<Item = &VisibleEvent> {
        self.before.iter().chain(&self.after)
    }
}

impl TimelineReader {
    /// For each of some events that a user may see, up to `before` events right before it and `after` right after it, as far as
    /// the user may see them, and wants to. They end at a gap in the timeline, also at one that was closed since. One query, and
    /// those of visibility for each room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn surroundings(
        &self,
        user_id: &UserId,
        events: &[&Arc<StoredEvent>],
        before: usize,
        after: usize,
    ) -> Result<Vec<Surroundings>, Refusal> {
        let (before, after) = (before.min(MOST_AROUND), after.min(MOST_AROUND));
        let ranges: Vec<(i64, Place, Place)> = events
            .iter()
            .filter_map(|stored| {
                let (from, to) = range(stored.place?, before, after);
                Some((stored.room, from, to))
            })
            .collect();
        let mut around = HashMap::new();
        if before + after > 0 {
            let each = i64::try_from(before + after + 1).unwrap_or(i64::MAX);
            let read = self.store.rooms.timelines(&ranges, each).await?;
            let ignored = self.visibility.ignored_by(user_id).await?;
            for (room, events) in read {
                around.insert(room, self.seen_in(user_id, room, events, &ignored).await?);
            }
        }
        let none = Vec::new();
        let of = |stored: &&Arc<StoredEvent>| {
            let place = stored.place.unwrap_or_default();
            let (from, to) = range(place, before, after);
            let seen = around.get(&stored.room).unwrap_or(&none);
            split(seen, place, from, to)
        };
        Ok(events.iter().map(of).collect())
    }

    /// What a user sees of some events of a room, by place.
    async fn seen_in(
        &self,
        user_id: &UserId,
        room: i64,
        mut events: Vec<Arc<StoredEvent>>,
        ignored: &HashSet<OwnedUserId>,
    ) -> Result<Vec<VisibleEvent>, Refusal> {
        // Two events that stand near each other have some around them in common.
        events.dedup_by_key(|stored| stored.nid);
        events.retain(|stored| !leaves_out(ignored, stored));
        let Some(room) = self.repository.room_by_nid(room).await? else {
            return Ok(Vec::new());
        };
        let reader = self.visibility.membership_of(user_id, &room).await?;
        self.visibility
            .visible_events(user_id, &room, &reader, events)
            .await
    }
}

/// The places around a place.
fn range(place: Place, before: usize, after: usize) -> (Place, Place) {
    let distance = |events: usize| i64::try_from(events).unwrap_or(i64::MAX);
    let from = Place(place.0.saturating_sub(distance(before)));
    (from, Place(place.0.saturating_add(distance(after))))
}

/// What stands around a place within a range, of events in order of place.
fn split(seen: &[VisibleEvent], place: Place, from: Place, to: Place) -> Surroundings {
    let within = |range: std::ops::RangeInclusive<Place>| {
        let is_within = move |seen: &&VisibleEvent| seen.stored.place.is_some_and(|at| range.contains(&at));
        seen.iter().filter(is_within).cloned()
    };
    let mut before: Vec<_> = within(from..=Place(place.0.saturating_sub(1))).collect();
    before.reverse();
    let after: Vec<_> = within(Place(place.0.saturating_add(1))..=to).collect();
    let place_of = |seen: Option<&VisibleEvent>| seen.and_then(|seen| seen.stored.place).unwrap_or(place);
    let (first, last) = (place_of(before.last()), place_of(after.last()));
    Surroundings {
        before,
        after,
        start: PageToken::Place(Place(first.0.saturating_sub(1))),
        end: PageToken::Place(last),
    }
}
