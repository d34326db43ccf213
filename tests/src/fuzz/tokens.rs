//! The short texts that clients and peers hand back to us: cursors, keys, names.

use maru_protocol::{
    KeyId, LogId, PageToken, PublicKey, ServerKind, Signature, SinceToken, server_name::key_name,
};
use ruma::ServerName;

/// Reading a token never panics, and each value has one spelling: what was read is written the same.
pub fn tokens(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    same(text, text.parse::<LogId>().map(|token| token.to_string()).ok());
    same(
        text,
        text.parse::<SinceToken>().map(|token| token.to_string()).ok(),
    );
    same(
        text,
        text.parse::<PageToken>().map(|token| token.to_string()).ok(),
    );
    // Padding of base64 is accepted and not written.
    let unpadded = text.trim_end_matches('=');
    same(
        unpadded,
        PublicKey::from_base64(text).map(|key| key.to_base64()).ok(),
    );
    same(
        unpadded,
        Signature::from_base64(text)
            .map(|signature| signature.to_base64())
            .ok(),
    );
    if let Ok(name) = <&ServerName>::try_from(text)
        && let Ok(ServerKind::Key(key)) = ServerKind::of(name)
    {
        same(text, key_name(&key).map(|name| name.to_string()).ok());
    }
    let _ = KeyId::new(text);
}

fn same(text: &str, written: Option<String>) {
    assert!(
        written.as_deref().is_none_or(|written| written == text),
        "{text} is written {written:?}"
    );
}
