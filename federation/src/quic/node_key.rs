//! Secrets that are derived from a key: each is good for one thing, and says nothing of the key.

use maru_protocol::SecretKey;
use rustls::crypto::{
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    hmac::Tag,
    tls13::{Hkdf, OkmBlock},
};

use super::endpoint::QuicError;

/// What the key of nodes is derived in.
const NODES: &str = "maru.node_link.v1";

/// HKDF and HMAC with SHA-256.
pub(super) fn hkdf() -> Result<&'static dyn Hkdf, QuicError> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(QuicError::NoCipherSuite)?;
    Ok(suite.hkdf_provider)
}

/// 32 bytes that only the holder of a key can make, the same each time.
pub(super) fn derived_secret(
    key: &SecretKey,
    context: &'static str,
    purpose: &[u8],
) -> Result<Tag, QuicError> {
    // A signature of a fixed text is such a secret.
    let secret = key.sign_with_context(context, b"").0;
    Ok(hkdf()?.hmac_sign(&OkmBlock::new(&secret), purpose))
}

/// The key by which the nodes of one homeserver know each other: all of them hold the TLS key, and nobody else does. It is
/// another one, so that neither is ever shown where the other is meant.
pub(super) fn node_key(tls_key: &SecretKey) -> Result<SecretKey, QuicError> {
    let secret = derived_secret(tls_key, NODES, b"key of nodes")?;
    let seed = secret.as_ref().first_chunk().ok_or(QuicError::NoCipherSuite)?;
    Ok(SecretKey::from_seed(seed))
}
