//! Answers that are written as text, because they consist of events whose JSON is there already.

use axum::response::{IntoResponse, Response};
use http::header;
use maru_protocol::canonical::write_text;

use crate::accounts::Caller;
use crate::rooms::timeline::client_event_format::{Reader, UnsignedData, VisibleEvent};
use crate::store::rooms::events::StoredEvent;

/// A JSON object while its fields are appended, then an answer.
#[derive(Debug)]
pub(in crate::http) struct Written(String);

impl Written {
    /// An object without fields so far.
    pub(in crate::http) fn new() -> Self {
        Self("{".to_owned())
    }

    fn field(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        write_text(&mut self.0, name);
        self.0.push(':');
    }

    /// A field that is a string.
    pub(in crate::http) fn text(&mut self, name: &str, text: &str) {
        self.field(name);
        write_text(&mut self.0, text);
    }

    /// A field that is a number.
    pub(in crate::http) fn number(&mut self, name: &str, number: u8) {
        self.field(name);
        self.0.push_str(&number.to_string());
    }

    /// A field that is written as its type says.
    pub(in crate::http) fn value(&mut self, name: &str, value: &impl serde::Serialize) {
        // Only what cannot be JSON fails, such as a map whose keys are no texts.
        if let Ok(json) = serde_json::to_string(value) {
            self.field(name);
            self.0.push_str(&json);
        }
    }

    /// A field that is an object.
    pub(in crate::http) fn object(&mut self, name: &str, object: Self) {
        self.field(name);
        self.0.push_str(&object.finish().0);
    }

    /// A field that is a list of objects.
    pub(in crate::http) fn objects(&mut self, name: &str, objects: Vec<Self>) {
        self.field(name);
        self.0.push('[');
        for (at, object) in objects.into_iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            self.0.push_str(&object.finish().0);
        }
        self.0.push(']');
    }

    /// A field whose JSON is there already.
    pub(in crate::http) fn json(&mut self, name: &str, json: &str) {
        self.field(name);
        self.0.push_str(json);
    }

    /// A field that is an event.
    pub(in crate::http) fn event(&mut self, name: &str, view: &UnsignedData, seen: &VisibleEvent) {
        self.field(name);
        view.write(&mut self.0, &seen.stored, seen.membership, true);
    }

    /// A field that is a list of events.
    pub(in crate::http) fn events(&mut self, name: &str, view: &UnsignedData, seen: &[VisibleEvent]) {
        self.field(name);
        view.write_list(&mut self.0, seen);
    }

    /// A field that is a list of state events.
    pub(in crate::http) fn state(
        &mut self,
        name: &str,
        view: &UnsignedData,
        events: &[std::sync::Arc<StoredEvent>],
    ) {
        self.field(name);
        write_state(&mut self.0, view, events);
    }

    /// The whole answer.
    pub(in crate::http) fn finish(mut self) -> Self {
        self.0.push('}');
        self
    }
}

impl From<String> for Written {
    /// Text that is JSON already.
    fn from(json: String) -> Self {
        Self(json)
    }
}

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// Appends a JSON array of state events.
pub(in crate::http) fn write_state(
    out: &mut String,
    view: &UnsignedData,
    events: &[std::sync::Arc<StoredEvent>],
) {
    out.push('[');
    for (at, stored) in events.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        view.write(out, stored, None, true);
    }
    out.push(']');
}

/// Whoever calls, as a reader of events.
pub(in crate::http) fn reader(caller: &Caller) -> Reader<'_> {
    Reader {
        user_id: &caller.user_id,
        device_id: Some(&caller.device_id),
    }
}
