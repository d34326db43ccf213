//! `spec/vectors/certificates.json`: our own certificate, and those that are refused with the alert for it.
//! `MARU_WRITE_PAGES=1` writes the file.

use std::{env, fs, path::Path};

use maru_protocol::SecretKey;
use rustls::{AlertDescription, Error, pki_types::CertificateDer};
use serde_json::{Value, json};

use super::certificate::{certificate, key_of};

const SEED: [u8; 32] = [4; 32];

/// Where the year of its first date stands in our certificate.
const YEAR: usize = 41;

/// Where the key field stands in our certificate.
const KEY_FIELD: usize = 88;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let pairs = value.as_str().unwrap().as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn made() -> Value {
    let key = SecretKey::from_seed(&SEED);
    let own = certificate(&key).to_vec();
    assert_eq!(own[KEY_FIELD + 12..KEY_FIELD + 44], *key.public_key().as_bytes());
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = own.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let refused = [
        ("A byte after the end.", [&own[..], &[0]].concat(), 42),
        ("Cut short.", own[..own.len() - 1].to_vec(), 42),
        ("A key of small order.", with(KEY_FIELD + 12, &[0; 32]), 42),
        ("The key field names X25519.", with(KEY_FIELD + 8, &[0x6e]), 43),
    ];
    let refused =
        refused.map(|(why, bytes, alert)| json!({"why": why, "certificate": hex(&bytes), "alert": alert}));
    let accepted = [
        ("Another date.", with(YEAR, b"99")),
        ("Its own signature is wrong.", with(own.len() - 1, &[0])),
    ];
    let accepted = accepted.map(|(why, bytes)| json!({"why": why, "certificate": hex(&bytes)}));
    json!({
        "seed": hex(&SEED),
        "public_key": hex(key.public_key().as_bytes()),
        "certificate": hex(&own),
        "accepted": accepted,
        "refused": refused,
    })
}

#[test]
fn certificates_are_made_and_read_as_the_vectors_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors/certificates.json");
    if env::var_os("MARU_WRITE_PAGES").is_some() {
        fs::write(
            &path,
            format!("{}\n", serde_json::to_string_pretty(&made()).unwrap()),
        )
        .unwrap();
    }
    let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(read, made());

    let key = |vector: &Value| key_of(&CertificateDer::from(unhex(&vector["certificate"])), &[]);
    let expected = unhex(&read["public_key"]);
    assert_eq!(key(&read).unwrap().as_bytes()[..], expected);
    for vector in read["accepted"].as_array().unwrap() {
        assert_eq!(key(vector).unwrap().as_bytes()[..], expected, "{vector}");
    }
    for vector in read["refused"].as_array().unwrap() {
        let Err(Error::InvalidCertificate(error)) = key(vector) else {
            panic!("{vector}")
        };
        assert_eq!(
            u64::from(u8::from(AlertDescription::from(error))),
            vector["alert"],
            "{vector}"
        );
    }
}
