//! Passwords: argon2id, off the async threads, a few at a time.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::refusal::Refusal;

/// Shortest password that somebody may register with, in characters. An admin may set any that is not empty.
const SHORTEST: usize = 8;

/// Longest password, in bytes: hashing takes time by length.
const LONGEST: usize = 1024;

/// Hashes passwords. Each hash takes 19 MiB for as long as it runs, so as many run at once as there are cores.
#[derive(Debug)]
pub(super) struct Hasher {
    permits: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            permits: Arc::new(Semaphore::new(cores)),
        }
    }
}

/// 19 MiB, two passes, one lane: what OWASP recommends for argon2id.
fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

fn make(password: &str) -> Result<String, argon2::password_hash::Error> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>())?;
    let hash = argon2().hash_password(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}

impl Hasher {
    /// Hashes a password into PHC form.
    pub(super) async fn hash(&self, password: String) -> Result<String, Refusal> {
        let made = self.work(move || make(&password)).await?;
        made.map_err(Refusal::internal)
    }

    /// Whether a password is the one that was hashed. Without a hash it takes as long and says no, so that the time
    /// does not tell which accounts exist.
    pub(super) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Refusal> {
        let check = move || match hash {
            Some(hash) => PasswordHash::new(&hash)
                .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok()),
            None => make(&password).is_err(),
        };
        self.work(check).await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.map_err(Refusal::internal)?;
        let permitted = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(permitted)
            .await
            .map_err(Refusal::internal)
    }
}

/// Checks a password that somebody chose for themselves.
pub(super) fn check_strength(password: &str) -> Result<(), Refusal> {
    check_usable(password)?;
    if password.chars().count() < SHORTEST {
        let text = format!("a password has at least {SHORTEST} characters");
        return Err(Refusal::WeakPassword(text));
    }
    Ok(())
}

/// Checks a password that the admin chose.
pub(super) fn check_usable(password: &str) -> Result<(), Refusal> {
    if password.is_empty() {
        return Err(Refusal::WeakPassword("the password is empty".into()));
    }
    if password.len() > LONGEST {
        return Err(Refusal::invalid(format!(
            "a password has at most {LONGEST} bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_verifies() {
        let hasher = Hasher::default();
        let hash = hasher.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let verify = |password: &str, hash: Option<String>| hasher.verify(password.into(), hash);
        assert!(verify("correct horse", Some(hash.clone())).await.unwrap());
        assert!(!verify("correct horse ", Some(hash.clone())).await.unwrap());
        assert!(!verify("", Some(hash)).await.unwrap());
        assert!(!verify("correct horse", None).await.unwrap());
        assert!(!verify("x", Some("no hash".into())).await.unwrap());
    }

    #[test]
    fn empty_short_and_endless_passwords_are_refused() {
        assert!(matches!(check_usable(""), Err(Refusal::WeakPassword(_))));
        assert!(check_usable("x").is_ok());
        assert!(matches!(check_strength("1234567"), Err(Refusal::WeakPassword(_))));
        assert!(check_strength("ääääääää").is_ok());
        assert!(check_strength(&"x".repeat(1025)).is_err());
    }
}
