//! The form of events that clients see (client-server specification, "Room event format").
//!
//! What is the same for every reader is serialised once and shared; `room_id` and `unsigned`, which
//! differ, are wrapped around it.

use std::sync::Arc;

use super::Event;
use crate::canonical::{write_integer, write_text};

impl Event {
    /// The shared part: an object without its closing brace, without `room_id` and `unsigned`.
    ///
    /// A redaction names its target at the top whatever the room version, since clients look there.
    pub fn client_json(&self) -> &Arc<str> {
        self.client.get_or_init(|| {
            let mut out = String::with_capacity(self.content.as_str().len() + 256);
            out.push_str("{\"content\":");
            out.push_str(self.content.as_str());
            out.push_str(",\"event_id\":");
            write_text(&mut out, self.id.as_str());
            out.push_str(",\"origin_server_ts\":");
            write_integer(&mut out, i64::try_from(self.origin_server_ts).unwrap_or(i64::MAX));
            if let Some(redacts) = &self.redacts {
                out.push_str(",\"redacts\":");
                write_text(&mut out, redacts.as_str());
            }
            self.write_tail(&mut out);
            out.into()
        })
    }

    /// Appends the event as a client sees it. `unsigned` is the text of a JSON object.
    pub fn write_client(&self, out: &mut String, with_room_id: bool, unsigned: Option<&str>) {
        match unsigned {
            Some(unsigned) => self.write_client_with(out, with_room_id, |out| out.push_str(unsigned)),
            None => {
                self.write_client_open(out, with_room_id);
                out.push('}');
            }
        }
    }

    /// Appends the event as a client sees it. `write_unsigned` appends a JSON object.
    pub fn write_client_with(
        &self,
        out: &mut String,
        with_room_id: bool,
        write_unsigned: impl FnOnce(&mut String),
    ) {
        self.write_client_open(out, with_room_id);
        out.push_str(",\"unsigned\":");
        write_unsigned(out);
        out.push('}');
    }

    fn write_client_open(&self, out: &mut String, with_room_id: bool) {
        out.push_str(self.client_json());
        if with_room_id {
            out.push_str(",\"room_id\":");
            write_text(out, self.room_id.as_str());
        }
    }

    /// Appends the stripped form, which invited and knocking users see: content, sender, state key, type.
    pub fn write_stripped(&self, out: &mut String) {
        out.push_str("{\"content\":");
        out.push_str(self.content.as_str());
        self.write_tail(out);
        out.push('}');
    }

    fn write_tail(&self, out: &mut String) {
        out.push_str(",\"sender\":");
        write_text(out, self.sender.as_str());
        if let Some(state_key) = &self.state_key {
            out.push_str(",\"state_key\":");
            write_text(out, state_key);
        }
        out.push_str(",\"type\":");
        write_text(out, &self.event_type);
    }
}
