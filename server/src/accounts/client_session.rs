//! Sessions of OAuth 2.0 clients: which client a device is signed in by, and the end of one whose tokens come back.

use super::session::family_of;
use super::{Accounts, Caller};
use crate::refusal::Refusal;
use crate::store::accounts::devices::Devices;
use crate::store::accounts::sessions::SessionOf;
use crate::token_hash::TokenHash;

impl Accounts {
    /// Whether a device is signed in by an OAuth 2.0 client.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_of_client(&self, caller: &Caller) -> Result<bool, Refusal> {
        let client = self.store.accounts.client_of(&caller.user_id, &caller.device_id);
        Ok(client.await?.is_some())
    }

    /// The session that an access or refresh token is of, also a refresh token that was replaced.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session_of(&self, token: &str) -> Result<Option<SessionOf>, Refusal> {
        match self.store.accounts.session_of_token(TokenHash::of(token)).await? {
            None => self.replaced_session(token).await,
            found => Ok(found),
        }
    }

    /// The session that a refresh token which is not valid any more was of.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn replaced_session(&self, refresh_token: &str) -> Result<Option<SessionOf>, Refusal> {
        match family_of(refresh_token) {
            Some(family) => self.session_of_family(TokenHash::of(family)).await,
            None => Ok(None),
        }
    }

    /// The session whose refresh tokens are of this family.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session_of_family(&self, family: TokenHash) -> Result<Option<SessionOf>, Refusal> {
        Ok(self.store.accounts.session_of_family(family).await?)
    }

    /// Ends a session, with its device.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn end_session(&self, session: SessionOf) -> Result<(), Refusal> {
        let device = Devices::These(vec![session.device_id]);
        self.remove_devices(&session.user_id, device, None).await
    }
}
