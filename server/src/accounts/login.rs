//! Coming in: by password, and by a token that a device which is in has asked for.

use std::time::Duration;

use ruma::{OwnedUserId, UserId};

use super::token::new_secret;
use super::{Accounts, Caller, TokenHash};
use crate::refusal::Refusal;

/// How long a login token is good for.
const LOGIN_TOKEN_LIFETIME: Duration = Duration::from_secs(120);

impl Accounts {
    /// Checks a user's password.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a wrong password and for an unknown user alike, [`Refusal::UserDeactivated`] for a
    /// closed account.
    pub async fn check_password(&self, user_id: &UserId, password: String) -> Result<(), Refusal> {
        let user = self.store.user(user_id).await?;
        if user.as_ref().is_some_and(|user| user.deactivated) {
            return Err(Refusal::UserDeactivated);
        }
        let hash = user.and_then(|user| user.password_hash);
        if self.passwords.verify(password, hash).await? {
            Ok(())
        } else {
            Err(Refusal::forbidden("the user name or password is wrong"))
        }
    }

    /// A token with which one more device of the caller can log in, once and soon (`m.login.token`), and for how long
    /// it is good.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_login_token(&self, caller: &Caller) -> Result<(String, Duration), Refusal> {
        let token = new_secret("login");
        let now = self.now();
        let lifetime = i64::try_from(LOGIN_TOKEN_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        self.store
            .create_login_token(TokenHash::of(&token), &caller.user_id, now + lifetime, now)
            .await?;
        Ok((token, LOGIN_TOKEN_LIFETIME))
    }

    /// Uses a login token up: who may log in with it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when it is not valid.
    pub async fn take_login_token(&self, token: &str) -> Result<OwnedUserId, Refusal> {
        let taken = self.store.take_login_token(TokenHash::of(token), self.now());
        let user_id = taken.await?;
        user_id.ok_or_else(|| Refusal::forbidden("this login token is not valid, or no longer"))
    }
}
