//! Secrets that we hand out: random, and known to us only as a hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A new secret of 256 random bits, with a prefix that tells what it is for.
pub(crate) fn new_secret(prefix: &str) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// A device id that no other device of its user has: ten capital letters.
pub(super) fn new_device_id() -> String {
    letters(b'A', 10)
}

/// A user name for somebody who did not choose one: twelve letters.
pub(super) fn new_name() -> String {
    letters(b'a', 12)
}

fn letters(first: u8, count: usize) -> String {
    let letter = |random: u8| char::from(first + random % 26);
    rand::random::<[u8; 16]>()
        .into_iter()
        .take(count)
        .map(letter)
        .collect()
}
