//! Seals that only this server makes, and every node of it alike: what carries one need not be kept.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key that makes seals for one purpose.
pub(crate) struct SealKey([u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// The key for a purpose, derived from a secret of this server.
    pub(crate) fn derived(secret: &[u8; 32], purpose: &[u8]) -> Self {
        let mut key = Hmac::<Sha256>::new(&padded(secret).into());
        key.update(purpose);
        Self(key.finalize().into_bytes().into())
    }

    /// The seal of some text, in hexadecimal digits.
    pub(crate) fn seal(&self, text: &[&str]) -> String {
        let seal = self.mac(text).finalize().into_bytes();
        seal.iter()
            .fold(String::new(), |id, byte| id + &format!("{byte:02x}"))
    }

    /// Whether a seal is that of some text. Takes as long for every wrong one.
    pub(crate) fn is_seal(&self, text: &[&str], seal: &str) -> bool {
        let bytes = (0..seal.len()).step_by(2).map(|at| {
            let digits = seal.get(at..at + 2)?;
            u8::from_str_radix(digits, 16).ok()
        });
        let bytes = bytes.collect::<Option<Vec<u8>>>();
        bytes.is_some_and(|bytes| self.mac(text).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, text: &[&str]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&padded(&self.0).into());
        text.iter().for_each(|part| mac.update(part.as_bytes()));
        mac
    }
}

/// A key as long as a block of the hash, as which HMAC takes it.
fn padded(key: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    block
}
