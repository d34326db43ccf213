//! Push rules: what counts as unread, and for whom it is highlighted.

use maru_protocol::event::Event;

use crate::store::events::Notify;

/// What the default push rules say of an event to a member whom it does not mention.
#[must_use]
pub fn default_outcome(event: &Event) -> Notify {
    match &*event.event_type {
        "m.room.message" | "m.room.encrypted" if !event.content.as_str().contains("\"m.replace\"") => {
            Notify::Notify
        }
        _ => Notify::Nothing,
    }
}
