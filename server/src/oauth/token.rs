//! Tokens: what a client gets for a code or a refresh token, and how it gives them back (RFC 6749, sections 4.1.3 and 6; RFC
//! 7009).
//!
//! They are those of a session of `accounts`. What comes twice has come to two: a code that is presented again ends the session
//! that it became, and so does a refresh token that was replaced and whose successor is in use.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{ErrorCode, OAuth, OAuthError, Parameters, SignedIn, device_grant};
use crate::accounts::NewDevice;
use crate::refusal::Refusal;
use crate::store::oauth::Grant;
use crate::token_hash::TokenHash;

/// Lengths of a verifier of PKCE (RFC 7636, section 4.1).
const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;

/// What a client gets.
#[derive(Clone)]
pub struct Tokens {
    /// The access token.
    pub access_token: String,
    /// Renews it.
    pub refresh_token: Option<String>,
    /// For how long the access token is good.
    pub expires_in: Option<Duration>,
    /// What it is good for, where that is told.
    pub scope: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// Whether this is what the challenge was made of.
fn is_verified(verifier: &str, challenge: &str) -> bool {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    VERIFIER.contains(&verifier.len())
        && verifier.chars().all(unreserved)
        && URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge
}

impl OAuth {
    /// Gives a client tokens for what it presents.
    ///
    /// # Errors
    /// When it is worth nothing.
    pub async fn token(&self, parameters: &Parameters, address: IpAddr) -> Result<Tokens, OAuthError> {
        let client_id = parameters.require("client_id")?;
        match parameters.require("grant_type")? {
            "authorization_code" => self.for_code(parameters, client_id, address).await,
            "refresh_token" => {
                let token = parameters.require("refresh_token")?;
                self.for_refresh_token(token, client_id).await
            }
            device_grant::GRANT_TYPE => {
                let code = parameters.require("device_code")?;
                self.for_device_code(code, client_id, address).await
            }
            _ => Err(OAuthError::new(
                ErrorCode::UnsupportedGrantType,
                "there is no such grant here",
            )),
        }
    }

    async fn for_code(
        &self,
        parameters: &Parameters,
        client_id: &str,
        address: IpAddr,
    ) -> Result<Tokens, OAuthError> {
        let code = TokenHash::of(parameters.require("code")?);
        let verifier = parameters.require("code_verifier")?;
        let unknown = || OAuthError::invalid_grant("this code is not valid, or no longer");
        let stored = self.store.code(code).await?.ok_or_else(unknown)?;
        let allowed = stored.allowed;
        if allowed.client_id != client_id || allowed.expires_at <= self.now() {
            return Err(unknown());
        }
        if let Some(family) = stored.became {
            self.end_family(family).await?;
            return Err(unknown());
        }
        let redirect_uri = parameters.get("redirect_uri");
        if redirect_uri.is_some_and(|asked| asked != allowed.redirect_uri) {
            return Err(OAuthError::invalid_grant("redirect_uri is another"));
        }
        if !is_verified(verifier, &allowed.challenge) {
            return Err(OAuthError::invalid_grant("code_verifier does not fit"));
        }
        let who = SignedIn {
            user_id: allowed.user_id,
            proved: allowed.proved,
        };
        let device = self
            .device(client_id, allowed.device_id, address, Grant::Code(code))
            .await?;
        match self.start(&who, device, allowed.scope).await {
            Err(Refusal::BadState(_)) => {
                // Somebody else was faster, and is one too many.
                let stored = self.store.code(code).await?;
                if let Some(family) = stored.and_then(|stored| stored.became) {
                    self.end_family(family).await?;
                }
                Err(unknown())
            }
            started => started.map_err(not_started),
        }
    }

    async fn for_device_code(
        &self,
        code: &str,
        client_id: &str,
        address: IpAddr,
    ) -> Result<Tokens, OAuthError> {
        let (grant, who) = self.allowed_device(code, client_id).await?;
        let used_up = Grant::DeviceCode(TokenHash::of(code));
        let device = self.device(client_id, grant.device_id, address, used_up).await?;
        self.start(&who, device, grant.scope).await.map_err(not_started)
    }

    /// The device that a client becomes.
    async fn device(
        &self,
        client_id: &str,
        device_id: String,
        address: IpAddr,
        grant: Grant,
    ) -> Result<NewDevice, OAuthError> {
        let name = match self.client(client_id).await {
            Ok(client) => Some(client.name()),
            Err(error) if error.code == ErrorCode::InvalidClient => None,
            Err(error) => return Err(error),
        };
        Ok(NewDevice {
            device_id: Some(device_id),
            display_name: name,
            refreshable: true,
            address: Some(address),
            client: Some((client_id.to_owned(), grant)),
        })
    }

    async fn start(&self, who: &SignedIn, device: NewDevice, scope: String) -> Result<Tokens, Refusal> {
        let session = self
            .accounts
            .start_session(&who.user_id, who.proved, device)
            .await?;
        Ok(Tokens {
            access_token: session.access_token,
            refresh_token: session.refresh_token,
            expires_in: session.expires_in,
            scope: Some(scope),
        })
    }

    async fn for_refresh_token(&self, token: &str, client_id: &str) -> Result<Tokens, OAuthError> {
        match self.accounts.refresh(token, Some(client_id)).await {
            Ok((access_token, refresh_token, expires_in)) => Ok(Tokens {
                access_token,
                refresh_token: Some(refresh_token),
                expires_in: Some(expires_in),
                scope: None,
            }),
            Err(Refusal::UnknownToken { .. }) => {
                if let Some(session) = self.accounts.replaced_session(token).await?
                    && session.client_id.as_deref() == Some(client_id)
                {
                    self.accounts.end_session(session).await?;
                }
                let why = "this refresh token is not valid, or no longer";
                Err(OAuthError::invalid_grant(why))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Ends the session that a token is of: its device is signed out. A token that is of none is as good as given back.
    ///
    /// # Errors
    /// When it is another client's, or the end was not stored.
    pub async fn revoke(&self, parameters: &Parameters) -> Result<(), OAuthError> {
        let token = parameters.require("token")?;
        let Some(session) = self.accounts.session_of(token).await? else {
            return Ok(());
        };
        let Some(owner) = &session.client_id else {
            return Ok(());
        };
        if parameters
            .get("client_id")
            .is_some_and(|client_id| client_id != owner)
        {
            let why = "this token is of another client";
            return Err(OAuthError::new(ErrorCode::InvalidClient, why));
        }
        Ok(self.accounts.end_session(session).await?)
    }

    async fn end_family(&self, family: TokenHash) -> Result<(), OAuthError> {
        if let Some(session) = self.accounts.session_of_family(family).await? {
            self.accounts.end_session(session).await?;
        }
        Ok(())
    }
}

/// Why a session was not started, as the client is told.
fn not_started(refusal: Refusal) -> OAuthError {
    match refusal {
        Refusal::Unavailable(_) | Refusal::Internal(_) => refusal.into(),
        refusal => OAuthError::invalid_grant(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_challenge_was_made_of_verifies() {
        // The example of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(is_verified(verifier, challenge));
        assert!(!is_verified(challenge, challenge), "plain is not S256");
        assert!(!is_verified("", challenge) && !is_verified("a", challenge));
        assert!(!is_verified(&verifier.to_lowercase(), challenge));
    }
}
