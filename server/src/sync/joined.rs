//! A joined room in an answer.

use std::collections::HashMap;
use std::fmt::Write as _;

use maru_protocol::cursor::{PageToken, Place};
use ruma::OwnedUserId;
use serde_json::json;

use super::answer::{account_data, write_events, write_json, write_list, write_name};
use super::window::JoinedWindow;
use super::{Wish, ephemeral, members};
use crate::accounts::Caller;
use crate::live::RoomUnread;
use crate::store::notifications::Unread;

/// What a joined room's part is written from.
pub(super) struct JoinedParts<'p> {
    /// The window.
    pub(super) joined: &'p JoinedWindow,
    /// The state's events as JSON.
    pub(super) state: Vec<String>,
    /// The timeline's events as JSON.
    pub(super) timeline: Vec<String>,
    /// The unread counts.
    pub(super) unread: Option<&'p RoomUnread>,
    /// The first other members, for a room without a name; none when they need not be told.
    pub(super) heroes: Option<&'p [OwnedUserId]>,
    /// Who is typing, when that changed.
    pub(super) typing: Option<Vec<OwnedUserId>>,
}

/// Appends `"<room id>":{…}`.
pub(super) fn write(out: &mut String, caller: &Caller, wish: &Wish, parts: &JoinedParts<'_>) {
    let joined = parts.joined;
    write_json(out, joined.room.room_id.as_str());
    out.push_str(":{\"timeline\":{");
    write_timeline(out, joined, &parts.timeline);
    out.push('}');
    if !parts.state.is_empty() || joined.entire {
        write_name(out, if wish.state_after { "state_after" } else { "state" });
        out.push('{');
        write_events(out, parts.state.iter().map(String::as_str));
        out.push('}');
    } else if wish.state_after {
        // Its presence tells the client that the server knows `use_state_after`.
        out.push_str(",\"state_after\":{\"events\":[]}");
    }
    if members::changed(joined) {
        write_name(out, "summary");
        write_summary(out, joined, parts.heroes);
    }
    if let Some(unread) = parts.unread {
        write_unread(out, unread, wish.filter.unread_thread_notifications);
    }
    let receipts = ephemeral::receipts(&joined.receipts, &caller.user_id);
    let typing = parts
        .typing
        .as_ref()
        .filter(|users| joined.typing || !users.is_empty())
        .map(|users| ephemeral::typing(users.iter().map(|user_id| &**user_id)));
    let notices = [("m.receipt", receipts), ("m.typing", typing)];
    let wanted = notices
        .iter()
        .filter(|(kind, _)| wish.filter.ephemeral.wants(kind, None));
    let notices: Vec<&str> = wanted.filter_map(|(_, notice)| notice.as_deref()).collect();
    if !notices.is_empty() {
        out.push_str(",\"ephemeral\":{");
        write_events(out, notices);
        out.push('}');
    }
    let wanted = joined
        .account_data
        .iter()
        .filter(|data| wish.filter.room_account_data.wants(&data.data_type, None));
    let data: Vec<String> = wanted
        .map(|data| account_data(&data.data_type, &data.content))
        .collect();
    if !data.is_empty() {
        out.push_str(",\"account_data\":{");
        write_events(out, data.iter().map(String::as_str));
        out.push('}');
    }
    out.push('}');
}

fn write_timeline(out: &mut String, joined: &JoinedWindow, events: &[String]) {
    write_events(out, events.iter().map(String::as_str));
    let before = joined
        .timeline
        .first()
        .and_then(|first| first.place)
        .map(|place| Place(place.0 - 1));
    let before = PageToken::Place(before.unwrap_or_else(|| joined.room.head().last_place));
    let _ = write!(out, ",\"limited\":{},\"prev_batch\":\"{before}\"", joined.limited);
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
    let main = unread.threads.get(&None).copied().unwrap_or_default();
    let threads: HashMap<_, _> = unread
        .threads
        .iter()
        .filter_map(|(thread, unread)| Some((thread.as_ref()?, unread)))
        .collect();
    let shown = if by_thread {
        main
    } else {
        threads.values().fold(main, |all, more| sum(all, more))
    };
    let _ = write!(
        out,
        ",\"unread_notifications\":{{\"highlight_count\":{},\"notification_count\":{}}}",
        shown.highlights, shown.notifications
    );
    if by_thread && !threads.is_empty() {
        out.push_str(",\"unread_thread_notifications\":{");
        let each = threads.iter().map(|(thread, unread)| {
            let mut item = String::new();
            write_json(&mut item, thread.as_str());
            let _ = write!(
                item,
                ":{{\"highlight_count\":{},\"notification_count\":{}}}",
                unread.highlights, unread.notifications
            );
            item
        });
        let each: Vec<String> = each.collect();
        write_list(out, each.iter().map(String::as_str));
        out.push('}');
    }
}
