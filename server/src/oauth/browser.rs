//! Browsers on this server's own pages: who is signed in in one, and that a form comes from a page that it was shown.
//!
//! A browser has one cookie. Until somebody signs in it is any random text; then a new one, whose hash is the session. Each
//! form carries the seal of the cookie, which only this server makes, so that no other page can have it sent.

use ruma::{OwnedUserId, UserId};

use super::OAuth;
use crate::accounts::new_secret;
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::token_hash::TokenHash;

/// How long somebody stays signed in in a browser, in milliseconds.
const SESSION_MS: i64 = 30 * 60 * 1000;

/// Browsers that one user is signed in in.
const SESSIONS: i64 = 10;

/// For how long a user allows that the cross-signing keys are replaced, in milliseconds.
const RESET_MS: i64 = 10 * 60 * 1000;

/// What the key of the seals is derived for.
pub(super) const PURPOSE: &[u8] = b"maru forms";

/// Somebody who is signed in in a browser.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// What that has proved, until the password changes.
    pub proved: Credentials,
}

impl OAuth {
    /// A cookie for a browser in which nobody is signed in.
    #[must_use]
    pub fn new_cookie(&self) -> String {
        new_secret("browser")
    }

    /// The seal that forms carry which are shown to a browser.
    #[must_use]
    pub fn form_seal(&self, cookie: &str) -> String {
        self.form_seals.seal(&[cookie])
    }

    /// Whether a form was shown to the browser that sends it.
    #[must_use]
    pub fn is_sealed(&self, cookie: &str, seal: &str) -> bool {
        self.form_seals.is_seal(&[cookie], seal)
    }

    /// Who is signed in in a browser.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn signed_in(&self, cookie: &str) -> Result<Option<SignedIn>, Refusal> {
        let found = self
            .store
            .browser_session(TokenHash::of(cookie), self.now())
            .await?;
        Ok(found.map(|(user_id, proved)| SignedIn { user_id, proved }))
    }

    /// Signs somebody in who has proved to be that: the browser's new cookie.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn sign_in(&self, user_id: &UserId, proved: Credentials) -> Result<String, Refusal> {
        let cookie = self.new_cookie();
        let until = self.now().saturating_add(SESSION_MS);
        let token = TokenHash::of(&cookie);
        let started = self
            .store
            .start_browser_session(token, user_id, proved, until, SESSIONS);
        started.await?;
        Ok(cookie)
    }

    /// Signs out whoever is signed in in a browser; its devices stay.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn sign_out(&self, cookie: &str) -> Result<(), Refusal> {
        Ok(self.store.end_browser_session(TokenHash::of(cookie)).await?)
    }

    /// The user, who has just proved to be that, allows for a while that the cross-signing keys are replaced.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn allow_reset(&self, user_id: &UserId, proved: Credentials) -> Result<(), Refusal> {
        let until = self.now().saturating_add(RESET_MS);
        Ok(self.store.allow_reset(user_id, proved, until).await?)
    }
}
