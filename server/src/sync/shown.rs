//! What of a timeline a device is shown: what its filter lets through, and nothing of users who are ignored but the state
//! that they set (client-server API, "Filtering" and "Ignoring Users").

use std::collections::HashSet;
use std::sync::Arc;

use ruma::OwnedUserId;

use super::filter::EventFilter;
use super::memory_window::last_of_each_slot;
use super::window::JoinedWindow;
use crate::store::rooms::events::StoredEvent;

/// Which events of timelines a device is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// The filter of timelines.
    pub(super) wanted: &'a EventFilter,
    /// Users whose messages are not shown.
    pub(super) ignored: &'a HashSet<OwnedUserId>,
}

impl Shown<'_> {
    /// Whether nothing is left out.
    pub(super) fn is_everything(&self) -> bool {
        self.wanted.is_everything() && self.ignored.is_empty()
    }

    /// Whether an event is shown.
    pub(super) fn shows(&self, stored: &StoredEvent) -> bool {
        let event = &stored.event;
        self.wanted.wants_event(event) && (event.is_state() || !self.ignored.contains(&event.sender))
    }

    /// Leaves in a window's timeline the newest `limit` events that are shown. State events among the others are told as
    /// state: whatever the filter of the timeline says, the device is to know the room as it is.
    pub(super) fn cut(&self, joined: &mut JoinedWindow, limit: usize) {
        if self.is_everything() && joined.timeline.len() <= limit {
            return;
        }
        let timeline = std::mem::take(&mut joined.timeline);
        let shown: Vec<bool> = timeline.iter().map(|stored| self.shows(stored)).collect();
        let count = shown.iter().filter(|shown| **shown).count();
        let mut extra = count.saturating_sub(limit);
        joined.limited |= extra > 0;
        let mut skipped: Vec<Arc<StoredEvent>> = std::mem::take(&mut joined.skipped_state);
        for (stored, shown) in timeline.into_iter().zip(shown) {
            if shown && extra == 0 {
                joined.timeline.push(stored);
                continue;
            }
            extra -= usize::from(shown);
            if stored.event.is_state() {
                skipped.push(stored);
            }
        }
        joined.skipped_state = last_of_each_slot(skipped);
    }
}
