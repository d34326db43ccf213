//! A room that the user has left, in an answer.

use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{PageToken, Place};

use super::Wish;
use super::answer::write_comma;
use super::joined::write_seen;
use super::window::LeftWindow;
use crate::rooms::view::View;
use crate::store::events::StoredEvent;

/// Appends `"<room id>":{…}`.
pub(super) fn write(out: &mut String, left: &LeftWindow, view: &View, wish: &Wish) {
    let wanted = |stored: &&Arc<StoredEvent>| wish.filter.timeline.wants_event(&stored.event);
    let before = left
        .timeline
        .first()
        .and_then(|first| first.place)
        .map(|place| Place(place.0 - 1));
    let before = PageToken::Place(before.unwrap_or_else(|| left.room.head().last_place));
    write_comma(out);
    write_text(out, left.room.room_id.as_str());
    out.push_str(":{\"timeline\":{");
    write_seen(out, view, left.timeline.iter().filter(wanted));
    let _ = write!(out, ",\"limited\":{},\"prev_batch\":\"{before}\"}}", left.limited);
    out.push_str(if wish.state_after {
        ",\"state_after\":{"
    } else {
        ",\"state\":{"
    });
    write_seen(out, view, &left.skipped_state);
    out.push_str("}}");
}
