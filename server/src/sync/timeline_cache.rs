//! Timelines of rooms in which something has just happened, written once for all who listen.
//!
//! A commit wakes every member of its room, and most of them get the very same events. The first one to answer
//! leaves the text here; the others take it. Only what differs from reader to reader is written for each.

use std::sync::Arc;

use maru_protocol::state::EventNid;

use super::window::JoinedWindow;
use crate::cache::Cache;

/// Rooms whose newest timeline is kept, two generations of this many.
const ROOMS: usize = 256;

/// Longest timeline that is kept, in bytes.
const LONGEST: usize = 64 * 1024;

/// Lifetime of a shared timeline, in milliseconds: it says how old its events are.
const SHARED_FOR_MS: u64 = 1000;

/// A timeline as it is for every device whose user may see all of it and sent none of it, and that lacks nothing before it.
#[derive(Debug)]
pub(super) struct SharedTimeline {
    events: Range,
    written_at_ms: u64,
    /// The members of the JSON object.
    pub(super) text: String,
}

/// Which events of a room's log a timeline has: all of the room's between two, so that the ends and the number tell.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: EventNid,
    last: EventNid,
    count: usize,
}

impl Range {
    fn of(joined: &JoinedWindow) -> Option<Self> {
        Some(Self {
            first: joined.timeline.first()?.nid,
            last: joined.timeline.last()?.nid,
            count: joined.timeline.len(),
        })
    }
}

/// The newest timeline of every busy room.
#[derive(Debug)]
pub(super) struct TimelineCache(Cache<i64, Arc<SharedTimeline>>);

impl TimelineCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(ROOMS))
    }

    /// The timeline of a window, if it was written for another device a moment ago.
    pub(super) fn get(&self, joined: &JoinedWindow, now_ms: u64) -> Option<Arc<SharedTimeline>> {
        let events = Range::of(joined)?;
        let shared = self.0.get(&joined.room.nid)?;
        let is_fresh = now_ms.saturating_sub(shared.written_at_ms) <= SHARED_FOR_MS;
        (shared.events == events && is_fresh).then_some(shared)
    }

    /// Keeps a timeline that the next listener is going to be shared.
    pub(super) fn keep(&self, joined: &JoinedWindow, now_ms: u64, text: &str) {
        let Some(events) = Range::of(joined).filter(|_| text.len() <= LONGEST) else {
            return;
        };
        let shared = SharedTimeline {
            events,
            written_at_ms: now_ms,
            text: text.to_owned(),
        };
        self.0.insert(joined.room.nid, Arc::new(shared));
    }
}
