//! Every size that is a rule: bounds of identifiers, events and lists (client-server specification,
//! "Size limits", and the room event format).
//!
//! Limits that an admin may change live with the server's configuration, not here.

use serde::Deserialize;

use crate::canonical::Content;

/// Longest user id, room id, room alias, event id, event type or state key, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// Largest event without the mark in its room's create event, in bytes of canonical JSON with signatures.
pub const DEFAULT_MAX_EVENT_BYTES: usize = 65_536;

/// Largest event that any room may allow, in bytes: what rooms made by Maru carry in the mark.
pub const LARGE_MAX_EVENT_BYTES: usize = 1_048_576;

/// The field of `m.room.create` that raises the limit of a room.
///
/// Size is a rule of the room and not a setting of a server, or replicas would part ways.
pub const MAX_EVENT_BYTES_FIELD: &str = "maru.max_event_bytes";

/// Most entries of `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;

/// Most entries of `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Deepest nesting of arrays and objects in an event, the event's own object included.
///
/// Stays below the 128 levels at which common JSON readers give up, with room for the objects that a
/// sync answer or a `redacted_because` wraps around an event.
pub const MAX_JSON_DEPTH: usize = 100;

/// Longest `body` of a message, in characters, for local sends. Never applied to received events.
pub const MAX_BODY_CHARACTERS: usize = 100_000;

/// Largest absolute value of an integer in canonical JSON: 2^53 - 1.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// The event limit, in bytes, of a room whose create event has this content.
///
/// A mark that is not an integer between the default and [`LARGE_MAX_EVENT_BYTES`] counts as absent,
/// the same on every replica.
pub fn max_event_bytes(create_content: &Content) -> usize {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(rename = "maru.max_event_bytes", default)]
        bytes: serde_json::Value,
    }
    serde_json::from_str::<Mark>(create_content.as_str())
        .ok()
        .and_then(|mark| mark.bytes.as_u64())
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| (DEFAULT_MAX_EVENT_BYTES..=LARGE_MAX_EVENT_BYTES).contains(bytes))
        .unwrap_or(DEFAULT_MAX_EVENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_raises_the_limit_only_within_bounds() {
        let limit = |json: &str| max_event_bytes(&Content::parse(json).unwrap());
        assert_eq!(limit("{}"), DEFAULT_MAX_EVENT_BYTES);
        assert_eq!(
            limit(r#"{"maru.max_event_bytes":1048576}"#),
            LARGE_MAX_EVENT_BYTES
        );
        assert_eq!(limit(r#"{"maru.max_event_bytes":70000}"#), 70_000);
        for absent in ["1048577", "10", "-1", "\"1048576\"", "null", "[]"] {
            let json = format!(r#"{{"maru.max_event_bytes":{absent}}}"#);
            assert_eq!(limit(&json), DEFAULT_MAX_EVENT_BYTES, "{absent}");
        }
    }
}
