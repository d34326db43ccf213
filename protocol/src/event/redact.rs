//! Redaction: what remains of an event when its content is removed (room-version specifications,
//! "Redactions"). The id stays, because ids and signatures are made over the redacted form.

use std::{borrow::Cow, sync::OnceLock};

use ruma::{CanonicalJsonObject, OwnedEventId, canonical_json::redact_content_in_place};
use serde::Deserialize;

use super::{Event, format::check_id, parse::StoredError};
use crate::{
    canonical::{CanonicalError, Content, Node, write_object},
    limits::MAX_JSON_DEPTH,
    version::RoomVersion,
};

/// The redacted form of an event: same id, same hashes and signatures, content really removed.
///
/// Redacting twice changes nothing more.
///
/// # Errors
/// Only when the event's own JSON is broken, which means a damaged store.
pub fn redact(event: &Event, version: RoomVersion) -> Result<Event, StoredError> {
    let node = Node::parse(&event.json, MAX_JSON_DEPTH)?;
    let content = redacted_content(&event.event_type, event.content.as_str(), version)?.into_owned();
    let mut json = String::with_capacity(event.json.len());
    write_redacted(&mut json, &node, &content, version, true)?;
    let content = Content::trusted(content)?;
    Ok(Event {
        json: json.into(),
        redacts: target_in_content(&event.event_type, &content, version),
        content,
        client: OnceLock::new(),
        levels: OnceLock::new(),
        ..event.clone()
    })
}

/// The target of a redaction where its content names it, which is version 11 and later.
///
/// A redaction without a target, or with one that is no event id, is allowed and redacts nothing.
pub(super) fn target_in_content(
    event_type: &str,
    content: &Content,
    version: RoomVersion,
) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Target {
        redacts: String,
    }
    if event_type != "m.room.redaction" || !version.redacts_in_content() {
        return None;
    }
    let target = content.get::<Target>().ok()?.redacts;
    check_id("redacts", &target).ok()?;
    target.try_into().ok()
}

/// The redacted form of a content, in canonical JSON.
pub(super) fn redacted_content<'a>(
    event_type: &str,
    content: &'a str,
    version: RoomVersion,
) -> Result<Cow<'a, str>, CanonicalError> {
    if !keeps_content(event_type) {
        return Ok(Cow::Borrowed("{}"));
    }
    let mut object: CanonicalJsonObject = serde_json::from_str(content)?;
    redact_content_in_place(&mut object, &version.rules().redaction, event_type);
    Ok(Cow::Owned(serde_json::to_string(&object)?))
}

/// Appends the redacted form of a whole event, given its redacted content.
pub(super) fn write_redacted(
    out: &mut String,
    event: &Node<'_>,
    content: &str,
    version: RoomVersion,
    with_signatures: bool,
) -> Result<(), CanonicalError> {
    let Node::Object(fields) = event else {
        return Err(CanonicalError::NotAnObject);
    };
    let content = Node::parse(content, MAX_JSON_DEPTH)?;
    let kept = fields.iter().filter(|(key, _)| match key.as_ref() {
        "auth_events" | "content" | "depth" | "event_id" | "hashes" | "origin_server_ts" | "prev_events"
        | "room_id" | "sender" | "state_key" | "type" => true,
        "signatures" => with_signatures,
        "membership" | "origin" | "prev_state" => version.rules().redaction.keep_origin_membership_prev_state,
        _ => false,
    });
    write_object(
        out,
        kept.map(|(key, value)| (&**key, if key == "content" { &content } else { value })),
    );
    Ok(())
}

/// Whether events of this type keep some of their content in any room version.
fn keeps_content(event_type: &str) -> bool {
    matches!(
        event_type,
        "m.room.aliases"
            | "m.room.create"
            | "m.room.history_visibility"
            | "m.room.join_rules"
            | "m.room.member"
            | "m.room.power_levels"
            | "m.room.redaction"
    )
}
