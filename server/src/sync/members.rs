//! Membership events, as sync looks at them.

use maru_protocol::event::Event;
use maru_protocol::visibility::Membership;
use ruma::UserId;

use super::window::JoinedWindow;

/// Whether an event says that somebody is joined.
pub(super) fn is_join(event: &Event) -> bool {
    Membership::of(event) == Some(Membership::Join)
}

/// The user whose membership an event is about.
pub(super) fn subject(event: &Event) -> Option<&UserId> {
    if &*event.event_type != "m.room.member" {
        return None;
    }
    event.state_key.as_deref()?.try_into().ok()
}

/// Whether memberships changed in a window.
pub(super) fn changed(joined: &JoinedWindow) -> bool {
    joined.entire
        || joined.limited
        || joined
            .state_events()
            .any(|stored| subject(&stored.event).is_some())
}
