//! The JSON of a sync response, written once from pieces that are text already (client-server API, `GET /sync`, 200 response).

use std::fmt::Write as _;

use maru_protocol::cursor::SinceToken;
use serde::Serialize;

/// The response of one sync.
#[derive(Clone, Debug)]
pub struct SyncResponse {
    /// The device's next cursor.
    pub next_batch: SinceToken,
    /// The text of a JSON object, the cursor included.
    pub json: String,
}

/// A response being written: a JSON object whose last brace is missing.
pub(super) struct Draft {
    next_batch: SinceToken,
    /// Members are appended here, each with a comma before it.
    pub(super) out: String,
    /// Its length when only the cursor stood in it.
    begun: usize,
}

impl Draft {
    /// An answer with its cursor and room for `expected` bytes more. `opening` stands before the cursor, with a comma
    /// after it.
    pub(super) fn new(opening: &str, next_batch: SinceToken, expected: usize) -> Self {
        let mut out = String::with_capacity(opening.len() + expected + 96);
        let _ = write!(out, "{{{opening}\"next_batch\":\"{next_batch}\"");
        let begun = out.len();
        Self {
            next_batch,
            out,
            begun,
        }
    }

    /// Whether there is nothing in it that a device waits for.
    pub(super) fn is_empty(&self) -> bool {
        self.out.len() == self.begun
    }

    /// The whole answer.
    pub(super) fn finish(mut self) -> SyncResponse {
        self.out.push('}');
        SyncResponse {
            next_batch: self.next_batch,
            json: self.out,
        }
    }
}

/// Text that a JSON writer appends to.
struct Text<'t>(&'t mut String);

impl std::io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // JSON is written in whole characters.
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.0.push_str(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Appends a value as JSON.
pub(super) fn write_json(out: &mut String, value: &(impl Serialize + ?Sized)) {
    // Serialising text, numbers and maps of them into memory does not fail.
    let _ = serde_json::to_writer(Text(out), value);
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

/// Appends `"name":` before a value, and a comma before that unless the object has just been opened.
pub(super) fn write_name(out: &mut String, name: &str) {
    write_comma(out);
    // Names are ours and need no escaping.
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

/// Appends the comma before another member, if there is one already.
pub(super) fn write_comma(out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
}

/// An object whose members are being appended.
#[must_use]
pub(super) struct Opened {
    before: usize,
    begun: usize,
}

/// Appends `"name":{`.
pub(super) fn open(out: &mut String, name: &str) -> Opened {
    let before = out.len();
    write_name(out, name);
    out.push('{');
    Opened {
        before,
        begun: out.len(),
    }
}

impl Opened {
    /// Appends the closing brace; takes the whole object back if nothing has come into it.
    pub(super) fn close(self, out: &mut String) {
        if out.len() == self.begun {
            out.truncate(self.before);
        } else {
            out.push('}');
        }
    }
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
