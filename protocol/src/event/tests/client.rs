//! The forms that clients see.

use super::*;

fn client(event: &Event, with_room_id: bool, unsigned: Option<&str>) -> Value {
    let mut out = String::from("before");
    event.write_client(&mut out, with_room_id, unsigned);
    serde_json::from_str(out.strip_prefix("before").unwrap()).unwrap()
}

#[test]
fn a_message_has_what_clients_need_and_no_more() {
    let event = built(
        draft(
            "m.room.message",
            None,
            json!({"body": "\"", "msgtype": "m.text"}),
            RoomVersion::V12,
        ),
        RoomVersion::V12,
    );
    let shared = json!({
        "content": {"body": "\"", "msgtype": "m.text"},
        "event_id": event.id,
        "origin_server_ts": 1_700_000_000_000_u64,
        "sender": "@alice:a.example",
        "type": "m.room.message",
    });
    assert_eq!(client(&event, false, None), shared);
    let mut whole = shared;
    whole["room_id"] = event.room_id.as_str().into();
    whole["unsigned"] = json!({"transaction_id": "t"});
    assert_eq!(client(&event, true, Some(r#"{"transaction_id":"t"}"#)), whole);
    assert!(Arc::ptr_eq(event.client_json(), event.client_json()));
}

#[test]
fn state_has_its_key_and_a_stripped_form() {
    let event = built(
        draft("m.room.name", Some(""), json!({"name": "n"}), RoomVersion::V12),
        RoomVersion::V12,
    );
    assert_eq!(client(&event, false, None)["state_key"], "");
    let mut stripped = String::new();
    event.write_stripped(&mut stripped);
    let expected = json!({"content": {"name": "n"}, "sender": "@alice:a.example", "state_key": "", "type": "m.room.name"});
    assert_eq!(serde_json::from_str::<Value>(&stripped).unwrap(), expected);
}

#[test]
fn a_redaction_names_its_target_at_the_top_in_every_version() {
    for version in RoomVersion::ALL {
        let mut draft = draft("m.room.redaction", None, json!({}), version);
        draft.redacts = Some(id(9));
        assert_eq!(
            client(&built(draft, version), false, None)["redacts"],
            id(9).as_str()
        );
    }
}

#[test]
fn a_redacted_event_shows_nothing_of_its_content() {
    let event = built(
        draft(
            "m.room.message",
            None,
            json!({"body": "secret"}),
            RoomVersion::V12,
        ),
        RoomVersion::V12,
    );
    assert!(event.client_json().contains("secret"));
    let redacted = redact(&event, RoomVersion::V12).unwrap();
    assert!(!format!("{redacted:?}").contains("secret"));
    assert_eq!(client(&redacted, false, None)["content"], json!({}));
    assert_eq!(client(&redacted, false, None)["event_id"], event.id.as_str());
}
