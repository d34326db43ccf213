//! A joined room in an answer.

use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{PageToken, Place};
use ruma::OwnedUserId;
use serde_json::json;

use super::answer::{account_data, open, write_comma, write_events, write_json, write_name};
use super::timeline_cache::SharedTimeline;
use super::window::JoinedWindow;
use super::{Sync, SyncRequest, ephemeral, members};
use crate::accounts::Caller;
use crate::live::RoomUnread;
use crate::rooms::timeline::client_event_format::UnsignedData;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::notifications::Unread;
use crate::store::rooms::receipts::Receipt;

/// What a joined room's part is written from.
pub(super) struct JoinedParts<'p> {
    /// The window.
    pub(super) joined: &'p JoinedWindow,
    /// The state's events.
    pub(super) state: &'p [Arc<StoredEvent>],
    /// The timeline.
    pub(super) timeline: &'p Timeline,
    /// The unread counts.
    pub(super) unread: Option<&'p RoomUnread>,
    /// The first other members, for a room without a name; none when they need not be sent.
    pub(super) heroes: Option<&'p [OwnedUserId]>,
    /// Who is typing, when that changed.
    pub(super) typing: Option<Vec<OwnedUserId>>,
    /// Whether the device asks for whole states.
    pub(super) whole: bool,
}

/// A timeline that is to be written.
pub(super) enum Timeline {
    /// As it was written for another device.
    SharedTimeline(Arc<SharedTimeline>),
    /// For this reader, who sees these events of it; and whether others see them in the same way.
    Own(Vec<Arc<StoredEvent>>, bool),
}

impl Timeline {
    /// The events that have still to be written.
    pub(super) fn events(&self) -> &[Arc<StoredEvent>] {
        match self {
            Self::SharedTimeline(_) => &[],
            Self::Own(events, _) => events,
        }
    }
}

/// Appends `"<room id>":{…}`, unless the device's filter lets nothing of it through.
pub(super) fn write(
    out: &mut String,
    sync: &Sync,
    caller: &Caller,
    wish: &SyncRequest,
    view: &UnsignedData,
    parts: &JoinedParts<'_>,
) {
    let joined = parts.joined;
    let notices = notices(parts, caller, wish);
    let data = room_data(joined, wish);
    if notices.is_empty() && data.is_empty() && !is_news(parts, caller) {
        return;
    }
    write_comma(out);
    write_text(out, joined.room.room_id.as_str());
    out.push_str(":{\"timeline\":{");
    match parts.timeline {
        Timeline::SharedTimeline(shared) => out.push_str(&shared.text),
        Timeline::Own(events, is_for_all) => {
            let begin = out.len();
            write_timeline(out, view, joined, events);
            if *is_for_all {
                let text = out.get(begin..).unwrap_or_default();
                sync.timelines.keep(joined, view.now_ms(), text);
            }
        }
    }
    out.push('}');
    if !parts.state.is_empty() || joined.entire {
        write_name(out, wish.state.name());
        out.push('{');
        write_seen(out, view, parts.state);
        out.push('}');
    } else if wish.state.is_after() {
        // Its presence tells the client that the server knows `use_state_after`.
        write_name(out, wish.state.name());
        out.push_str("{\"events\":[]}");
    }
    if members::changed(joined) {
        write_name(out, "summary");
        write_summary(out, joined, parts.heroes);
    }
    if let Some(unread) = parts.unread {
        write_unread(out, unread, wish.filter.unread_thread_notifications);
    }
    if !notices.is_empty() {
        out.push_str(",\"ephemeral\":{");
        write_events(out, notices.iter().map(String::as_str));
        out.push('}');
    }
    if !data.is_empty() {
        out.push_str(",\"account_data\":{");
        write_events(out, data.iter().map(String::as_str));
        out.push('}');
    }
    out.push('}');
}

/// Receipts and typing that the device wants to hear of, as events.
fn notices(parts: &JoinedParts<'_>, caller: &Caller, wish: &SyncRequest) -> Vec<String> {
    let joined = parts.joined;
    let wants = |kind| wish.filter.ephemeral.wants(kind, None);
    let receipts = ephemeral::receipts(&joined.receipts, &caller.user_id).filter(|_| wants("m.receipt"));
    let typing = parts
        .typing
        .as_ref()
        .filter(|users| (joined.typing || !users.is_empty()) && wants("m.typing"))
        .map(|users| ephemeral::typing(users.iter().map(|user_id| &**user_id)));
    receipts.into_iter().chain(typing).collect()
}

/// Account data of the room that the device wants to hear of, as events.
fn room_data(joined: &JoinedWindow, wish: &SyncRequest) -> Vec<String> {
    let data = joined.account_data.iter();
    let wanted = data.filter(|data| wish.filter.room_account_data.wants(&data.data_type, None));
    wanted
        .map(|data| account_data(&data.data_type, &data.content))
        .collect()
}

/// Whether a room is in the response though nobody types or reads there. That the counts of unread events have moved with events
/// that the device does not want to hear of is no reason by itself.
fn is_news(parts: &JoinedParts<'_>, caller: &Caller) -> bool {
    let joined = parts.joined;
    let is_own = |receipt: &Receipt| receipt.user_id == caller.user_id;
    joined.entire
        || parts.whole
        || joined.limited
        || !joined.timeline.is_empty()
        || !parts.state.is_empty()
        || joined.receipts.iter().any(is_own)
}

fn write_timeline(out: &mut String, view: &UnsignedData, joined: &JoinedWindow, events: &[Arc<StoredEvent>]) {
    write_seen(out, view, events);
    let before = joined
        .timeline
        .first()
        .and_then(|first| first.place)
        .map(|place| Place(place.0 - 1));
    let before = PageToken::Place(before.unwrap_or_else(|| joined.room.head().last_place));
    let _ = write!(out, ",\"limited\":{},\"prev_batch\":\"{before}\"", joined.limited);
}

/// Appends `"events":[…]` as the view's reader sees them.
pub(super) fn write_seen<'e>(
    out: &mut String,
    view: &UnsignedData,
    events: impl IntoIterator<Item = &'e Arc<StoredEvent>>,
) {
    out.push_str("\"events\":");
    write_list(out, view, events);
}

/// Appends a list of events as the view's reader sees them.
pub(super) fn write_list<'e>(
    out: &mut String,
    view: &UnsignedData,
    events: impl IntoIterator<Item = &'e Arc<StoredEvent>>,
) {
    out.push('[');
    for (at, stored) in events.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        view.write(out, stored, None, false);
    }
    out.push(']');
}

fn write_summary(out: &mut String, joined: &JoinedWindow, heroes: Option<&[OwnedUserId]>) {
    let head = joined.room.head();
    let mut summary = json!({ "m.joined_member_count": head.joined, "m.invited_member_count": head.invited });
    if let Some(heroes) = heroes {
        summary["m.heroes"] = json!(heroes);
    }
    write_json(out, &summary);
}

fn write_unread(out: &mut String, unread: &RoomUnread, by_thread: bool) {
    let sum = |all: Unread, more: &Unread| Unread {
        notifications: all.notifications + more.notifications,
        highlights: all.highlights + more.highlights,
    };
    let threads = unread.threads.values();
    let shown = if by_thread {
        unread.main
    } else {
        threads.fold(unread.main, sum)
    };
    let _ = write!(
        out,
        ",\"unread_notifications\":{{\"highlight_count\":{},\"notification_count\":{}}}",
        shown.highlights, shown.notifications
    );
    if by_thread {
        let opened = open(out, "unread_thread_notifications");
        let has_some = |unread: &Unread| *unread != Unread::default();
        for (root, unread) in unread.threads.iter().filter(|(_, unread)| has_some(unread)) {
            write_comma(out);
            write_text(out, root);
            let _ = write!(
                out,
                ":{{\"highlight_count\":{},\"notification_count\":{}}}",
                unread.highlights, unread.notifications
            );
        }
        opened.close(out);
    }
}
