//! `records.json`: key names, server records, those that are refused, and which of two wins.

use maru_protocol::{
    KeyId, SecretKey, ServerRecord, SignedRecord, VerifiedRecord,
    record::{Address, CONTEXT, EventKey, MAX_RECORD_BYTES, Precedence},
    server_name::key_name,
    wire::{Octets, Text},
};
use ruma::owned_server_name;
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
        let signature = maru_protocol::Signature(unhex(&vector["signature"]).try_into().unwrap());
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
        let key = maru_protocol::PublicKey::from_slice(&unhex(&vector["public_key"])).unwrap();
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
