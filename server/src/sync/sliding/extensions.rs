//! What an answer has besides rooms: messages to the device, device lists, account data, receipts and typing (MSC3884, MSC3885,
//! MSC3959, MSC3960, MSC3961).

use std::collections::HashSet;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{Position, SinceToken};
use ruma::OwnedEventId;
use serde_json::json;

use super::gather::Gathered;
use super::request::{Scope, SlidingRequest, ToDevice};
use super::room_list::Asked;
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::accounts::account_data::AccountData;
use crate::store::rooms::receipts::Receipt;
use crate::sync::answer::{account_data, open, write_comma, write_json, write_list, write_name};
use crate::sync::window::JoinedWindow;
use crate::sync::{Sync, ephemeral};

/// Most messages to a device in one answer.
const MOST_TO_DEVICE: usize = 100;

/// Messages to a device, and the token that acknowledges them.
#[derive(Debug)]
pub(super) struct Messages {
    next_batch: SinceToken,
    events: Vec<String>,
}

impl Messages {
    /// No messages.
    pub(super) fn none(until: SinceToken) -> Self {
        Self {
            next_batch: until,
            events: Vec::new(),
        }
    }
}

/// The messages that wait for a device, oldest first, after those that it acknowledges.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn to_device(
    sync: &Sync,
    caller: &Caller,
    wanted: &ToDevice,
    until: SinceToken,
) -> Result<Messages, Refusal> {
    let since = wanted.since.filter(|since| since.log_id == until.log_id);
    let after = since.map_or(Position::START, |since| since.position);
    let limit = wanted.limit.unwrap_or(MOST_TO_DEVICE).clamp(1, MOST_TO_DEVICE);
    let (user_id, device_id) = (&caller.user_id, &caller.device_id);
    let kept = &sync.store.encryption;
    let messages = kept
        .to_device(user_id, device_id, after, until.position, limit)
        .await?;
    if messages.is_empty() {
        return Ok(Messages::none(until));
    }
    sync.nothing_kept.gave(caller);
    let last = messages.last().filter(|_| messages.len() == limit);
    let position = last.map_or(until.position, |(position, _)| *position);
    Ok(Messages {
        next_batch: SinceToken { position, ..until },
        events: messages.into_iter().map(|(_, json)| json).collect(),
    })
}

/// Appends messages to the device; whether there are any.
pub(super) fn write_to_device(out: &mut String, messages: &Messages) -> bool {
    let opened = open(out, "to_device");
    write_name(out, "next_batch");
    write_json(out, &messages.next_batch.to_string());
    write_name(out, "events");
    out.push('[');
    write_list(out, messages.events.iter().map(String::as_str));
    out.push(']');
    opened.close(out);
    !messages.events.is_empty()
}

/// Writes what is gathered in rooms and of the account; whether there is anything.
pub(super) struct ExtensionWriter<'w> {
    pub(super) sync: &'w Sync,
    pub(super) caller: &'w Caller,
    pub(super) request: &'w SlidingRequest,
    pub(super) gathered: &'w Gathered<'w>,
}

impl ExtensionWriter<'_> {
    /// Appends global account data and that of rooms.
    pub(super) fn write_account_data(&self, out: &mut String) -> bool {
        let Some(scope) = &self.request.extensions.account_data else {
            return false;
        };
        let text = |data: &AccountData| account_data(&data.data_type, &data.content);
        let before = out.len();
        let opened = open(out, "account_data");
        let global: Vec<String> = self.gathered.window.account_data.iter().map(text).collect();
        if !global.is_empty() {
            write_name(out, "global");
            out.push('[');
            write_list(out, global.iter().map(String::as_str));
            out.push(']');
        }
        let rooms = open(out, "rooms");
        for (_, joined) in self
            .rooms(scope)
            .filter(|(_, joined)| !joined.account_data.is_empty())
        {
            let events: Vec<String> = joined.account_data.iter().map(text).collect();
            write_comma(out);
            write_text(out, joined.room.room_id.as_str());
            out.push_str(":[");
            write_list(out, events.iter().map(String::as_str));
            out.push(']');
        }
        rooms.close(out);
        opened.close(out);
        out.len() > before
    }

    /// Appends receipts: of a room that the device does not have, those for the events that it is sent, and the user's own.
    pub(super) fn write_receipts(&self, out: &mut String) -> bool {
        let Some(scope) = &self.request.extensions.receipts else {
            return false;
        };
        self.write_notices(out, "receipts", scope, |joined| {
            if !joined.entire {
                return ephemeral::receipts(&joined.receipts, &self.caller.user_id);
            }
            let timeline: HashSet<&OwnedEventId> =
                joined.timeline.iter().map(|stored| &stored.event.id).collect();
            let is_shown = |receipt: &&Receipt| {
                receipt.user_id == self.caller.user_id || timeline.contains(&receipt.event_id)
            };
            let receipts: Vec<Receipt> = joined.receipts.iter().filter(is_shown).cloned().collect();
            ephemeral::receipts(&receipts, &self.caller.user_id)
        })
    }

    /// Appends who is typing.
    pub(super) fn write_typing(&self, out: &mut String) -> bool {
        let Some(scope) = &self.request.extensions.typing else {
            return false;
        };
        self.write_notices(out, "typing", scope, |joined| {
            if !joined.typing && !joined.entire {
                return None;
            }
            let users = self.sync.typing.typing_users(joined.room.nid);
            let is_news = joined.typing || !users.is_empty();
            is_news.then(|| ephemeral::typing(users.iter().map(|user_id| &**user_id)))
        })
    }

    /// Appends what the device must know of keys; whether the devices of somebody have changed.
    pub(super) fn write_e2ee(&self, out: &mut String, counts: &crate::keys::KeyCounts) -> bool {
        let opened = open(out, "e2ee");
        let lists = &self.gathered.device_lists;
        let is_news = !lists.changed.is_empty() || !lists.left.is_empty();
        if is_news {
            write_name(out, "device_lists");
            write_json(out, &json!({ "changed": lists.changed, "left": lists.left }));
        }
        write_name(out, "device_one_time_keys_count");
        write_json(out, &counts.one_time);
        write_name(out, "device_unused_fallback_key_types");
        write_json(out, &counts.unused_fallback);
        opened.close(out);
        is_news
    }

    /// Appends one event of each room for which there is one.
    fn write_notices(
        &self,
        out: &mut String,
        name: &str,
        scope: &Scope,
        notice: impl Fn(&JoinedWindow) -> Option<String>,
    ) -> bool {
        let before = out.len();
        let opened = open(out, name);
        let rooms = open(out, "rooms");
        for (_, joined) in self.rooms(scope) {
            if let Some(event) = notice(joined) {
                write_comma(out);
                write_text(out, joined.room.room_id.as_str());
                out.push(':');
                out.push_str(&event);
            }
        }
        rooms.close(out);
        opened.close(out);
        out.len() > before
    }

    /// The rooms with news that an extension is wanted of.
    fn rooms(&self, scope: &Scope) -> impl Iterator<Item = (&Asked<'_>, &JoinedWindow)> {
        let joined = self.gathered.window.joined.iter();
        let asked = joined.filter_map(|(nid, joined)| Some((self.gathered.choice.rooms.get(nid)?, joined)));
        asked.filter(|(asked, joined)| {
            let lists = scope.lists.as_ref();
            let in_lists = asked
                .lists
                .iter()
                .any(|list| lists.is_none_or(|lists| lists.contains(*list)));
            let rooms = scope.rooms.as_ref();
            let is_named = rooms.is_none_or(|rooms| rooms.contains(&joined.room.room_id));
            in_lists || (asked.is_subscribed && is_named)
        })
    }
}
