//! A room that the user has left, in an answer.

use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::cursor::{PageToken, Place};

use super::Wish;
use super::answer::{write_events, write_json};
use super::window::LeftWindow;
use crate::rooms::view::View;
use crate::store::events::StoredEvent;

/// `"<room id>":{…}`.
pub(super) fn written(left: &LeftWindow, view: &View, wish: &Wish) -> String {
    let event = |stored: &Arc<StoredEvent>| {
        let mut out = String::new();
        view.write(&mut out, stored, None, false);
        out
    };
    let wanted = |stored: &&Arc<StoredEvent>| wish.filter.timeline.wants_event(&stored.event);
    let timeline: Vec<String> = left.timeline.iter().filter(wanted).map(event).collect();
    let state: Vec<String> = left.skipped_state.iter().map(event).collect();
    let before = left
        .timeline
        .first()
        .and_then(|first| first.place)
        .map(|place| Place(place.0 - 1));
    let before = PageToken::Place(before.unwrap_or_else(|| left.room.head().last_place));
    let mut out = String::new();
    write_json(&mut out, left.room.room_id.as_str());
    out.push_str(":{\"timeline\":{");
    write_events(&mut out, timeline.iter().map(String::as_str));
    let _ = write!(out, ",\"limited\":{},\"prev_batch\":\"{before}\"}}", left.limited);
    out.push_str(if wish.state_after {
        ",\"state_after\":{"
    } else {
        ",\"state\":{"
    });
    write_events(&mut out, state.iter().map(String::as_str));
    out.push_str("}}");
    out
}
