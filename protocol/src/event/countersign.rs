//! Adding a signature to an event that another server made: to an invitation of a user of ours, and to a join that a user
//! of ours vouches for. Nothing but the signature changes.

use ruma::ServerName;

use super::{
    Event,
    parse::ParseError,
    redact::{redacted_content, write_redacted},
};
use crate::{canonical::Node, key::SigningKey, limits::MAX_JSON_DEPTH, version::RoomVersion};

/// The event with our signature among the others. One of our own that was there under the same key is replaced.
///
/// The caller has checked that the event says what we are asked to vouch for.
///
/// # Errors
/// [`ParseError`] when the event would grow beyond `max_event_bytes`.
pub fn countersign(
    event: &Event,
    version: RoomVersion,
    max_event_bytes: usize,
    server_name: &ServerName,
    key: &SigningKey,
) -> Result<Event, ParseError> {
    let mut node = Node::parse(&event.json, MAX_JSON_DEPTH)?;
    let content = redacted_content(&event.event_type, event.content.as_str(), version)?;
    let mut signed = String::with_capacity(event.json.len());
    write_redacted(&mut signed, &node, &content, version, false)?;
    let signature = key.sign(signed.as_bytes()).to_base64();
    let own = node.field_mut("signatures")?.field_mut(server_name.as_str())?;
    *own.field_mut(key.id.as_str())? = Node::Text(signature.into());
    let mut json = String::with_capacity(event.json.len() + 256);
    node.write(&mut json);
    Event::parse(&json, version, max_event_bytes, MAX_JSON_DEPTH)
}
