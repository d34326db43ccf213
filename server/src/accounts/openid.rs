//! Tokens by which a service that is not this server learns who somebody is, and nothing else: a widget, the back end of a
//! call (client-server API, "OpenID"). Nothing is kept of them: a token says until when it is good and whose it is, under a
//! seal.

use std::time::Duration;

use ruma::{OwnedUserId, ServerName, UserId};

use super::Accounts;
use super::seal::SealKey;
use crate::refusal::Refusal;

/// How long a token is good.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What the key of the seals is derived for.
const PURPOSE: &[u8] = b"maru openid";

/// Makes and knows tokens, on every node of this server alike.
#[derive(Debug)]
pub(super) struct OpenIdTokens(SealKey);

impl OpenIdTokens {
    pub(super) fn sealed_with(secret: &[u8; 32]) -> Self {
        Self(SealKey::derived(secret, PURPOSE))
    }

    fn token(&self, user_id: &UserId, now_ms: u64) -> String {
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let until = format!("{:x}", now_ms.saturating_add(lifetime));
        let localpart = user_id.localpart();
        format!(
            "oid_{until}_{}_{localpart}",
            self.0.seal(&[&until, "\0", localpart])
        )
    }

    /// Whose a token is, unless it has expired or was never made here.
    fn owner(&self, token: &str, server_name: &ServerName, now_ms: u64) -> Option<OwnedUserId> {
        let mut parts = token.strip_prefix("oid_")?.splitn(3, '_');
        let (until, seal, localpart) = (parts.next()?, parts.next()?, parts.next()?);
        let is_good = self.0.is_seal(&[until, "\0", localpart], seal);
        let until = u64::from_str_radix(until, 16).ok()?;
        if !is_good || until <= now_ms {
            return None;
        }
        UserId::parse(format!("@{localpart}:{server_name}")).ok()
    }
}

impl Accounts {
    /// A token by which others learn who a user is.
    #[must_use]
    pub fn openid_token(&self, user_id: &UserId) -> String {
        self.openid.token(user_id, self.clock.now_ms())
    }

    /// Whose a token is.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`] when it was not made here, has expired, or its owner's account is closed.
    pub async fn openid_user(&self, token: &str) -> Result<OwnedUserId, Refusal> {
        let unknown = || Refusal::UnknownToken { soft_logout: false };
        let owner = self
            .openid
            .owner(token, self.identity.name(), self.clock.now_ms());
        let owner = owner.ok_or_else(unknown)?;
        let user = self.store.accounts.user(&owner).await?;
        match user {
            Some(user) if !user.deactivated => Ok(owner),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    #[test]
    fn a_token_is_known_until_it_expires_and_by_its_server_alone() {
        let (alice, here) = (user_id!("@al_ice:example.org"), server_name!("example.org"));
        let tokens = OpenIdTokens::sealed_with(&[1; 32]);
        let token = tokens.token(alice, 1_000);
        let whose = |token: &str, now_ms| tokens.owner(token, here, now_ms);
        assert_eq!(whose(&token, 1_000).as_deref(), Some(alice));
        assert_eq!(whose(&token, 3_600_999).as_deref(), Some(alice));
        assert_eq!(whose(&token, 3_601_000), None);
        assert_eq!(
            OpenIdTokens::sealed_with(&[2; 32]).owner(&token, here, 1_000),
            None
        );
        for made_up in [
            "",
            "oid_",
            "oid_ffffffff_00_al_ice",
            &token.replace("al_ice", "bob"),
            &token.replace("oid_", "oid_f"),
            &token.replacen('_', "", 1),
        ] {
            assert_eq!(whose(made_up, 1_000), None, "{made_up}");
        }
    }
}
