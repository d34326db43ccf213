//! What the tests of events share: a key, drafts, and ruma's account of the same event.

mod building;
mod client;
mod reading;
mod verifying;

use base64::Engine;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash},
    state_res::check_pdu_format,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    key::{KeyId, PublicKey, SecretKey, SigningKey},
    limits::{DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH},
    version::RoomVersion,
};

const SEED: [u8; 32] = [42; 32];

fn key() -> SigningKey {
    SigningKey {
        id: KeyId::new("a_1").unwrap(),
        secret: SecretKey::from_seed(&SEED),
    }
}

fn server() -> OwnedServerName {
    "a.example".try_into().unwrap()
}

fn known(name: &ServerName, id: &KeyId) -> Option<PublicKey> {
    (name == server() && *id == key().id).then(|| key().public_key())
}

/// The same key as ruma's type, from the PKCS #8 form of the seed.
fn ruma_key() -> Ed25519KeyPair {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend(SEED);
    Ed25519KeyPair::from_der(&der, "a_1".into()).unwrap()
}

fn id(n: u8) -> OwnedEventId {
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([n; 32]);
    format!("${hash}").try_into().unwrap()
}

fn draft(event_type: &str, state_key: Option<&str>, content: Value, version: RoomVersion) -> Draft {
    let names_its_room = event_type == "m.room.create" && version.room_id_is_hash();
    let room = if version.room_id_is_hash() {
        "!roomroomroomroomroomroomroomroomroomroomroo"
    } else {
        "!r:a.example"
    };
    Draft {
        room_id: (!names_its_room).then(|| room.try_into().unwrap()),
        sender: "@alice:a.example".try_into().unwrap(),
        event_type: event_type.into(),
        state_key: state_key.map(Into::into),
        content: content.try_into().unwrap(),
        redacts: None,
        origin_server_ts: 1_700_000_000_000,
    }
}

fn links() -> Links {
    Links {
        prev_events: vec![id(1), id(2)],
        auth_events: vec![id(3)],
        depth: 7,
    }
}

fn built(draft: Draft, version: RoomVersion) -> Event {
    build(
        draft,
        links(),
        version,
        DEFAULT_MAX_EVENT_BYTES,
        &server(),
        &key(),
    )
    .unwrap()
}

/// What ruma makes of the same fields.
fn by_ruma(event: &Event, version: RoomVersion) -> (String, String) {
    let mut object: CanonicalJsonObject = serde_json::from_str(&event.json).unwrap();
    object.remove("hashes");
    object.remove("signatures");
    hash_and_sign_event("a.example", &ruma_key(), &mut object, &version.rules().redaction).unwrap();
    check_pdu_format(&object, &version.rules().event_format).unwrap();
    (
        serde_json::to_string(&object).unwrap(),
        reference_hash(&object, version.rules()).unwrap(),
    )
}

fn agrees_with_ruma(event: &Event, version: RoomVersion) {
    let (json, hash) = by_ruma(event, version);
    assert_eq!(&*event.json, json);
    assert_eq!(event.id.as_str(), format!("${hash}"));
}

fn same(a: &Event, b: &Event) {
    assert_eq!(a.json, b.json);
    assert_eq!(a.id, b.id);
    assert_eq!(a.room_id, b.room_id);
    assert_eq!(a.client_json(), b.client_json());
    assert_eq!((a.depth, a.origin_server_ts), (b.depth, b.origin_server_ts));
    assert_eq!(
        (&a.prev_events, &a.auth_events, &a.redacts),
        (&b.prev_events, &b.auth_events, &b.redacts)
    );
    assert_eq!(
        (&a.sender, &a.event_type, &a.state_key),
        (&b.sender, &b.event_type, &b.state_key)
    );
}
