//! A room that the user has left, in an answer.

use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{PageToken, Place};

use super::SyncRequest;
use super::answer::{write_comma, write_name};
use super::joined::write_seen;
use super::window::LeftWindow;
use crate::rooms::timeline::client_event_format::UnsignedData;
use crate::store::rooms::events::StoredEvent;

/// Appends `"<room id>":{…}`. Of a room that never let the user in, there is nothing to read further back.
pub(super) fn write(
    out: &mut String,
    left: &LeftWindow,
    state: &[Arc<StoredEvent>],
    view: &UnsignedData,
    wish: &SyncRequest,
) {
    write_comma(out);
    write_text(out, left.room_id.as_str());
    out.push_str(":{\"timeline\":{");
    write_seen(out, view, left.timeline());
    match &left.seen {
        Some(seen) => {
            let first = seen.timeline.first().or(seen.end.as_ref());
            let place = first.and_then(|first| first.place).unwrap_or_default();
            let before = PageToken::Place(Place(place.0 - 1));
            let _ = write!(out, ",\"limited\":{},\"prev_batch\":\"{before}\"}}", seen.limited);
        }
        None => out.push_str(",\"limited\":false}"),
    }
    write_name(out, wish.state.name());
    out.push('{');
    write_seen(out, view, state);
    out.push_str("}}");
}
