//! `received.json`: events as a peer may send them, and what becomes of each by the checks that need no room.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use maru_protocol::{Event, KeyId, RoomVersion, SecretKey, event::Verified, limits::LARGE_MAX_EVENT_BYTES};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{entries, hex, vectors};

const SEED: [u8; 32] = [1; 32];

/// What a redacted message consists of.
const KEPT: [&str; 9] = [
    "auth_events",
    "depth",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "state_key",
    "type",
];

#[test]
fn received_events_fare_as_the_vectors_say() {
    let read = vectors("received.json", &made());
    for vector in entries(&read["events"]) {
        assert_eq!(outcome(vector["json"].as_str().unwrap())["is"], vector["is"]);
    }
}

fn made() -> Value {
    let events = [altered(), respelled(), malformed()].concat();
    let events: Vec<_> = events
        .into_iter()
        .map(|(why, json)| {
            let mut vector = outcome(&json);
            vector["why"] = why.into();
            vector["json"] = json.into();
            vector
        })
        .collect();
    json!({
        "room_version": "12",
        "server_name": "a.example",
        "key_id": "ed25519:1",
        "public_key": hex(SecretKey::from_seed(&SEED).public_key().as_bytes()),
        "max_event_bytes": LARGE_MAX_EVENT_BYTES,
        "events": events,
    })
}

fn outcome(json: &str) -> Value {
    let known = KeyId::new("1").unwrap();
    let key = SecretKey::from_seed(&SEED).public_key();
    let keys = |server: &ruma::ServerName, id: &KeyId| (server == "a.example" && *id == known).then_some(key);
    match Event::receive(json, RoomVersion::V12, LARGE_MAX_EVENT_BYTES, keys) {
        Ok(received) => {
            let is = match received.verified {
                Verified::All => "whole",
                Verified::ContentHashMismatch => "redacted",
            };
            json!({"is": is, "event": &*received.event.json, "event_id": received.event.id})
        }
        Err(_) => json!({"is": "dropped"}),
    }
}

fn message() -> Value {
    json!({
        "auth_events": [],
        "content": {"body": "안녕", "msgtype": "m.text"},
        "depth": 7,
        "origin_server_ts": 1_700_000_000_000_u64,
        "prev_events": [],
        "room_id": "!Z7rHr5qYkU4jT8xQ2m0bNn3vWc6sDe9fGg1hJkLpQrS",
        "sender": "@ada:a.example",
        "type": "m.room.message",
    })
}

/// The message with a change, hashed and signed as if that were allowed.
fn signed(change: impl FnOnce(&mut Value)) -> Value {
    let mut event = message();
    change(&mut event);
    let hash = STANDARD_NO_PAD.encode(Sha256::digest(event.to_string()));
    event["hashes"] = json!({"sha256": hash});
    let mut kept = event.clone();
    kept.as_object_mut()
        .unwrap()
        .retain(|key, _| KEPT.contains(&key.as_str()));
    kept["content"] = json!({});
    let signature = SecretKey::from_seed(&SEED).sign(kept.to_string().as_bytes());
    event["signatures"] = json!({"a.example": {"ed25519:1": signature.to_base64()}});
    event
}

/// Events with something changed after they were signed.
fn altered() -> Vec<(&'static str, String)> {
    let with = |change: fn(&mut Value)| {
        let mut event = signed(|_| {});
        change(&mut event);
        event.to_string()
    };
    let wrong = json!(SecretKey::from_seed(&SEED).sign(b"{}").to_base64());
    let mut other_wrong = signed(|_| {});
    other_wrong["signatures"]["a.example"]["ed25519:1"] = wrong;
    vec![
        ("As its sender made it.", with(|_| {})),
        (
            "`unsigned` is left out.",
            with(|event| event["unsigned"] = json!({"age": 1})),
        ),
        (
            "Signatures by keys that are not known, and of servers that need not sign, mean nothing.",
            with(|event| {
                event["signatures"]["a.example"]["ed25519:2"] = json!("abc");
                event["signatures"]["b.example"] = json!({"ed25519:1": "abc"});
            }),
        ),
        (
            "Base64 with padding is read too.",
            with(|event| {
                let signature = event["signatures"]["a.example"]["ed25519:1"].as_str().unwrap();
                event["signatures"]["a.example"]["ed25519:1"] = format!("{signature}==").into();
            }),
        ),
        (
            "The content is another one.",
            with(|event| event["content"]["body"] = json!("bye")),
        ),
        ("A field was added.", with(|event| event["more"] = json!(true))),
        (
            "A field that stays when it is redacted is another one.",
            with(|event| event["depth"] = json!(8)),
        ),
        (
            "The signature by the known key is wrong.",
            other_wrong.to_string(),
        ),
        ("Nobody signed.", with(|event| event["signatures"] = json!({}))),
        (
            "Only a key that is not known signed.",
            with(|event| {
                let by_key = event["signatures"]["a.example"].as_object_mut().unwrap();
                let signature = by_key.remove("ed25519:1").unwrap();
                by_key.insert("ed25519:2".into(), signature);
            }),
        ),
        (
            "No hashes.",
            with(|event| drop(event.as_object_mut().unwrap().remove("hashes"))),
        ),
    ]
}

/// The event in other spellings, and what has no canonical one.
fn respelled() -> Vec<(&'static str, String)> {
    let plain = signed(|_| {}).to_string();
    let large = signed(|event| event["content"]["n"] = json!(1_u64 << 53));
    let fraction = signed(|event| event["content"]["n"] = json!(1.0));
    vec![
        ("Spaces.", plain.replace(",\"", ", \"")),
        (
            "Escapes that need not be.",
            plain.replace("안녕", "\\uc548\\ub155"),
        ),
        ("A key twice.", plain.replacen('{', "{\"depth\":7,", 1)),
        ("Half of a pair of UTF-16.", plain.replace("안녕", "\\ud83e")),
        ("A number over 2^53 - 1.", large.to_string()),
        ("A number with a fraction.", fraction.to_string()),
        ("No object.", format!("[{plain}]")),
    ]
}

/// Events whose form is wrong, though they are signed.
fn malformed() -> Vec<(&'static str, String)> {
    let with = |change: fn(&mut Value)| signed(change).to_string();
    vec![
        (
            "The depth may be anything from 0.",
            with(|event| event["depth"] = json!(0)),
        ),
        ("The depth is negative.", with(|event| event["depth"] = json!(-1))),
        (
            "The time is negative.",
            with(|event| event["origin_server_ts"] = json!(-1)),
        ),
        (
            "The content is no object.",
            with(|event| event["content"] = json!([])),
        ),
        (
            "No sender.",
            with(|event| drop(event.as_object_mut().unwrap().remove("sender"))),
        ),
        (
            "The type has 256 bytes.",
            with(|event| event["type"] = "x".repeat(256).into()),
        ),
        ("The type has a NUL.", with(|event| event["type"] = json!("m.\0"))),
        (
            "20 previous events.",
            with(|event| event["prev_events"] = links(20)),
        ),
        (
            "21 previous events.",
            with(|event| event["prev_events"] = links(21)),
        ),
        ("11 auth events.", with(|event| event["auth_events"] = links(11))),
        (
            "In version 12 the create event is no auth event.",
            with(|event| event["auth_events"] = json!(["$Z7rHr5qYkU4jT8xQ2m0bNn3vWc6sDe9fGg1hJkLpQrS"])),
        ),
        (
            "A field that is not known.",
            with(|event| event["more"] = json!(true)),
        ),
    ]
}

fn links(count: usize) -> Value {
    (0..count).map(|at| format!("${at:043}")).collect()
}
