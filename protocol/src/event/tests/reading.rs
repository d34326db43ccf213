//! Events from strangers that are no events.

use proptest::prelude::*;

use super::*;
use crate::event::format::FormatError;

fn parsed(json: &Value, version: RoomVersion) -> Result<Event, ParseError> {
    Event::parse(
        &json.to_string(),
        version,
        DEFAULT_MAX_EVENT_BYTES,
        MAX_JSON_DEPTH,
    )
}

fn message() -> Value {
    let draft = draft(
        "m.room.message",
        Some("k"),
        json!({"body": "b"}),
        RoomVersion::V12,
    );
    serde_json::from_str(&built(draft, RoomVersion::V12).json).unwrap()
}

#[test]
fn unsigned_and_spelling_do_not_change_an_event() {
    let plain = parsed(&message(), RoomVersion::V12).unwrap();
    let mut json = message();
    json["unsigned"] = json!({"age": 1, "x": "y".repeat(DEFAULT_MAX_EVENT_BYTES)});
    let spaced = serde_json::to_string_pretty(&json).unwrap();
    let read = Event::parse(&spaced, RoomVersion::V12, DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap();
    same(&plain, &read);
}

#[test]
fn every_field_is_checked() {
    let long = "x".repeat(256);
    let many = |n: usize| Value::from(vec![id(1).as_str(); n]);
    let wrong = [
        ("type", json!(1), FormatError::Malformed("type")),
        ("type", json!(long), FormatError::TooLong("type")),
        ("type", json!("a\0"), FormatError::Nul("type")),
        ("state_key", json!(null), FormatError::Malformed("state_key")),
        ("state_key", json!(long), FormatError::TooLong("state_key")),
        ("state_key", json!("\0"), FormatError::Nul("state_key")),
        ("sender", json!("alice"), FormatError::Malformed("sender")),
        (
            "sender",
            json!(format!("@{long}:a.example")),
            FormatError::TooLong("sender"),
        ),
        ("room_id", json!("room"), FormatError::Malformed("room_id")),
        ("depth", json!(-1), FormatError::Malformed("depth")),
        ("depth", json!("1"), FormatError::Malformed("depth")),
        (
            "origin_server_ts",
            json!(-1),
            FormatError::Malformed("origin_server_ts"),
        ),
        ("content", json!([]), FormatError::Malformed("content")),
        ("prev_events", json!({}), FormatError::Malformed("prev_events")),
        ("prev_events", json!([1]), FormatError::Malformed("prev_events")),
        ("prev_events", json!(["x"]), FormatError::Malformed("prev_events")),
        (
            "prev_events",
            json!([format!("${long}")]),
            FormatError::TooLong("prev_events"),
        ),
        ("prev_events", many(21), FormatError::TooMany("prev_events")),
        ("auth_events", many(11), FormatError::TooMany("auth_events")),
    ];
    for (field, value, expected) in wrong {
        let mut json = message();
        json[field] = value.clone();
        match parsed(&json, RoomVersion::V12) {
            Err(ParseError::Format(error)) => assert_eq!(error, expected, "{field}: {value}"),
            other => panic!("{field}: {value}: {other:?}"),
        }
    }
    for field in [
        "type",
        "sender",
        "room_id",
        "depth",
        "origin_server_ts",
        "content",
        "prev_events",
        "auth_events",
    ] {
        let mut json = message();
        json.as_object_mut().unwrap().remove(field);
        let result = parsed(&json, RoomVersion::V12);
        assert!(
            matches!(result, Err(ParseError::Format(FormatError::Missing(name))) if name == field),
            "{field}"
        );
    }
    assert!(parsed(&json!([]), RoomVersion::V12).is_err());
    assert!(matches!(
        parsed(&json!({"a": 1.5}), RoomVersion::V12),
        Err(ParseError::Canonical(_))
    ));
}

#[test]
fn version_12_names_the_room_by_its_create_event() {
    let create = built(
        draft(
            "m.room.create",
            Some(""),
            json!({"room_version": "12"}),
            RoomVersion::V12,
        ),
        RoomVersion::V12,
    );
    assert_eq!(create.room_id.as_str()[1..], create.id.as_str()[1..]);
    let mut json: Value = serde_json::from_str(&create.json).unwrap();
    same(&create, &parsed(&json, RoomVersion::V12).unwrap());
    json["room_id"] = create.room_id.as_str().into();
    let result = parsed(&json, RoomVersion::V12);
    assert!(matches!(
        result,
        Err(ParseError::Format(FormatError::Unexpected("room_id")))
    ));

    let mut json = message();
    json["room_id"] = create.room_id.as_str().into();
    assert!(parsed(&json, RoomVersion::V12).is_ok());
    json["auth_events"] = json!([create.id]);
    let result = parsed(&json, RoomVersion::V12);
    assert!(matches!(
        result,
        Err(ParseError::Format(FormatError::Malformed("auth_events")))
    ));
}

#[test]
fn a_redaction_may_name_nothing() {
    for version in RoomVersion::ALL {
        for target in [
            json!(null),
            json!(1),
            json!("x"),
            json!(format!("${}", "x".repeat(255))),
        ] {
            let mut json = message();
            json["type"] = "m.room.redaction".into();
            json["redacts"] = target.clone();
            json["content"]["redacts"] = target;
            assert_eq!(parsed(&json, version).unwrap().redacts, None);
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(
        version in prop::sample::select(RoomVersion::ALL.to_vec()),
        field in prop::sample::select(vec![
            "auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events", "redacts", "room_id",
            "sender", "signatures", "state_key", "type",
        ]),
        value in prop_oneof![
            Just("null"), Just("[]"), Just("{}"), Just("\"\""), Just("-1"), Just("[[]]"), Just("{\"a.example\":[]}"),
            Just("{\"sha256\":1}"), Just("\"m.room.member\""), Just("\"m.room.create\""), Just("\"m.room.redaction\""),
        ],
    ) {
        let mut json = message();
        json[field] = serde_json::from_str(value).unwrap();
        let _ = Event::receive(&json.to_string(), version, DEFAULT_MAX_EVENT_BYTES, known);
    }
}

#[test]
fn ids_agree_with_ruma_whatever_else_a_stranger_adds() {
    for version in RoomVersion::ALL {
        for field in [
            "origin",
            "membership",
            "prev_state",
            "event_id",
            "extra",
            "redacts",
        ] {
            let mut json = message();
            json[field] = "x".into();
            let object: CanonicalJsonObject = serde_json::from_value(json.clone()).unwrap();
            let hash = reference_hash(&object, version.rules()).unwrap();
            assert_eq!(
                parsed(&json, version).unwrap().id.as_str(),
                format!("${hash}"),
                "{version} {field}"
            );
        }
    }
}
