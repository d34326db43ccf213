//! New accounts.

use ruma::OwnedUserId;

use super::{Accounts, password};
use crate::refusal::Refusal;
use crate::store::accounts::NewUser;

impl Accounts {
    /// Makes an account with a password.
    ///
    /// # Errors
    /// [`Refusal::UserInUse`], [`Refusal::InvalidUsername`].
    pub async fn create(&self, localpart: &str, password: String) -> Result<OwnedUserId, Refusal> {
        let user_id = self.identity.user(localpart).filter(|_| is_valid(localpart));
        let user_id = user_id.ok_or_else(|| {
            Refusal::InvalidUsername(
                "a user name has only a-z, 0-9 and . _ = - / +, and at most 255 characters".into(),
            )
        })?;
        let password_hash = password::hash(password).await?;
        let user = NewUser {
            user_id: user_id.clone(),
            password_hash: Some(password_hash),
            admin: false,
            created_at: i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX),
        };
        match self.store.create_user(user).await {
            Ok(()) => Ok(user_id),
            Err(crate::store::StoreError::Conflict(_)) => Err(Refusal::UserInUse),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_valid(localpart: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
    !localpart.is_empty() && localpart.chars().all(allowed)
}
