//! Signatures and hashes, ours and forged.

use ruma::signatures::{PublicKeyMap, PublicKeySet, Verified as RumaVerified, verify_event};

use super::*;
use crate::limits::LARGE_MAX_EVENT_BYTES;

const VERSION: RoomVersion = RoomVersion::V12;

fn signed(event_type: &str, state_key: Option<&str>, content: Value) -> Value {
    serde_json::from_str(&built(draft(event_type, state_key, content, VERSION), VERSION).json).unwrap()
}

fn receive(json: &Value) -> Result<Received, VerifyError> {
    Event::receive(&json.to_string(), VERSION, LARGE_MAX_EVENT_BYTES, known)
}

/// What ruma says of the same event: all, signatures only, or no.
fn ruma_says(json: &Value) -> Option<RumaVerified> {
    let object: CanonicalJsonObject = serde_json::from_value(json.clone()).unwrap();
    let public = ruma::serde::Base64::new(key().public_key().as_bytes().to_vec());
    let keys = PublicKeyMap::from([(
        "a.example".to_owned(),
        PublicKeySet::from([("ed25519:a_1".to_owned(), public)]),
    )]);
    verify_event(&keys, &object, VERSION.rules()).ok()
}

#[test]
fn what_is_signed_is_believed() {
    let json = signed("m.room.message", None, json!({"body": "b"}));
    let received = receive(&json).unwrap();
    assert_eq!(received.verified, Verified::All);
    assert_eq!(received.event.content.as_str(), r#"{"body":"b"}"#);
    assert_eq!(ruma_says(&json), Some(RumaVerified::All));
}

#[test]
fn a_second_signature_changes_nothing_else() {
    let event = built(
        draft("m.room.message", None, json!({"body": "b"}), VERSION),
        VERSION,
    );
    let other: OwnedServerName = "b.example".try_into().unwrap();
    let second = SigningKey {
        id: KeyId::new("b_1").unwrap(),
        secret: SecretKey::from_seed(&[7; 32]),
    };
    let both = countersign(&event, VERSION, LARGE_MAX_EVENT_BYTES, &other, &second).unwrap();
    assert_eq!(both.id, event.id);
    let mut json: Value = serde_json::from_str(&both.json).unwrap();
    assert_eq!(receive(&json).unwrap().verified, Verified::All);
    let signed = json["signatures"].as_object_mut().unwrap().remove("b.example");
    assert!(signed.is_some_and(|keys| keys["ed25519:b_1"].is_string()));
    assert_eq!(json.to_string(), *event.json);
    assert!(countersign(&event, VERSION, event.json.len(), &other, &second).is_err());
}

#[test]
fn changed_content_is_redacted() {
    let json = signed("m.room.message", None, json!({"body": "b"}));
    let honest = receive(&json).unwrap().event;
    for (field, value) in [
        ("content", json!({"body": "forged"})),
        ("added", json!(1)),
        ("redacts", json!("$x")),
    ] {
        let mut forged = json.clone();
        forged[field] = value;
        let received = receive(&forged).unwrap();
        assert_eq!(received.verified, Verified::ContentHashMismatch, "{field}");
        assert_eq!(received.event.content.as_str(), "{}");
        assert_eq!(received.event.id, honest.id);
        assert!(!received.event.json.contains("forged") && !received.event.json.contains("added"));
        assert_eq!(ruma_says(&forged), Some(RumaVerified::Signatures));
    }
}

#[test]
fn what_signatures_cover_cannot_be_changed() {
    let json = signed(
        "m.room.member",
        Some("@alice:a.example"),
        json!({"membership": "join"}),
    );
    assert!(receive(&json).is_ok());
    for (field, value) in [
        ("sender", json!("@bob:a.example")),
        ("state_key", json!("@bob:a.example")),
        ("type", json!("m.room.message")),
        ("depth", json!(8)),
        ("origin_server_ts", json!(1)),
        ("prev_events", json!([])),
        ("auth_events", json!([])),
        ("content", json!({"membership": "ban"})),
        ("hashes", json!({"sha256": "x"})),
    ] {
        let mut forged = json.clone();
        forged[field] = value;
        assert!(
            matches!(receive(&forged), Err(VerifyError::WrongSignature(_))),
            "{field}"
        );
        assert_eq!(ruma_says(&forged), None, "{field}");
    }
}

#[test]
fn signatures_must_be_there_and_under_known_keys() {
    let json = signed("m.room.message", None, json!({}));
    let right = json["signatures"]["a.example"]["ed25519:a_1"].clone();
    let no_known = |signatures: Value| {
        let mut forged = json.clone();
        forged["signatures"] = signatures;
        matches!(receive(&forged), Err(VerifyError::NoKnownSignature(_)))
    };
    assert!(no_known(json!({})));
    assert!(no_known(json!({"b.example": {"ed25519:a_1": right}})));
    assert!(no_known(json!({"a.example": {}})));
    assert!(no_known(
        json!({"a.example": {"ed25519:other": right, "rsa:a_1": right}})
    ));

    let mut with_others = json.clone();
    with_others["signatures"]["a.example"]["ed25519:other"] = "nonsense".into();
    with_others["signatures"]["b.example"] = json!({"ed25519:x": 1});
    assert!(receive(&with_others).is_ok());

    for wrong in [
        json!(1),
        json!(""),
        json!("!"),
        json!(key().sign(b"other").to_base64()),
    ] {
        let mut forged = json.clone();
        forged["signatures"]["a.example"]["ed25519:a_1"] = wrong;
        assert!(matches!(receive(&forged), Err(VerifyError::WrongSignature(_))));
    }
    for missing in ["hashes", "signatures"] {
        let mut forged = json.clone();
        forged.as_object_mut().unwrap().remove(missing);
        assert!(receive(&forged).is_err());
    }
}

#[test]
fn a_restricted_join_needs_the_voucher_too() {
    let content = json!({"membership": "join", "join_authorised_via_users_server": "@bob:b.example"});
    let json = signed("m.room.member", Some("@alice:a.example"), content);
    assert!(matches!(receive(&json), Err(VerifyError::NoKnownSignature(server)) if server == "b.example"));
    let both = Event::receive(&json.to_string(), VERSION, LARGE_MAX_EVENT_BYTES, |_, _| {
        Some(key().public_key())
    });
    assert!(
        both.is_err(),
        "the voucher's signature is missing whatever keys are known"
    );
    let malformed = json!({"membership": "join", "join_authorised_via_users_server": 1});
    assert!(receive(&signed("m.room.member", Some("@alice:a.example"), malformed)).is_err());
}

#[test]
fn a_third_party_invite_is_signed_by_somebody_else() {
    let content = json!({"membership": "invite", "third_party_invite": {"signed": {}}});
    let event = built(
        draft("m.room.member", Some("@bob:b.example"), content, VERSION),
        VERSION,
    );
    assert!(verify::required_signers(&event).unwrap().is_empty());
    let plain = json!({"membership": "join", "third_party_invite": {}});
    let event = built(
        draft("m.room.member", Some("@alice:a.example"), plain, VERSION),
        VERSION,
    );
    assert_eq!(verify::required_signers(&event).unwrap().len(), 1);
}
