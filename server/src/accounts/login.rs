//! Coming in: by password, and by a token that a device which is in has asked for.

use std::time::Duration;

use ruma::{OwnedUserId, UserId};

use super::token::new_secret;
use super::{Accounts, Caller, Share};
use crate::limits::ClientNetwork;
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::token_hash::TokenHash;

/// How long a login token is good for.
const LOGIN_TOKEN_LIFETIME: Duration = Duration::from_secs(120);

impl Accounts {
    /// Checks a user's password: what that proves, until the password changes. `share` is who has it hashed.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a wrong password, for an unknown user and for a closed account alike.
    pub async fn check_password(
        &self,
        user_id: &UserId,
        password: String,
        share: Share,
    ) -> Result<Credentials, Refusal> {
        let user = self.store.accounts.user(user_id).await?;
        let open = user.filter(|user| !user.deactivated);
        let (hash, credentials) =
            open.map_or((None, None), |user| (user.password_hash, Some(user.credentials)));
        let is_right = self.passwords.verify(share, password, hash).await?;
        let proved = credentials.filter(|_| is_right);
        proved.ok_or_else(|| Refusal::forbidden("the user name or password is wrong"))
    }

    /// Whether one of a user's devices was last seen at an address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_seen_at(&self, user_id: &UserId, address: ClientNetwork) -> Result<bool, Refusal> {
        let devices = self.devices(user_id).await?;
        let mut seen = devices
            .iter()
            .filter_map(|device| device.last_seen_address.as_deref()?.parse().ok());
        Ok(seen.any(|seen| ClientNetwork::of(seen) == address))
    }

    /// A token with which one more device of the caller can log in, once and soon (`m.login.token`), and for how long
    /// it is good.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when what was proved does not hold any more.
    pub async fn create_login_token(
        &self,
        caller: &Caller,
        proved: Credentials,
    ) -> Result<(String, Duration), Refusal> {
        let token = new_secret("login");
        let lifetime = i64::try_from(LOGIN_TOKEN_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let (hash, until) = (TokenHash::of(&token), self.now() + lifetime);
        let created = self
            .store
            .accounts
            .create_login_token(hash, &caller.user_id, proved, until);
        if !created.await? {
            return Err(Refusal::outdated_proof());
        }
        Ok((token, LOGIN_TOKEN_LIFETIME))
    }

    /// Uses a login token up: who may log in with it, and what it proves.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when it is not valid.
    pub async fn take_login_token(&self, token: &str) -> Result<(OwnedUserId, Credentials), Refusal> {
        let taken = self
            .store
            .accounts
            .take_login_token(TokenHash::of(token), self.now());
        let taken = taken.await?;
        taken.ok_or_else(|| Refusal::forbidden("this login token is not valid, or no longer"))
    }
}
