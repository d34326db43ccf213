//! The JSON of events, as a peer or a client may send it.

use std::sync::Arc;

use maru_protocol::{
    Content, Event, RoomVersion,
    canonical::canonicalise,
    event::{redact, verify::required_signers},
    limits::{LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH},
};
use serde_json::Value;

const VERSIONS: [RoomVersion; 3] = [RoomVersion::V10, RoomVersion::V11, RoomVersion::V12];

/// Reading an event, its canonical form and its redaction never panic and agree with themselves.
pub fn event_json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    canonical_form(text);
    for version in VERSIONS {
        if let Ok(event) = Event::parse(text, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH) {
            accepted_event(&event, version);
        }
    }
}

fn canonical_form(text: &str) {
    let Ok(canonical) = canonicalise(text, MAX_JSON_DEPTH) else {
        return;
    };
    let again = canonicalise(&canonical, MAX_JSON_DEPTH).ok();
    assert_eq!(
        again.as_deref(),
        Some(&*canonical),
        "canonical form is not stable"
    );
    // An independent reader sees the same value before and after.
    assert_eq!(value(text), value(&canonical), "canonical form changed the value");
    if let Ok(content) = Content::parse(text) {
        assert_eq!(content.as_str(), canonical, "an object has two canonical forms");
    }
}

fn accepted_event(event: &Event, version: RoomVersion) {
    // What was accepted once is accepted again, as the same event.
    let again = Event::parse(&event.json, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH);
    let again = again.map(|again| (again.id, again.room_id, again.json)).ok();
    let same = Some((event.id.clone(), event.room_id.clone(), event.json.clone()));
    assert_eq!(
        again, same,
        "an accepted event is refused or changed when read again"
    );

    let stored = Event::from_stored(event.id.clone(), event.room_id.clone(), event.json.clone());
    let stored = stored
        .map(|stored| (stored.sender, stored.event_type, stored.state_key))
        .ok();
    let same = (
        event.sender.clone(),
        event.event_type.clone(),
        event.state_key.clone(),
    );
    assert_eq!(
        stored,
        Some(same),
        "an accepted event cannot be read back from the store"
    );

    for_clients(event);
    let _ = required_signers(event);

    let redacted = redact(event, version).ok();
    let ids = redacted.as_ref().map(|redacted| &redacted.id);
    assert_eq!(ids, Some(&event.id), "an accepted event cannot be redacted");
    if let Some(redacted) = redacted {
        redacted_event(&redacted, version);
    }
}

fn redacted_event(redacted: &Event, version: RoomVersion) {
    // The id is a hash of the redacted form, so reading that form gives the same id.
    let read = Event::parse(&redacted.json, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH).ok();
    assert_eq!(
        read.map(|read| read.id).as_ref(),
        Some(&redacted.id),
        "redaction changed the id"
    );
    let twice: Option<Arc<str>> = redact(redacted, version).ok().map(|twice| twice.json);
    assert_eq!(
        twice.as_ref(),
        Some(&redacted.json),
        "redacting twice changes more"
    );
    for_clients(redacted);
}

/// What clients see is JSON, whatever the event holds.
fn for_clients(event: &Event) {
    let mut json = String::new();
    event.write_client(&mut json, true, Some("{\"age\":1}"));
    let seen = value(&json);
    assert_eq!(
        seen.get("event_id").and_then(Value::as_str),
        Some(event.id.as_str())
    );
    assert_eq!(seen.get("type").and_then(Value::as_str), Some(&*event.event_type));
    let mut stripped = String::new();
    event.write_stripped(&mut stripped);
    assert!(value(&stripped).is_object(), "the stripped form is no object");
}

/// The value of a text that is known to be JSON.
fn value(json: &str) -> Value {
    match serde_json::from_str(json) {
        Ok(value) => value,
        Err(error) => panic!("not JSON ({error}): {json}"),
    }
}
