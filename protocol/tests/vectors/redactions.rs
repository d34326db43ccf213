//! `redactions.json`: what remains of events in three room versions, and so what their signatures and ids are made over.

use maru_protocol::{
    Event, RoomVersion,
    event::redact,
    limits::{LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH},
};
use serde_json::{Value, json};

use crate::{entries, vectors};

const VERSIONS: [RoomVersion; 3] = [RoomVersion::V10, RoomVersion::V11, RoomVersion::V12];

#[test]
fn events_are_redacted_as_the_vectors_say() {
    for vector in entries(&vectors("redactions.json", &Value::Array(made()))) {
        let version = RoomVersion::from_id(vector["room_version"].as_str().unwrap()).unwrap();
        let redacted = parse(vector["redacted"].as_str().unwrap(), version);
        assert_eq!(
            redacted.id,
            vector["event_id"].as_str().unwrap(),
            "the id is the same"
        );
        assert_eq!(redact(&redacted, version).unwrap().json, redacted.json);
    }
}

fn made() -> Vec<Value> {
    let of_every_version = |(event_type, content): &(&str, Value)| {
        VERSIONS.map(|version| vector(version, &event(version, event_type, content)))
    };
    contents().iter().flat_map(of_every_version).collect()
}

fn vector(version: RoomVersion, event: &Value) -> Value {
    let event = parse(&event.to_string(), version);
    let redacted = redact(&event, version).unwrap();
    json!({
        "room_version": version.as_str(),
        "event": &*event.json,
        "redacted": &*redacted.json,
        "event_id": event.id,
    })
}

fn parse(json: &str, version: RoomVersion) -> Event {
    Event::parse(json, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap()
}

/// An event with every field that some version keeps, and one that none does.
fn event(version: RoomVersion, event_type: &str, content: &Value) -> Value {
    let mut event = json!({
        "auth_events": [],
        "content": content,
        "depth": 1,
        "hashes": {"sha256": "AAAA"},
        "membership": "join",
        "more": true,
        "origin": "a.example",
        "origin_server_ts": 1,
        "prev_events": [],
        "prev_state": [],
        "redacts": "$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        "room_id": "!room:a.example",
        "sender": "@ada:a.example",
        "signatures": {"a.example": {"ed25519:1": "AAAA"}},
        "state_key": "",
        "type": event_type,
    });
    if event_type == "m.room.create" && version == RoomVersion::V12 {
        event.as_object_mut().unwrap().remove("room_id");
    }
    event
}

fn contents() -> Vec<(&'static str, Value)> {
    let levels = json!({
        "ban": 1, "events": {"m.room.name": 2}, "events_default": 3, "invite": 4, "kick": 5, "more": 6,
        "notifications": {"room": 7}, "redact": 8, "state_default": 9, "users": {"@ada:a.example": 10},
        "users_default": 11,
    });
    let member = json!({
        "displayname": "Ada", "join_authorised_via_users_server": "@bob:b.example", "membership": "join", "reason": "",
        "third_party_invite": {"display_name": "ada", "signed": {"mxid": "@ada:a.example", "token": "abc"}},
    });
    let rules = json!({"allow": [{"room_id": "!a:b", "type": "m.room_membership"}], "join_rule": "restricted", "more": 1});
    vec![
        (
            "m.room.create",
            json!({"creator": "@ada:a.example", "m.federate": true, "room_version": "11"}),
        ),
        ("m.room.member", member),
        ("m.room.power_levels", levels),
        ("m.room.join_rules", rules),
        (
            "m.room.history_visibility",
            json!({"history_visibility": "shared", "more": 1}),
        ),
        (
            "m.room.redaction",
            json!({"reason": "spam", "redacts": "$AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"}),
        ),
        ("m.room.aliases", json!({"aliases": ["#tea:a.example"]})),
        ("m.room.name", json!({"name": "tea"})),
    ]
}
