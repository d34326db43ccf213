//! Ed25519 keys, their ids and signatures (specification appendices, "Signing details").
//!
//! Verification is strict and single: `verify_strict` refuses what laxer checks accept, so that every
//! replica gives the same verdict. Keys of small order and second spellings of one key are refused
//! when they are read, because a signature under such a key proves nothing.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ed25519_dalek::{Signer, VerifyingKey};
use thiserror::Error;

/// Base64 as Matrix writes it: standard alphabet, no padding; padding is tolerated when reading.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest version part of a [`KeyId`], in bytes.
const MAX_KEY_VERSION_BYTES: usize = 64;

/// Why a key, a key id or a signature could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The bytes are not a point of the curve in its one canonical spelling.
    #[error("not a canonical Ed25519 public key")]
    NotAKey,
    /// The key has small order: anybody can make signatures that fit it.
    #[error("the public key has small order")]
    SmallOrder,
    /// Not base64, or not of the expected length.
    #[error("not base64 of the expected length")]
    Base64,
    /// Not `ed25519:` with 1 to 64 letters, digits or underscores.
    #[error("not a key id of the form ed25519:<version>")]
    KeyId,
    /// The signature does not fit the key and the bytes.
    #[error("the signature is wrong")]
    WrongSignature,
}

/// An Ed25519 private key. Its bytes are wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key that belongs to 32 random bytes, which the caller draws.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for the key store only.
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes as they are. Only events are signed so; see [`SecretKey::sign_with_context`].
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(bytes).to_bytes())
    }

    /// Signs something that is not an event: the context string, a zero byte, then the bytes.
    ///
    /// A context names one purpose, such as `maru.server_record.v1`, and never contains a zero byte, so
    /// that a signature made for one purpose is never good for another. Events begin with `{`; no
    /// context does.
    pub fn sign_with_context(&self, context: &'static str, bytes: &[u8]) -> Signature {
        self.sign(&in_context(context, bytes))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public_key())
    }
}

/// An Ed25519 public key that is safe to verify with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] for bytes that are no point or not its canonical spelling,
    /// [`KeyError::SmallOrder`] for the few keys that verify forged signatures.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey)?;
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotAKey);
        }
        Ok(Self(key))
    }

    /// Reads 32 bytes of any slice; a slice of another length is no key.
    ///
    /// # Errors
    /// As [`PublicKey::from_bytes`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_bytes(bytes.try_into().map_err(|_| KeyError::NotAKey)?)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Reads base64, padded or not.
    ///
    /// # Errors
    /// [`KeyError::Base64`], else as [`PublicKey::from_bytes`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode_array(text)?)
    }

    /// Unpadded base64, as `/_matrix/key` answers and device keys write it.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.as_bytes())
    }

    /// Verifies a signature over bytes as they are.
    ///
    /// # Errors
    /// [`KeyError::WrongSignature`].
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<(), KeyError> {
        self.0
            .verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| KeyError::WrongSignature)
    }

    /// Verifies what [`SecretKey::sign_with_context`] signed.
    ///
    /// # Errors
    /// [`KeyError::WrongSignature`], also when it was signed in another context.
    pub fn verify_with_context(
        &self,
        context: &'static str,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), KeyError> {
        self.verify(&in_context(context, bytes), signature)
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A detached Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Reads base64, padded or not.
    ///
    /// # Errors
    /// [`KeyError::Base64`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode_array(text).map(Self)
    }

    /// Unpadded base64.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", self.to_base64())
    }
}

/// The id of a signing key, `ed25519:<version>`; the version is 1 to 64 letters, digits or underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// The id with this version.
    ///
    /// # Errors
    /// [`KeyError::KeyId`] for a version outside the grammar.
    pub fn new(version: &str) -> Result<Self, KeyError> {
        format!("ed25519:{version}").parse()
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the colon.
    pub fn version(&self) -> &str {
        self.0.strip_prefix("ed25519:").unwrap_or(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let version = text.strip_prefix("ed25519:").ok_or(KeyError::KeyId)?;
        let fits = (1..=MAX_KEY_VERSION_BYTES).contains(&version.len())
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::KeyId)
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A private key with the id under which others find its public half. It signs events.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// The id that stands beside each signature.
    pub id: KeyId,
    /// The private key.
    pub secret: SecretKey,
}

impl SigningKey {
    /// Signs bytes as they are; for events only.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        self.secret.sign(bytes)
    }

    /// Signs something that is not an event; see [`SecretKey::sign_with_context`].
    pub fn sign_with_context(&self, context: &'static str, bytes: &[u8]) -> Signature {
        self.secret.sign_with_context(context, bytes)
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.secret.public_key()
    }
}

fn in_context(context: &'static str, bytes: &[u8]) -> Vec<u8> {
    debug_assert!(!context.is_empty() && !context.contains('\0') && !context.starts_with('{'));
    [context.as_bytes(), &[0], bytes].concat()
}

fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    // Bounded before decoding: the longest honest text is four bytes for each three, with padding.
    if text.len() > N.div_ceil(3) * 4 {
        return Err(KeyError::Base64);
    }
    let bytes = BASE64.decode(text).map_err(|_| KeyError::Base64)?;
    bytes.try_into().map_err(|_| KeyError::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_order_and_second_spellings_are_refused() {
        let identity = {
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        };
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::SmallOrder));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::SmallOrder));
        // y = p + 3 spells the same point as y = 3, which is on the curve and of large order.
        let mut three = [0; 32];
        three[0] = 3;
        let mut second_spelling = [0xff; 32];
        second_spelling[0] = 0xed + 3;
        second_spelling[31] = 0x7f;
        assert!(PublicKey::from_bytes(&three).is_ok());
        assert_eq!(PublicKey::from_bytes(&second_spelling), Err(KeyError::NotAKey));
        assert_eq!(PublicKey::from_slice(&[3; 31]), Err(KeyError::NotAKey));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SecretKey::from_seed(&[7; 32]);
        let shown = format!(
            "{key:?} {:?}",
            SigningKey {
                id: KeyId::new("1").unwrap(),
                secret: key.clone()
            }
        );
        assert!(!shown.contains(&BASE64.encode(key.to_seed())) && !shown.contains("7, 7"));
    }

    #[test]
    fn key_ids_keep_to_the_grammar() {
        assert_eq!(KeyId::new("a_1").unwrap().as_str(), "ed25519:a_1");
        assert_eq!("ed25519:auto".parse::<KeyId>().unwrap().version(), "auto");
        let long = format!("ed25519:{}", "a".repeat(65));
        for bad in [
            "",
            "ed25519:",
            "ed25519",
            "ed25519:a b",
            "curve25519:a",
            "ed25519:ä",
            long.as_str(),
        ] {
            assert_eq!(bad.parse::<KeyId>(), Err(KeyError::KeyId), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn signatures_fit_their_bytes_and_context_only(
            seed in any::<[u8; 32]>(), bytes in any::<Vec<u8>>(), flip in any::<u8>(),
        ) {
            let key = SecretKey::from_seed(&seed);
            let public = PublicKey::from_base64(&key.public_key().to_base64()).unwrap();
            let signature = Signature::from_base64(&key.sign(&bytes).to_base64()).unwrap();
            prop_assert_eq!(public.verify(&bytes, &signature), Ok(()));
            let mut other = bytes.clone();
            other.push(flip);
            prop_assert!(public.verify(&other, &signature).is_err());

            let signature = key.sign_with_context("maru.test.v1", &bytes);
            prop_assert_eq!(public.verify_with_context("maru.test.v1", &bytes, &signature), Ok(()));
            prop_assert!(public.verify_with_context("maru.test.v2", &bytes, &signature).is_err());
            prop_assert!(public.verify(&bytes, &signature).is_err());
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = PublicKey::from_base64(&text);
            let _ = Signature::from_base64(&text);
            let _ = text.parse::<KeyId>();
        }
    }
}
