//! The certificate of a TLS key: a deterministic wrapping of one public key, and how a peer's key is
//! read out of what it sent.
//!
//! Certificates rather than raw public keys (RFC 7250), because TLS stacks of other languages rarely
//! have the latter. Names, dates, issuer and the certificate's own signature prove nothing and are
//! ignored; that its sender holds the key is proven by CertificateVerify alone, which both verifiers
//! of this module's neighbour check.

use maru_protocol::{PublicKey, SecretKey};
use rustls::{CertificateError, Error, pki_types::CertificateDer, server::ParsedCertificate};

/// Largest certificate that is looked at, in bytes. Ours has 206; other stacks add extensions.
const MAX_CERTIFICATE_BYTES: usize = 2048;

/// `AlgorithmIdentifier { id-Ed25519 }`, without parameters (RFC 8410).
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// All that precedes the 32 key bytes in an Ed25519 `SubjectPublicKeyInfo`.
const KEY_FIELD_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The object identifier of a common name, 2.5.4.3.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BIT_STRING: u8 = 0x03;

/// One DER value: tag, length, and the parts one after the other. At most 65,535 bytes.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = body.len().to_be_bytes();
    let [.., high, low] = length;
    let mut value = match body.len() {
        ..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    value.extend(body);
    value
}

/// The self-signed certificate of `key`: X.509 v3, serial 1, `CN=maru`, no expiry, no extensions.
/// The same key always gives the same 206 bytes (`spec/federation.md`, "Certificates").
pub fn certificate(key: &SecretKey) -> CertificateDer<'static> {
    let common_name = [&COMMON_NAME[..], &der(UTF8_STRING, &[b"maru"])].concat();
    let name = der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[&common_name])])]);
    let not_before = der(UTC_TIME, &[b"700101000000Z"]);
    // What stands for "no expiry" (RFC 5280 section 4.1.2.5).
    let not_after = der(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let signed = der(
        SEQUENCE,
        &[
            &[0xa0, 0x03, 0x02, 0x01, 0x02], // version 3
            &[0x02, 0x01, 0x01],             // serial number 1
            &ED25519,
            &name,
            &der(SEQUENCE, &[&not_before, &not_after]),
            &name,
            &KEY_FIELD_PREFIX,
            key.public_key().as_bytes(),
        ],
    );
    let signature = der(BIT_STRING, &[&[0], &key.sign(&signed).0]);
    CertificateDer::from(der(SEQUENCE, &[&signed, &ED25519, &signature]))
}

/// The key of a peer, from what it sent as its certificate chain.
///
/// # Errors
/// What becomes TLS alert 42 (bad certificate) for a chain, a certificate that does not parse to its
/// last byte or is over 2 KiB, and a key of small order or in a second spelling; alert 43 (unsupported
/// certificate) for anything but a plain Ed25519 key.
pub(super) fn key_of(
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
) -> Result<PublicKey, Error> {
    if !chain.is_empty() || certificate.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::BadEncoding.into());
    }
    let field = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let bytes: &[u8; 32] = field
        .strip_prefix(&KEY_FIELD_PREFIX[..])
        .and_then(|key| key.try_into().ok())
        .ok_or(CertificateError::InvalidPurpose)?;
    PublicKey::from_bytes(bytes).map_err(|_| CertificateError::BadEncoding.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_the_same_206_bytes_each_time_and_holds_the_key() {
        let key = SecretKey::from_seed(&[7; 32]);
        let first = certificate(&key);
        assert_eq!(first.len(), 206);
        assert_eq!(first, certificate(&key));
        assert_eq!(key_of(&first, &[]).unwrap(), key.public_key());
    }

    #[test]
    fn its_own_signature_is_a_signature_of_the_key() {
        let key = SecretKey::from_seed(&[7; 32]);
        let bytes = certificate(&key);
        // The outer header has three bytes; the signature stands at the end, the signed part before it.
        let signature = maru_protocol::Signature(bytes[206 - 64..].try_into().unwrap());
        let signed = &bytes[3..206 - 64 - 3 - 7];
        key.public_key().verify(signed, &signature).unwrap();
    }

    #[test]
    fn one_byte_more_and_one_certificate_more_are_refused() {
        let key = SecretKey::from_seed(&[7; 32]);
        let own = certificate(&key);
        let longer = CertificateDer::from([&own[..], &[0]].concat());
        assert!(key_of(&longer, &[]).is_err());
        assert!(key_of(&own, std::slice::from_ref(&own)).is_err());
        let huge = CertificateDer::from(vec![0x30; MAX_CERTIFICATE_BYTES + 1]);
        assert!(key_of(&huge, &[]).is_err());
    }
}
