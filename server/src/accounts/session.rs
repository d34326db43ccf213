//! Sessions: an access token on a device.

use std::sync::Arc;

use ruma::UserId;

use super::token::{TokenHash, new_secret};
use super::{Accounts, Caller, password};
use crate::refusal::Refusal;
use crate::store::accounts::NewSession;

/// A device's way in.
#[derive(Clone, Debug)]
pub struct Session {
    /// The device.
    pub device_id: String,
    /// The access token, to be shown once.
    pub access_token: String,
}

impl Accounts {
    /// Who a token belongs to.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let hash = TokenHash::of(token);
        let known = match self.sessions.get(&hash) {
            Some(known) => known,
            None => {
                let stored = self
                    .store
                    .session(hash)
                    .await?
                    .ok_or(Refusal::UnknownToken { soft_logout: false })?;
                let caller = Arc::new(Caller {
                    user_id: stored.user_id,
                    device_id: stored.device_id,
                });
                let known = (caller, stored.expires_at);
                self.sessions.insert(hash, known.clone());
                known
            }
        };
        if known
            .1
            .is_some_and(|expires_at| expires_at <= self.clock.now_ms())
        {
            return Err(Refusal::UnknownToken { soft_logout: true });
        }
        Ok((*known.0).clone())
    }

    /// Checks a user's password.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a wrong password and for an unknown user alike.
    pub async fn check_password(&self, user_id: &UserId, password: String) -> Result<(), Refusal> {
        let wrong = || Refusal::forbidden("the user name or password is wrong");
        let user = self.store.user(user_id).await?.ok_or_else(wrong)?;
        if user.deactivated {
            return Err(Refusal::UserDeactivated);
        }
        let hash = user.password_hash.ok_or_else(wrong)?;
        if password::verify(password, hash).await? {
            Ok(())
        } else {
            Err(wrong())
        }
    }

    /// Starts a session on a device, new or known.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn start_session(
        &self,
        user_id: &UserId,
        device_id: Option<String>,
        display_name: Option<String>,
    ) -> Result<Session, Refusal> {
        let device_id =
            device_id.unwrap_or_else(|| new_secret("").trim_start_matches('_').chars().take(10).collect());
        let access_token = new_secret("mat");
        self.store
            .start_session(NewSession {
                user_id: user_id.to_owned(),
                device_id: device_id.clone(),
                display_name,
                token_hash: TokenHash::of(&access_token),
                created_at: i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX),
            })
            .await?;
        Ok(Session {
            device_id,
            access_token,
        })
    }
}
