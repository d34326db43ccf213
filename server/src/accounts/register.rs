//! New accounts.

use ruma::OwnedUserId;

use super::interactive_auth::{Attempt, Gate, Proof, Stage};
use super::token::new_name;
use super::{Accounts, TokenHash, password};
use crate::config::Registration;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::users::NewUser;

/// An account that somebody wants.
#[derive(Clone)]
pub struct NewAccount {
    /// The local part of its id; one is made up where it is missing.
    pub localpart: Option<String>,
    /// In the clear.
    pub password: String,
}

impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount")
            .field("localpart", &self.localpart)
            .finish_non_exhaustive()
    }
}

impl Accounts {
    /// Registers somebody who proves that they may, by the configured kind of registration. The one-time admin token
    /// of the first start is good whatever the kind.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] where registration is closed, [`Refusal::InteractiveAuth`] until there is a proof, and
    /// what is wrong with name or password.
    pub async fn register(
        &self,
        wanted: NewAccount,
        attempt: Option<Attempt>,
    ) -> Result<OwnedUserId, Refusal> {
        self.check_open(attempt.as_ref())?;
        password::check_strength(&wanted.password)?;
        let localpart = wanted.localpart.unwrap_or_else(new_name);
        let user_id = self.check_available(&localpart).await?;
        let gate = self.registration_gate();
        let (proof, session) = gate.proof(attempt)?;
        let Some(token) = self.judge(&proof).await? else {
            let why = Refusal::forbidden(match proof {
                Proof::RegistrationToken(_) => "this registration token is not valid",
                _ => "this does not allow to register here",
            });
            return Err(gate.ask(session, Some(why)));
        };
        gate.passed(session.as_deref());
        let made = self.make(user_id.clone(), wanted.password, false, token).await?;
        if !made {
            let why = Refusal::forbidden("this registration token has just been used up");
            return Err(gate.ask(None, Some(why)));
        }
        Ok(user_id)
    }

    /// Nobody learns anything where registration is closed, except who comes with a token.
    fn check_open(&self, attempt: Option<&Attempt>) -> Result<(), Refusal> {
        let has_token = attempt.is_some_and(|attempt| matches!(attempt.proof, Proof::RegistrationToken(_)));
        if self.rules.registration == Registration::Closed && !has_token {
            return Err(Refusal::forbidden("registration is closed on this server"));
        }
        Ok(())
    }

    fn registration_gate(&self) -> Gate<'_> {
        Gate {
            accounts: self,
            purpose: "register".to_owned(),
            flows: match self.rules.registration {
                Registration::Open => &[Stage::Dummy],
                Registration::Token | Registration::Closed => &[Stage::RegistrationToken],
            },
        }
    }

    /// Whether a proof allows to register, and with which token: `None` when it does not.
    async fn judge(&self, proof: &Proof) -> Result<Option<Option<TokenHash>>, Refusal> {
        match proof {
            Proof::Dummy if self.rules.registration == Registration::Open => Ok(Some(None)),
            Proof::RegistrationToken(token) => {
                let hash = TokenHash::of(token);
                let makes_admin = self.store.registration_token(hash, self.now()).await?;
                let good = match self.rules.registration {
                    Registration::Closed => makes_admin == Some(true),
                    Registration::Open | Registration::Token => makes_admin.is_some(),
                };
                Ok(good.then_some(Some(hash)))
            }
            _ => Ok(None),
        }
    }

    /// Stores an account; false when its registration token is used up.
    pub(super) async fn make(
        &self,
        user_id: OwnedUserId,
        password: String,
        admin: bool,
        token: Option<TokenHash>,
    ) -> Result<bool, Refusal> {
        let user = NewUser {
            user_id,
            password_hash: Some(self.passwords.hash(password).await?),
            admin,
            created_at: self.now(),
        };
        match self.store.create_user(user, token).await {
            Err(StoreError::Conflict(_)) => Err(Refusal::UserInUse),
            made => Ok(made?),
        }
    }
}
