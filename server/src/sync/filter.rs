//! What a device wants to hear of (client-server API, "Filtering"), in the form that sync asks it.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use maru_protocol::event::Event;

use crate::cache::Cache;

/// Events of a room's timeline when the filter does not say.
const DEFAULT_TIMELINE: usize = 20;

/// Most events of a room's timeline in one answer.
const MOST_TIMELINE: usize = 500;

/// Filters that are kept parsed, two generations of this many.
const KNOWN_FILTERS: usize = 1_000;

/// Longest name of a filter that is kept, in bytes.
const LONGEST_NAME: usize = 1_024;

/// Filter of one kind of events (client-server API, "Filtering"). `None` lets all pass.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Event types, `*` standing for any characters.
    pub types: Option<Vec<String>>,
    /// Event types that are not wanted.
    pub not_types: Vec<String>,
    /// Senders.
    pub senders: Option<HashSet<String>>,
    /// Senders who are not wanted.
    pub not_senders: HashSet<String>,
    /// Rooms.
    pub rooms: Option<HashSet<String>>,
    /// Rooms that are not wanted.
    pub not_rooms: HashSet<String>,
    /// Whether the content must have, or not have, a `url`.
    pub contains_url: Option<bool>,
    /// Most events.
    pub limit: Option<usize>,
}

/// What a device wants to hear of.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Presence of other users.
    pub presence: EventFilter,
    /// Global account data.
    pub account_data: EventFilter,
    /// Rooms, as a whole.
    pub rooms: EventFilter,
    /// Timelines.
    pub timeline: EventFilter,
    /// State beside the timeline.
    pub state: EventFilter,
    /// Typing and receipts.
    pub ephemeral: EventFilter,
    /// Account data of rooms.
    pub room_account_data: EventFilter,
    /// Whether rooms that were left are part of a first sync.
    pub include_leave: bool,
    /// Whether only the members who speak in the timeline are sent.
    pub lazy_load_members: bool,
    /// Whether members are sent again who were sent before.
    pub include_redundant_members: bool,
    /// Whether unread counts are given by thread.
    pub unread_thread_notifications: bool,
}

/// Filters by the names that devices give them: parsed once, and in memory once, however many listen by them.
#[derive(Debug)]
pub struct KnownFilters(Cache<String, Arc<Filter>>);

impl Default for KnownFilters {
    fn default() -> Self {
        Self(Cache::new(KNOWN_FILTERS))
    }
}

impl KnownFilters {
    /// The filter of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Filter>> {
        self.0.get(name)
    }

    /// Keeps a filter, if it has a name; one that will always mean the same.
    pub fn keep(&self, name: Option<String>, filter: Filter) -> Arc<Filter> {
        let filter = Arc::new(filter);
        if let Some(name) = name.filter(|name| name.len() <= LONGEST_NAME) {
            self.0.insert(name, Arc::clone(&filter));
        }
        filter
    }
}

impl Filter {
    /// The filter of those who give none, of which there is one for all.
    pub fn everything() -> Arc<Self> {
        static EVERYTHING: LazyLock<Arc<Filter>> = LazyLock::new(Arc::default);
        Arc::clone(&EVERYTHING)
    }

    /// Most events of one room's timeline.
    #[must_use]
    pub fn timeline_limit(&self) -> usize {
        self.timeline
            .limit
            .unwrap_or(DEFAULT_TIMELINE)
            .clamp(1, MOST_TIMELINE)
    }

    /// Whether a room is wanted at all.
    #[must_use]
    pub fn wants_room(&self, room_id: &str) -> bool {
        self.rooms.wants_room(room_id)
    }
}

impl EventFilter {
    /// Whether nothing is left out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.types.is_none()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.not_senders.is_empty()
            && self.rooms.is_none()
            && self.not_rooms.is_empty()
            && self.contains_url.is_none()
    }

    /// Whether anything of a room is wanted.
    #[must_use]
    pub fn wants_room(&self, room_id: &str) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room_id)) && !self.not_rooms.contains(room_id)
    }

    /// Whether something of this type and sender is wanted.
    #[must_use]
    pub fn wants(&self, event_type: &str, sender: Option<&str>) -> bool {
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| is_like(event_type, pattern));
        self.types.as_ref().is_none_or(|types| matches(types))
            && !matches(&self.not_types)
            && sender.is_none_or(|sender| {
                self.senders
                    .as_ref()
                    .is_none_or(|senders| senders.contains(sender))
                    && !self.not_senders.contains(sender)
            })
    }

    /// Whether an event of a room is wanted.
    #[must_use]
    pub fn wants_event(&self, event: &Event) -> bool {
        if self.is_everything() {
            return true;
        }
        #[derive(serde::Deserialize)]
        struct Content {
            url: Option<serde::de::IgnoredAny>,
        }
        let has_url = || {
            event
                .content_as::<Content>()
                .is_ok_and(|content| content.url.is_some())
        };
        self.wants(&event.event_type, Some(event.sender.as_str()))
            && self.wants_room(event.room_id.as_str())
            && self.contains_url.is_none_or(|wanted| wanted == has_url())
    }
}

/// Whether `text` is like `pattern`, in which `*` stands for any characters. Costs grow with both lengths: each star
/// takes the first place that fits.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return text == pattern;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn stars_stand_for_anything() {
        for (text, pattern, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.*", true),
            ("m.room.message", "*", true),
            ("m.room.message", "*message", true),
            ("m.room.message", "m.*.message", true),
            ("m.room.message", "m.*.messages", false),
            ("m.room", "m.room.*", false),
            ("abab", "a*ab", true),
            ("ab", "ab*b", false),
        ] {
            assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
        }
    }
}
