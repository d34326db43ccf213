//! The account page as a proof: a user of an OAuth 2.0 client, which knows no password, approves there what the client asks for
//! (client-server API, "OAuth authentication" of user-interactive authentication), or does it there.

use super::interactive_auth::{Attempt, Gate, Proof};
use super::{Accounts, Caller};
use crate::refusal::{Refusal, Stage};
use crate::store::accounts::credentials::Credentials;

/// What a user approves or does on the account page.
#[derive(Clone, Debug)]
pub enum OnPage {
    /// That the cross-signing keys are replaced.
    CrossSigningReset,
    /// That these devices are signed out.
    SignOut(Vec<String>),
}

impl OnPage {
    /// The address of the page for it.
    fn address(&self, page: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        match self {
            Self::CrossSigningReset => query.append_pair("action", "org.matrix.cross_signing_reset"),
            Self::SignOut(devices) => match &devices[..] {
                [device] => query
                    .append_pair("action", "org.matrix.device_delete")
                    .append_pair("device_id", device),
                _ => query.append_pair("action", "org.matrix.devices_list"),
            },
        };
        format!("{page}?{}", query.finish())
    }

    fn flows(&self) -> &'static [Stage] {
        match self {
            Self::CrossSigningReset => &[Stage::Page, Stage::CrossSigningReset],
            Self::SignOut(_) => &[Stage::Page],
        }
    }
}

impl Accounts {
    /// As [`Accounts::confirm`], but that the user of an OAuth 2.0 client is sent to the account page. What is to be done
    /// there and is done already needs no proof.
    ///
    /// # Errors
    /// [`Refusal::InteractiveAuth`] until it is approved, or the password is given.
    pub async fn confirm_on_page(
        &self,
        caller: &Caller,
        operation: &'static str,
        attempt: Option<Attempt>,
        what: OnPage,
    ) -> Result<Credentials, Refusal> {
        let by_page = attempt
            .as_ref()
            .is_none_or(|attempt| matches!(attempt.proof, Proof::Page));
        let page = self.rules.account_page.as_deref().filter(|_| by_page);
        let is_of_client = page.is_some() && self.is_of_client(caller).await?;
        let (Some(page), true) = (page, is_of_client) else {
            return self.confirm(caller, operation, attempt).await;
        };
        let user = self.store.accounts.user(&caller.user_id).await?;
        let credentials = user.map_or(Credentials::FIRST, |user| user.credentials);
        if self.is_approved(caller, &what, credentials).await? {
            return Ok(credentials);
        }
        let gate = Gate {
            accounts: self,
            purpose: format!("{operation} {} {credentials}", caller.user_id),
            flows: what.flows(),
            page: Some(what.address(page)),
        };
        let (_, session) = gate.proof(attempt)?;
        let why = Refusal::forbidden("approve this on the account page first");
        Err(gate.ask(session, Some(why)))
    }

    /// Whether somebody with these credentials has approved it, or done it.
    async fn is_approved(
        &self,
        caller: &Caller,
        what: &OnPage,
        credentials: Credentials,
    ) -> Result<bool, Refusal> {
        match what {
            OnPage::CrossSigningReset => {
                let allowed = self.store.oauth.allowed_reset(&caller.user_id, self.now());
                Ok(allowed.await? == Some(credentials))
            }
            OnPage::SignOut(devices) => {
                let there = self.store.accounts.devices(&caller.user_id).await?;
                let mut left = there.iter().filter(|device| devices.contains(&device.device_id));
                Ok(left.next().is_none())
            }
        }
    }
}
