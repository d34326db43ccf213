//! `records.json`: keys, signatures, names and server records, those that are refused, and which of two wins.

use maru_protocol::{
    KeyId, PublicKey, SecretKey, ServerKind, ServerRecord, Signature, SignedRecord, VerifiedRecord,
    record::{Address, CONTEXT, EventKey, MAX_RECORD_BYTES, Precedence},
    server_name::key_name,
    wire::{Octets, Text},
};
use ruma::{ServerName, owned_server_name};
use serde_json::{Value, json};

use crate::{entries, hex, unhex, value::value, vectors};

const ROOT: [u8; 32] = [2; 32];
const OTHER_ROOT: [u8; 32] = [3; 32];
const ISSUED: u64 = 1_700_000_000_000;

#[test]
fn records_read_and_verify_as_the_vectors_say() {
    let read = vectors("records.json", &made());
    let records: Vec<_> = entries(&read["records"])
        .iter()
        .map(|vector| verified(&vector["signed"]))
        .collect();
    for (record, vector) in records.iter().zip(entries(&read["records"])) {
        let body = unhex(&vector["body"]);
        assert_eq!(value(&body), vector["record"]);
        let mut signed = CONTEXT.as_bytes().to_vec();
        signed.push(0);
        signed.extend(body);
        let signature = Signature(unhex(&vector["signature"]).try_into().unwrap());
        record.root_key.verify(&signed, &signature).unwrap();
    }
    for vector in entries(&read["refused"]) {
        let refused = SignedRecord::from_bytes(&unhex(&vector["signed"])).and_then(|record| record.verify());
        assert_eq!(
            refused.unwrap_err().to_string(),
            vector["error"].as_str().unwrap()
        );
    }
    let record = |index: &Value| &records[usize::try_from(index.as_u64().unwrap()).unwrap()];
    for vector in entries(&read["precedence"]) {
        let precedence = record(&vector["held"]).precedence_of(record(&vector["offered"]));
        assert_eq!(name_of(precedence), vector["offered_is"]);
    }
    for vector in entries(&read["key_names"]) {
        let key = PublicKey::from_slice(&unhex(&vector["public_key"])).unwrap();
        assert_eq!(key_name(&key).unwrap(), vector["name"].as_str().unwrap());
    }
}

fn verified(signed: &Value) -> VerifiedRecord {
    SignedRecord::from_bytes(&unhex(signed))
        .unwrap()
        .verify()
        .unwrap()
}

fn made() -> Value {
    let records = [
        (
            "The least that a record says. The name is the root key.",
            least(),
            ROOT,
        ),
        ("Everything that a record says.", full(), ROOT),
        (
            "The same sequence number as the first, and another content.",
            ServerRecord {
                expires: ISSUED + 5,
                ..least()
            },
            ROOT,
        ),
        ("A domain.", domain(ROOT), ROOT),
        (
            "The same domain with another root key.",
            domain(OTHER_ROOT),
            OTHER_ROOT,
        ),
    ];
    let mut vectors: Vec<_> = records
        .iter()
        .map(|(what, record, root)| vector(what, &record.sign(&SecretKey::from_seed(root)).unwrap(), root))
        .collect();
    let signed: Vec<_> = records
        .iter()
        .map(|(_, record, root)| {
            record
                .sign(&SecretKey::from_seed(root))
                .unwrap()
                .verify()
                .unwrap()
        })
        .collect();
    vectors.push(vector(
        "A field that is not known is ignored.",
        &with_unknown_field(),
        &ROOT,
    ));
    let pairs = [(0, 1), (1, 0), (0, 0), (0, 2), (3, 4)];
    let precedence = pairs.map(|(held, offered)| {
        json!({"held": held, "offered": offered, "offered_is": name_of(signed[held].precedence_of(&signed[offered]))})
    });
    let key_names = [ROOT, OTHER_ROOT].map(|seed| {
        let key = SecretKey::from_seed(&seed).public_key();
        json!({"public_key": hex(key.as_bytes()), "name": key_name(&key).unwrap()})
    });
    json!({
        "context": CONTEXT,
        "key_names": key_names,
        "keys_refused": keys_refused(),
        "names_refused": names_refused(),
        "signatures_refused": signatures_refused(),
        "records": vectors,
        "precedence": precedence,
        "refused": refused(),
    })
}

fn vector(what: &str, signed: &SignedRecord, root: &[u8; 32]) -> Value {
    let outer = value(signed.as_bytes());
    let (body, signature) = (&outer[0]["bytes"], &outer[1]["bytes"]);
    json!({
        "what": what,
        "root_seed": hex(root),
        "record": value(&unhex(body)),
        "body": body,
        "signature": signature,
        "signed": hex(signed.as_bytes()),
    })
}

fn least() -> ServerRecord {
    let root_key = SecretKey::from_seed(&ROOT).public_key();
    ServerRecord {
        name: key_name(&root_key).unwrap(),
        issued: ISSUED,
        relays: vec![],
        expires: ISSUED + 86_400_000,
        peer_id: None,
        tls_key: SecretKey::from_seed(&[4; 32]).public_key(),
        root_key,
        sequence: 1,
        addresses: vec![],
        signing_keys: vec![event_key("1", 1, None)],
    }
}

fn full() -> ServerRecord {
    ServerRecord {
        relays: vec![Text::new("/dns4/relay.example/udp/4001/quic-v1/p2p/12D3KooWexample").unwrap()],
        peer_id: Octets::new(&[0, 36, 8, 1]),
        sequence: 2,
        addresses: ["192.0.2.1:8448", "[2001:db8::1]:8448"]
            .map(|address| Address::new(address.parse().unwrap()).unwrap())
            .to_vec(),
        signing_keys: vec![event_key("2", 5, None), event_key("1", 1, Some(ISSUED - 1))],
        ..least()
    }
}

fn with_unknown_field() -> SignedRecord {
    let mut body = minicbor_serde::to_vec(least()).unwrap();
    body[0] += 1;
    body.splice(1..1, *b"\x63new\x01");
    SignedRecord::from_bytes(&signed(&body, &SecretKey::from_seed(&ROOT))).unwrap()
}

fn domain(root: [u8; 32]) -> ServerRecord {
    ServerRecord {
        name: owned_server_name!("a.example"),
        root_key: SecretKey::from_seed(&root).public_key(),
        ..least()
    }
}

fn event_key(version: &str, seed: u8, valid_until: Option<u64>) -> EventKey {
    EventKey {
        id: KeyId::new(version).unwrap(),
        key: SecretKey::from_seed(&[seed; 32]).public_key(),
        valid_until,
    }
}

/// Bytes that are no acceptable public key.
fn keys_refused() -> Vec<Value> {
    let cases = [
        (
            "No point of the curve.",
            "0200000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            "The neutral point.",
            "0100000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            "A point of order 2.",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ),
        (
            "A point of order 4.",
            "0000000000000000000000000000000000000000000000000000000000000080",
        ),
        (
            "A point of order 8.",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ),
        (
            "Another spelling of the point whose second coordinate is 3.",
            "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ),
        (
            "A sign where the first coordinate is zero.",
            "0100000000000000000000000000000000000000000000000000000000000080",
        ),
    ];
    let vector = |(why, key): (&str, &str)| {
        assert!(PublicKey::from_slice(&unhex(&key.into())).is_err(), "{why}");
        json!({"why": why, "public_key": key})
    };
    cases.map(vector).into()
}

/// Signatures that laxer rules take for good ones.
fn signatures_refused() -> Vec<Value> {
    let key = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    let cases = [
        (
            "s is not reduced.",
            key,
            "message",
            "9e46ad095242486ab68b0b6664ade0909c98e02de019d98810c448d7e58d4319b5828a7761b2804e2546d5c5ee653b67196e4728f9a3464737bbac84df2fab1a",
        ),
        (
            "R is the neutral point.",
            key,
            "message",
            "0100000000000000000000000000000000000000000000000000000000000000d4c5323131ff9683cfb3d30197c786c9043f1052d6c2d5293f19d6f36b911104",
        ),
        (
            "The equation holds times 8 alone: the key is the sum of an ordinary one and a point of order 8.",
            "1f4f580e73ac208f06760190e9edc6f5916775dabd9c1cdca393175c2d6d1083",
            "message 0",
            "7767a3242dc9b58bbc68488c1265cc6cc5f26c6f3c88a5d55e901b0734dca572d6e3429bc65515d8d229dc654d11a4ed1d2d3ce264ce560884db97993469f008",
        ),
    ];
    let vector = |(why, key, message, signature): (&str, &str, &str, &str)| {
        let public_key = PublicKey::from_slice(&unhex(&key.into())).unwrap();
        let bytes = Signature(unhex(&signature.into()).try_into().unwrap());
        assert!(public_key.verify(message.as_bytes(), &bytes).is_err(), "{why}");
        json!({"why": why, "public_key": key, "message": message, "signature": signature})
    };
    cases.map(vector).into()
}

/// Names of which nobody may be called.
fn names_refused() -> Vec<Value> {
    let name = "qe4xodvipulv6vvdkrtmgtd6ztfy3curwtxdpis56yhvxd6jwoka.maru.alt";
    let small = format!("{}.maru.alt", "a".repeat(52));
    let cases = [
        ("With a port.", format!("{name}:8448")),
        ("Upper case.", name.to_ascii_uppercase()),
        ("Spare bits that are not zero.", name.replace("oka.", "okb.")),
        ("Something before it.", format!("a.{name}")),
        ("Too short.", "maru.alt".to_owned()),
        ("A key of small order.", small),
    ];
    let vector = |(why, name): (&str, String)| {
        let server = <&ServerName>::try_from(&*name).unwrap();
        assert!(ServerKind::of(server).is_err(), "{why}");
        json!({"why": why, "name": name})
    };
    cases.map(vector).into()
}

/// A record's map with some of its bytes replaced by as many others.
fn respelled(record: &ServerRecord, from: &str, to: &str) -> Vec<u8> {
    let mut body = minicbor_serde::to_vec(record).unwrap();
    let at = body
        .windows(from.len())
        .position(|bytes| bytes == from.as_bytes())
        .unwrap();
    body[at..at + to.len()].copy_from_slice(to.as_bytes());
    body
}

/// Records that nobody may accept, each signed properly unless that is what is wrong.
fn refused() -> Vec<Value> {
    let root = SecretKey::from_seed(&ROOT);
    let body = minicbor_serde::to_vec(least()).unwrap();
    let mut flipped = signed(&body, &root);
    *flipped.last_mut().unwrap() ^= 1;
    let mut renamed = body.clone();
    // The first key of the map is `name`; its text begins after the map's head, the key and the text's head.
    renamed[8] = b'1';
    let mut unordered = body.clone();
    unordered[0] += 1;
    unordered.extend(b"\x61a\x01");
    let case = |why: &str, signed: Vec<u8>| {
        let error = SignedRecord::from_bytes(&signed)
            .and_then(|record| record.verify())
            .unwrap_err();
        json!({"why": why, "error": error.to_string(), "signed": hex(&signed)})
    };
    let body_of = |record: ServerRecord| minicbor_serde::to_vec(record).unwrap();
    vec![
        case("One bit of the signature is wrong.", flipped),
        case(
            "Signed by another key than the root key in it.",
            signed(&body, &SecretKey::from_seed(&OTHER_ROOT)),
        ),
        case(
            "Signed as an event is, without the context.",
            envelope(&body, &root.sign(&body).0),
        ),
        case(
            "The name is another key than the root key.",
            signed(&renamed_key(), &root),
        ),
        case(
            "The name is under maru.alt but not base32.",
            signed(&renamed, &root),
        ),
        case("The keys of the map are not in order.", signed(&unordered, &root)),
        case(
            "No signing key is in use.",
            signed(
                &body_of(ServerRecord {
                    signing_keys: vec![event_key("1", 1, Some(1))],
                    ..least()
                }),
                &root,
            ),
        ),
        case(
            "Two signing keys have one id.",
            signed(
                &body_of(ServerRecord {
                    signing_keys: vec![event_key("1", 1, None), event_key("1", 5, None)],
                    ..least()
                }),
                &root,
            ),
        ),
        case(
            "It expires before it is issued.",
            signed(
                &body_of(ServerRecord {
                    expires: ISSUED - 1,
                    ..least()
                }),
                &root,
            ),
        ),
        case(
            "It says that it is good for two years.",
            signed(
                &body_of(ServerRecord {
                    expires: ISSUED + 63_072_000_000,
                    ..least()
                }),
                &root,
            ),
        ),
        case(
            "Nine addresses.",
            signed(
                &body_of(ServerRecord {
                    addresses: vec![Address::new("192.0.2.1:1".parse().unwrap()).unwrap(); 9],
                    ..least()
                }),
                &root,
            ),
        ),
        case(
            "An address in another spelling.",
            signed(&respelled(&full(), "2001:db8::1", "2001:DB8::1"), &root),
        ),
        case(
            "An address of nobody.",
            signed(&respelled(&full(), "192.0.2.1:8448", "224.0.0.1:8448"), &root),
        ),
        case(
            "A key id outside the grammar.",
            signed(&respelled(&least(), "ed25519:1", "ed25519:-"), &root),
        ),
        case("Longer than 2 KiB.", vec![0; MAX_RECORD_BYTES + 1]),
        case("Bytes after its end.", [signed(&body, &root), vec![0]].concat()),
    ]
}

fn renamed_key() -> Vec<u8> {
    let name = key_name(&SecretKey::from_seed(&OTHER_ROOT).public_key()).unwrap();
    minicbor_serde::to_vec(ServerRecord { name, ..least() }).unwrap()
}

fn signed(body: &[u8], root: &SecretKey) -> Vec<u8> {
    envelope(body, &root.sign_with_context(CONTEXT, body).0)
}

fn envelope(body: &[u8], signature: &[u8]) -> Vec<u8> {
    let octets = |bytes| Octets::<4096>::new(bytes).unwrap();
    minicbor_serde::to_vec((octets(body), octets(signature))).unwrap()
}

fn name_of(precedence: Precedence) -> &'static str {
    match precedence {
        Precedence::Newer => "newer",
        Precedence::Same => "same",
        Precedence::Older => "older",
        Precedence::Conflict => "conflict",
        Precedence::KeyChanged => "key_changed",
    }
}
