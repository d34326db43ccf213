//! The answer's JSON, written once from pieces that are text already (client-server API, `GET /sync`, 200 response).

use std::fmt::Write as _;

use maru_protocol::cursor::SinceToken;
use serde::Serialize;

/// An answer to a device.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The device's next cursor.
    pub next_batch: SinceToken,
    /// The other members of the answer's JSON object, each with a comma before it.
    pub members: String,
}

impl Answer {
    /// The answer to a long-poll.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{{\"next_batch\":\"{}\"{}}}", self.next_batch, self.members)
    }

    /// Whether there is nothing in it that a device waits for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Appends a value as JSON.
pub(super) fn write_json(out: &mut String, value: &(impl Serialize + ?Sized)) {
    // Serialising text, numbers and maps of them into memory does not fail.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}

/// Appends `"events":[…]` of events that are JSON already.
pub(super) fn write_events<'e>(out: &mut String, events: impl IntoIterator<Item = &'e str>) {
    out.push_str("\"events\":[");
    write_list(out, events);
    out.push(']');
}

/// Appends items that are JSON already, with commas between.
pub(super) fn write_list<'e>(out: &mut String, items: impl IntoIterator<Item = &'e str>) {
    let mut first = true;
    for item in items {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(item);
    }
}

/// Appends `,"name":` before a value.
pub(super) fn write_name(out: &mut String, name: &str) {
    // Names are ours and need no escaping.
    let _ = write!(out, ",\"{name}\":");
}

/// An event of account data as JSON; its content is JSON already.
pub(super) fn account_data(data_type: &str, content: &str) -> String {
    let mut out = String::with_capacity(content.len() + data_type.len() + 24);
    out.push_str("{\"type\":");
    write_json(&mut out, data_type);
    out.push_str(",\"content\":");
    out.push_str(content);
    out.push('}');
    out
}
