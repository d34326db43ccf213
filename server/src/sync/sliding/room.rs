//! A room in an answer (MSC4186, `RoomResult`).

use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{PageToken, Place, Position};
use maru_protocol::visibility::Membership;

use super::request::Dialect;
use super::room_list::Asked;
use super::room_state::{Hero, SentState};
use crate::live::RoomUnread;
use crate::rooms::timeline::client_event_format::UnsignedData;
use crate::store::rooms::StoredMembership;
use crate::store::rooms::events::StoredEvent;
use crate::sync::answer::{write_comma, write_json, write_name};
use crate::sync::joined::write_list;
use crate::sync::members;
use crate::sync::window::{JoinedWindow, LeftWindow};

/// The types of events that move a room up in a client's list.
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];

/// Writes rooms in the words of a dialect.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomWriter<'w> {
    pub(super) dialect: Dialect,
    /// What events need to be written.
    pub(super) view: &'w UnsignedData,
    /// The position of the device's `pos`: what came after it is live.
    pub(super) since: Option<Position>,
}

/// What a joined room is written from.
pub(super) struct JoinedParts<'p> {
    pub(super) asked: &'p Asked<'p>,
    pub(super) joined: &'p JoinedWindow,
    /// The newest events, where more are asked for than before.
    pub(super) expanded: Option<&'p JoinedWindow>,
    pub(super) state: &'p SentState,
    pub(super) unread: Option<&'p RoomUnread>,
    /// Whether it is a direct chat, where that is sent.
    pub(super) is_direct: Option<bool>,
    /// When somebody last said something, where the timeline does not say it.
    pub(super) bump_stamp: Option<Position>,
}

impl JoinedParts<'_> {
    /// Whether there is something to send. That somebody types or has read something is for the extensions.
    pub(super) fn is_news(&self) -> bool {
        let joined = self.joined;
        joined.entire
            || joined.limited
            || joined.unread
            || !joined.timeline.is_empty()
            || !joined.skipped_state.is_empty()
            || !self.state.required.is_empty()
            || self.expanded.is_some()
            || self.is_direct.is_some()
    }
}

impl RoomWriter<'_> {
    /// Appends a joined room.
    pub(super) fn write_joined(self, out: &mut String, parts: &JoinedParts<'_>) {
        let joined = parts.joined;
        let head = joined.room.head();
        self.open(out, joined.room.room_id.as_str(), "join", Some(parts.asked));
        if joined.entire {
            out.push_str(",\"initial\":true");
        }
        self.write_state(out, parts.state);
        if let Some(is_direct) = parts.is_direct {
            let _ = write!(out, ",\"is_dm\":{is_direct}");
        }
        if members::changed(joined) {
            let (members, invited) = (head.joined, head.invited);
            let _ = write!(out, ",\"joined_count\":{members},\"invited_count\":{invited}");
        }
        if let Some(unread) = parts.unread {
            self.write_unread(out, unread);
        }
        let shown = parts.expanded.unwrap_or(joined);
        let end = head.last_place;
        if joined.entire || joined.limited || !shown.timeline.is_empty() {
            self.write_timeline(out, shown, end);
            if parts.expanded.is_some() {
                let name = match self.dialect {
                    Dialect::V4 => "expanded_timeline",
                    Dialect::Simplified => "unstable_expanded_timeline",
                };
                write_name(out, name);
                out.push_str("true");
            }
        }
        let bump = bump(&joined.timeline).or(parts.bump_stamp);
        if let Some(Position(stamp)) = bump {
            let _ = write!(out, ",\"bump_stamp\":{stamp}");
        }
        out.push('}');
    }

    /// Appends a room that the user is out of. `state` is what is known after its timeline.
    pub(super) fn write_left(self, out: &mut String, left: &LeftWindow) {
        let leave = &left.leave;
        let is_ban = Membership::of(&leave.event) == Some(Membership::Ban);
        let membership = if is_ban { "ban" } else { "leave" };
        self.open(out, left.room_id.as_str(), membership, None);
        write_name(out, "required_state");
        write_list(out, self.view, [leave]);
        let timeline = left.timeline();
        write_name(out, self.timeline_name());
        write_list(out, self.view, timeline);
        if let Some(seen) = &left.seen {
            let end = leave.place.unwrap_or_default();
            self.write_rest_of_timeline(out, seen, end);
        }
        if let Some(Position(stamp)) = leave.position() {
            let _ = write!(out, ",\"bump_stamp\":{stamp}");
        }
        out.push('}');
    }

    /// Appends a room that the user is invited to or has knocked on, with its stripped state: a list of JSON objects.
    pub(super) fn write_outside(
        self,
        out: &mut String,
        outside: &StoredMembership,
        asked: Option<&Asked<'_>>,
        is_direct: bool,
        stripped: &str,
    ) {
        self.open(
            out,
            outside.room_id.as_str(),
            &outside.membership.membership,
            asked,
        );
        out.push_str(",\"initial\":true");
        if is_direct {
            out.push_str(",\"is_dm\":true");
        }
        write_name(
            out,
            match self.dialect {
                Dialect::V4 => "stripped_state",
                Dialect::Simplified => "invite_state",
            },
        );
        let _ = write!(out, "[{stripped}],\"bump_stamp\":{}}}", outside.position);
    }

    /// Opens a room's object with what all rooms have.
    fn open(self, out: &mut String, room_id: &str, membership: &str, asked: Option<&Asked<'_>>) {
        write_comma(out);
        write_text(out, room_id);
        out.push_str(":{\"membership\":");
        write_text(out, membership);
        let lists = asked.map(|asked| &asked.lists).filter(|lists| !lists.is_empty());
        if let Some(lists) = lists {
            write_name(out, "lists");
            write_json(out, lists);
        }
    }

    fn write_state(self, out: &mut String, state: &SentState) {
        if let Some(name) = &state.name {
            write_name(out, "name");
            write_json(out, name);
        }
        if let Some(avatar) = &state.avatar {
            write_name(out, "avatar");
            write_json(out, avatar);
        }
        if let Some(heroes) = &state.heroes {
            write_name(out, "heroes");
            let heroes: Vec<_> = heroes.iter().map(hero).collect();
            write_json(out, &heroes);
        }
        if !state.required.is_empty() {
            write_name(out, "required_state");
            write_list(out, self.view, &state.required);
        }
    }

    fn timeline_name(self) -> &'static str {
        match self.dialect {
            Dialect::V4 => "timeline_events",
            Dialect::Simplified => "timeline",
        }
    }

    fn write_timeline(self, out: &mut String, shown: &JoinedWindow, end: Place) {
        write_name(out, self.timeline_name());
        write_list(out, self.view, &shown.timeline);
        self.write_rest_of_timeline(out, shown, end);
    }

    fn write_rest_of_timeline(self, out: &mut String, shown: &JoinedWindow, end: Place) {
        let is_live =
            |stored: &&Arc<StoredEvent>| self.since.is_some_and(|since| stored.position() > Some(since));
        let live = shown.timeline.iter().filter(is_live).count();
        let first = shown.timeline.first().and_then(|first| first.place);
        let before = PageToken::Place(first.map_or(end, |first| Place(first.0 - 1)));
        let _ = write!(
            out,
            ",\"num_live\":{live},\"limited\":{},\"prev_batch\":\"{before}\"",
            shown.limited
        );
    }

    fn write_unread(self, out: &mut String, unread: &RoomUnread) {
        let (mut notifications, mut highlights) = (unread.main.notifications, unread.main.highlights);
        // Threads have no counts of their own in the older form.
        if self.dialect == Dialect::Simplified {
            for thread in unread.threads.values() {
                notifications += thread.notifications;
                highlights += thread.highlights;
            }
        }
        let _ = write!(
            out,
            ",\"notification_count\":{notifications},\"highlight_count\":{highlights}"
        );
    }
}

fn hero(hero: &Hero) -> serde_json::Value {
    let mut value = serde_json::json!({ "user_id": hero.user_id });
    if let Some(name) = &hero.display_name {
        value["displayname"] = name.as_str().into();
    }
    if let Some(url) = &hero.avatar_url {
        value["avatar_url"] = url.as_str().into();
    }
    value
}

/// The position of the last event of a timeline that moves the room up.
fn bump(timeline: &[Arc<StoredEvent>]) -> Option<Position> {
    let bumps = |stored: &&Arc<StoredEvent>| BUMPS.contains(&&*stored.event.event_type);
    timeline.iter().rev().find(bumps)?.position()
}
