//! Registration tokens: made by the admin, and the one that the first start prints.

use std::time::Duration;

use super::Accounts;
use super::token::new_secret;
use crate::refusal::Refusal;
use crate::store::accounts::registration_tokens::NewRegistrationToken;
use crate::token_hash::TokenHash;

/// Characters of a token that are kept to tell it from others.
const HINT: usize = 8;

impl Accounts {
    /// Makes a token with which `uses` accounts can be registered, any number if unset, for a while or for ever. The
    /// token itself is not kept.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_registration_token(
        &self,
        uses: Option<u32>,
        valid_for: Option<Duration>,
    ) -> Result<String, Refusal> {
        let token = new_secret("reg");
        let mut stored = self.registration_token_of(&token);
        stored.uses_allowed = uses.map(i64::from);
        stored.expires_at = valid_for.map(|valid_for| {
            let ms = i64::try_from(valid_for.as_millis()).unwrap_or(i64::MAX);
            stored.created_at.saturating_add(ms)
        });
        self.store.accounts.create_registration_token(stored).await?;
        Ok(token)
    }

    /// On the first start of a server, which has no users and no tokens: a token with which one person can register
    /// and becomes the admin. Afterwards `None`.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn ensure_first_admin_token(&self) -> Result<Option<String>, Refusal> {
        let token = new_secret("admin");
        let mut stored = self.registration_token_of(&token);
        stored.uses_allowed = Some(1);
        stored.admin = true;
        let made = self
            .store
            .accounts
            .create_first_registration_token(stored)
            .await?;
        Ok(made.then_some(token))
    }

    /// Whether somebody could register with this token now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_valid_registration_token(&self, token: &str) -> Result<bool, Refusal> {
        let known = self
            .store
            .accounts
            .registration_token(TokenHash::of(token), self.now());
        Ok(known.await?.is_some())
    }

    fn registration_token_of(&self, token: &str) -> NewRegistrationToken {
        NewRegistrationToken {
            token_hash: TokenHash::of(token),
            hint: token.chars().take(HINT).collect(),
            uses_allowed: None,
            admin: false,
            expires_at: None,
            created_at: self.now(),
        }
    }
}
