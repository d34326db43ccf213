//! Server records of strangers.

use maru_protocol::{
    SecretKey, SignedRecord,
    record::{CONTEXT, MAX_ADDRESSES, MAX_LIFETIME_MS, MAX_RECORD_BYTES, Precedence},
};

/// The root key of the seeds.
const ROOT: [u8; 32] = [2; 32];

/// Bytes that claim to be a signed record, and the same bytes as a record that is properly signed: what is
/// accepted keeps the rules, and reads the same once it is signed again.
pub fn records(input: &[u8]) {
    verify(input);
    let root = SecretKey::from_seed(&ROOT);
    let signature = root.sign_with_context(CONTEXT, input);
    verify(&envelope(input, &signature.0));
}

fn verify(bytes: &[u8]) {
    let Ok(signed) = SignedRecord::from_bytes(bytes) else {
        assert!(bytes.len() > MAX_RECORD_BYTES, "refused for its length");
        return;
    };
    let Ok(verified) = signed.verify() else {
        return;
    };
    assert_eq!(verified.signed(), &signed);
    assert_eq!(verified.precedence_of(&verified), Precedence::Same);
    assert!(
        verified.addresses.len() <= MAX_ADDRESSES,
        "more addresses than a record may have"
    );
    assert!(
        verified.expires - verified.issued <= MAX_LIFETIME_MS,
        "good for too long"
    );

    let root = SecretKey::from_seed(&ROOT);
    if verified.root_key == root.public_key() {
        let again = verified.sign(&root).and_then(|again| again.verify());
        assert_eq!(
            again.map(|again| (*again).clone()).as_ref(),
            Ok(&*verified),
            "changes when it is signed"
        );
    }
}

/// An array of two byte strings, the first of at most 65,535 bytes.
fn envelope(body: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let length = body.len().to_be_bytes();
    let [.., high, low] = length;
    let head = match body.len() {
        ..24 => vec![0x82, 0x40 | low],
        24..256 => vec![0x82, 0x58, low],
        _ => vec![0x82, 0x59, high, low],
    };
    [&head, body, &[0x58, 0x40], signature].concat()
}
