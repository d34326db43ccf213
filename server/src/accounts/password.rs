//! Passwords: argon2id, off the async threads, a few at a time.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use ruma::OwnedUserId;

use crate::fair_semaphore::FairSemaphore;
use crate::limits::ClientNetwork;
use crate::refusal::Refusal;

/// Longest password, in bytes: hashing takes time by length.
const LONGEST: usize = 1024;

/// Who has passwords hashed. Each has a fair share of it: who has many hashed waits behind who has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// A stranger, by where they are.
    Address(ClientNetwork),
    /// Somebody who is logged in.
    Account(OwnedUserId),
    /// The admin, on this machine.
    Admin,
}

/// Hashes passwords. Each hash takes 19 MiB for as long as it runs, so as many run at once as there are cores.
#[derive(Debug)]
pub(super) struct Hasher {
    cores: FairSemaphore<Share>,
}

impl Default for Hasher {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            // As many wait as there are requests in flight.
            cores: FairSemaphore::new(cores, cores, usize::MAX),
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
    pub(super) async fn hash(&self, share: Share, password: String) -> Result<String, Refusal> {
        let made = self.work(share, move || make(&password)).await?;
        made.map_err(Refusal::internal)
    }

    /// Whether a password is the one that was hashed. Without a hash it takes as long and says no, so that the time
    /// does not tell which accounts exist.
    pub(super) async fn verify(
        &self,
        share: Share,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Refusal> {
        let check = move || match hash {
            Some(hash) => PasswordHash::new(&hash)
                .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok()),
            None => make(&password).is_err(),
        };
        self.work(share, check).await
    }

    async fn work<T: Send + 'static>(
        &self,
        share: Share,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.cores.acquire(share).await.map_err(Refusal::internal)?;
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

/// Checks a password that is to be set, which has at least so many characters.
pub(super) fn check_strength(password: &str, shortest: usize) -> Result<(), Refusal> {
    if password.chars().count() < shortest {
        let text = format!("a password has at least {shortest} characters");
        return Err(Refusal::WeakPassword(text));
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
        let hash = hasher.hash(Share::Admin, "correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let verify =
            |password: &str, hash: Option<String>| hasher.verify(Share::Admin, password.into(), hash);
        assert!(verify("correct horse", Some(hash.clone())).await.unwrap());
        assert!(!verify("correct horse ", Some(hash.clone())).await.unwrap());
        assert!(!verify("", Some(hash)).await.unwrap());
        assert!(!verify("correct horse", None).await.unwrap());
        assert!(!verify("x", Some("no hash".into())).await.unwrap());
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert!(matches!(check_strength("", 1), Err(Refusal::WeakPassword(_))));
        assert!(matches!(
            check_strength("1234567", 8),
            Err(Refusal::WeakPassword(_))
        ));
        assert!(check_strength("ääääääää", 8).is_ok());
        assert!(check_strength(&"x".repeat(1025), 8).is_err());
    }
}
