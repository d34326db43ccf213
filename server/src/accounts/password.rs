//! Passwords: argon2id, off the async threads.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::refusal::Refusal;

/// 19 MiB, two passes, one lane: what OWASP recommends for argon2id.
fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Hashes a password into PHC form.
pub(super) async fn hash(password: String) -> Result<String, Refusal> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(Refusal::internal)?;
    let work = move || {
        hasher()
            .hash_password(password.as_bytes(), &salt)
            .map(|hash| hash.to_string())
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Refusal::internal)?
        .map_err(Refusal::internal)
}

/// Whether a password is the one that was hashed.
pub(super) async fn verify(password: String, hash: String) -> Result<bool, Refusal> {
    let work = move || {
        PasswordHash::new(&hash)
            .is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok())
    };
    tokio::task::spawn_blocking(work).await.map_err(Refusal::internal)
}
