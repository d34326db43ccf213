//! `events.json`: content hash, signature and id of events in three room versions.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD, engine::general_purpose::URL_SAFE_NO_PAD};
use maru_protocol::{
    Content, Event, KeyId, PublicKey, RoomVersion, SecretKey, Signature, SigningKey,
    event::{Draft, Links, Verified, build, redact},
    limits::LARGE_MAX_EVENT_BYTES,
};
use ruma::{OwnedEventId, owned_server_name, owned_user_id, room_id};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{entries, hex, unhex, vectors};

const SEED: [u8; 32] = [1; 32];

#[test]
fn events_are_hashed_signed_and_named_as_the_vectors_say() {
    let made: Vec<_> = drafts().into_iter().map(vector).collect();
    for vector in entries(&vectors("events.json", &Value::Array(made))) {
        let key = PublicKey::from_slice(&unhex(&vector["public_key"])).unwrap();
        let signature = Signature::from_base64(vector["signature"].as_str().unwrap()).unwrap();
        key.verify(vector["signed"].as_str().unwrap().as_bytes(), &signature)
            .unwrap();

        let version = RoomVersion::from_id(vector["room_version"].as_str().unwrap()).unwrap();
        let json = vector["event"].as_str().unwrap();
        let received = Event::receive(json, version, LARGE_MAX_EVENT_BYTES, |_, _| Some(key)).unwrap();
        assert_eq!(received.verified, Verified::All);
        assert_eq!(received.event.id, vector["event_id"].as_str().unwrap());
        assert_eq!(received.event.room_id, vector["room_id"].as_str().unwrap());
    }
}

fn drafts() -> Vec<(&'static str, RoomVersion, Draft)> {
    let draft = |event_type: &str, state_key: Option<&str>, content: Value| Draft {
        room_id: Some(room_id!("!room:a.example").to_owned()),
        sender: owned_user_id!("@ada:a.example"),
        event_type: event_type.into(),
        state_key: state_key.map(Into::into),
        content: Content::parse(&content.to_string()).unwrap(),
        redacts: None,
        origin_server_ts: 1_700_000_000_000,
    };
    let create = json!({"room_version": "12", "maru.max_event_bytes": 1_048_576, "m.federate": true});
    vec![
        (
            "The create event of version 12 has no room_id: its id with another first letter is the room's.",
            RoomVersion::V12,
            Draft {
                room_id: None,
                ..draft("m.room.create", Some(""), create)
            },
        ),
        (
            "A message is signed without its content. Text is hashed as it stands, not escaped.",
            RoomVersion::V12,
            draft(
                "m.room.message",
                None,
                json!({"msgtype": "m.text", "body": "가나다 \"\\\n\u{1f98a}"}),
            ),
        ),
        (
            "A membership event keeps its membership when it is redacted, so that is signed.",
            RoomVersion::V11,
            draft(
                "m.room.member",
                Some("@ada:a.example"),
                json!({"membership": "join", "displayname": "Ada"}),
            ),
        ),
        (
            "Up to version 10 a redaction names its target beside the content.",
            RoomVersion::V10,
            Draft {
                redacts: Some(id(9)),
                ..draft("m.room.redaction", None, json!({"reason": "spam"}))
            },
        ),
    ]
}

fn vector((what, version, draft): (&str, RoomVersion, Draft)) -> Value {
    let key = SigningKey {
        id: KeyId::new("1").unwrap(),
        secret: SecretKey::from_seed(&SEED),
    };
    let names_room = draft.room_id.is_none();
    let links = if names_room {
        Links {
            depth: 1,
            ..Links::default()
        }
    } else {
        Links {
            prev_events: vec![id(3), id(4)],
            auth_events: vec![id(1), id(2)],
            depth: 7,
        }
    };
    let server = owned_server_name!("a.example");
    let event = build(draft, links, version, LARGE_MAX_EVENT_BYTES, &server, &key).unwrap();

    // The hashed and the signed text, from the finished event by the specification's words.
    let mut fields: Value = serde_json::from_str(&event.json).unwrap();
    let signature = fields["signatures"]["a.example"]["ed25519:1"].take();
    let object = fields.as_object_mut().unwrap();
    object.remove("signatures");
    let hash = object.remove("hashes").unwrap()["sha256"].take();
    let hashed = fields.to_string();
    assert_eq!(hash, STANDARD_NO_PAD.encode(Sha256::digest(hashed.as_bytes())));
    let mut signed: Value = serde_json::from_str(&redact(&event, version).unwrap().json).unwrap();
    signed.as_object_mut().unwrap().remove("signatures");
    let signed = signed.to_string();
    assert_eq!(
        event.id.as_str()[1..],
        URL_SAFE_NO_PAD.encode(Sha256::digest(signed.as_bytes()))
    );

    json!({
        "what": what,
        "room_version": version.as_str(),
        "seed": hex(&SEED),
        "public_key": hex(key.public_key().as_bytes()),
        "key_id": key.id.as_str(),
        "server_name": server,
        "hashed": hashed,
        "content_hash": hash,
        "signed": signed,
        "signature": signature,
        "event": &*event.json,
        "event_id": event.id,
        "room_id": event.room_id,
    })
}

fn id(n: u8) -> OwnedEventId {
    format!("${}", URL_SAFE_NO_PAD.encode([n; 32]))
        .try_into()
        .unwrap()
}
