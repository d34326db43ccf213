//! Device grants (RFC 8628): a device without a browser shows a short code, and its user types it on a page of this server.

use super::scope::Scope;
use super::{Client, ErrorCode, OAuth, OAuthError, Parameters, SignedIn};
use crate::accounts::new_secret;
use crate::refusal::Refusal;
use crate::store::oauth::device_grants::{Answer, DeviceGrant};
use crate::token_hash::TokenHash;

/// The grant by its name.
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How long a device can ask, in milliseconds.
const GRANT_MS: i64 = 15 * 60 * 1000;

/// How long a device waits between two questions, in milliseconds; one that does not waits so much longer each time.
const PACE_MS: i64 = 5_000;

/// Devices that ask at the same time.
const GRANTS: i64 = 100_000;

/// Letters of a user code: none that is taken for another, and no vowels, so that they make no words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// How many of them a user code has.
const USER_CODE: usize = 8;

/// What a device is told that wants to be signed in.
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// What it asks with.
    pub device_code: String,
    /// What it shows.
    pub user_code: String,
    /// How long both are good, in seconds.
    pub expires_in: i64,
    /// How long it waits between two questions, in seconds.
    pub interval: i64,
}

/// What a device asks for, as its user is shown it.
#[derive(Clone, Debug)]
pub struct DeviceRequest {
    /// The client on it.
    pub client: Client,
    /// The code that it shows.
    pub user_code: String,
}

/// A new user code: 20 to the power of 8 are enough for those who may guess, who are few and counted.
fn new_user_code() -> String {
    let letter = |random: u32| {
        LETTERS
            .get(random as usize % LETTERS.len())
            .copied()
            .unwrap_or(b'B')
    };
    let letters = rand::random::<[u32; USER_CODE]>().map(letter);
    let (first, second) = letters.split_at(USER_CODE / 2);
    let text = |half: &[u8]| half.iter().copied().map(char::from).collect::<String>();
    format!("{}-{}", text(first), text(second))
}

/// A user code as it is shown, of one as somebody types it.
fn typed(text: &str) -> Option<String> {
    let letters: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let is_code = letters.len() == USER_CODE && letters.bytes().all(|letter| LETTERS.contains(&letter));
    let (first, second) = letters.split_at_checked(USER_CODE / 2)?;
    is_code.then(|| format!("{first}-{second}"))
}

impl OAuth {
    /// A device wants to be signed in.
    ///
    /// # Errors
    /// When its client is not known or has not registered for that, or too many ask.
    pub async fn begin_device_grant(
        &self,
        parameters: &Parameters,
    ) -> Result<DeviceAuthorization, OAuthError> {
        let client = self.client(parameters.require("client_id")?).await?;
        if !client.has_grant(GRANT_TYPE) {
            let why = "this client has not registered for device codes";
            return Err(OAuthError::new(ErrorCode::UnauthorizedClient, why));
        }
        let scope = Scope::read(parameters.require("scope")?)?;
        let (device_code, user_code) = (new_secret("device"), new_user_code());
        let grant = DeviceGrant {
            client_id: client.id,
            scope: scope.granted,
            device_id: scope.device_id,
            expires_at: self.now().saturating_add(GRANT_MS),
        };
        let (device, user) = (TokenHash::of(&device_code), TokenHash::of(&user_code));
        let put = self.store.put_device_grant(device, user, grant, PACE_MS, GRANTS);
        if !put.await? {
            let why = "too many devices ask to be signed in";
            return Err(OAuthError::new(ErrorCode::TemporarilyUnavailable, why));
        }
        Ok(DeviceAuthorization {
            device_code,
            user_code,
            expires_in: GRANT_MS / 1000,
            interval: PACE_MS / 1000,
        })
    }

    /// What the device with this code asks for, as somebody types it; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_request(&self, text: &str) -> Result<Option<DeviceRequest>, Refusal> {
        let Some(user_code) = typed(text) else {
            return Ok(None);
        };
        let found = self.store.device_grant(TokenHash::of(&user_code), self.now());
        let Some(grant) = found.await? else {
            return Ok(None);
        };
        match self.client(&grant.client_id).await {
            Ok(client) => Ok(Some(DeviceRequest { client, user_code })),
            Err(error) if error.code == ErrorCode::InvalidClient => Ok(None),
            Err(error) => Err(Refusal::Unavailable(error.description)),
        }
    }

    /// The user answers a device; false when it does not ask any more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn answer_device(
        &self,
        request: &DeviceRequest,
        signed_in: &SignedIn,
        allows: bool,
    ) -> Result<bool, Refusal> {
        let answer = match allows {
            true => Answer::Allowed {
                user_id: signed_in.user_id.clone(),
                proved: signed_in.proved,
            },
            false => Answer::Denied,
        };
        let user_code = TokenHash::of(&request.user_code);
        let answered = self.store.answer_device_grant(user_code, answer, self.now());
        let is_answered = answered.await?;
        if is_answered && allows {
            let kept = self.keep(&request.client).await;
            kept.map_err(|error| Refusal::Unavailable(error.description))?;
        }
        Ok(is_answered)
    }

    /// A device asks what has become of its code: what its user has allowed, and who that is.
    pub(super) async fn allowed_device(
        &self,
        device_code: &str,
        client_id: &str,
    ) -> Result<(DeviceGrant, SignedIn), OAuthError> {
        let now = self.now();
        let polled = self
            .store
            .poll_device_grant(TokenHash::of(device_code), now, PACE_MS)
            .await?;
        let polled = polled.filter(|polled| polled.grant.client_id == client_id);
        let unknown = || OAuthError::invalid_grant("this device code is not valid, or used already");
        let polled = polled.ok_or_else(unknown)?;
        if polled.grant.expires_at <= now {
            let why = "the user has not answered in time";
            return Err(OAuthError::new(ErrorCode::ExpiredToken, why));
        }
        match polled.answer {
            Answer::Allowed { user_id, proved } => Ok((polled.grant, SignedIn { user_id, proved })),
            Answer::Denied => {
                let why = "the user does not allow it";
                Err(OAuthError::new(ErrorCode::AccessDenied, why))
            }
            Answer::None if polled.is_too_soon => {
                let why = "ask less often";
                Err(OAuthError::new(ErrorCode::SlowDown, why))
            }
            Answer::None => {
                let why = "the user has not answered yet";
                Err(OAuthError::new(ErrorCode::AuthorizationPending, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_code_is_understood_however_it_is_typed() {
        let code = new_user_code();
        assert_eq!(code.len(), 9);
        let loose = format!(" {} ", code.to_lowercase().replace('-', " "));
        for text in [&code, &loose, &code.replace('-', "")] {
            assert_eq!(typed(text).as_deref(), Some(&*code), "{text}");
        }
        for text in [
            "",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "AEIO-UAEI",
            "BCDF-GHJ1",
            "ßßßß-ßßßß",
        ] {
            assert_eq!(typed(text), None, "{text}");
        }
    }
}
