//! New accounts.

use std::sync::Arc;

use ruma::OwnedUserId;
use tokio::sync::OnceCell;

use super::interactive_auth::{Attempt, Gate, Proof};
use super::token::{new_device_id, new_name};
use super::{Accounts, Share};
use crate::cache::Cache;
use crate::config::Registration;
use crate::limits::ClientNetwork;
use crate::refusal::{Refusal, Stage};
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::users::NewUser;
use crate::token_hash::TokenHash;

/// Sessions of interactive authentication whose account is remembered, two generations of this many.
const REMEMBERED: usize = 1_000;

/// An account that somebody wants.
#[derive(Clone)]
pub struct NewAccount {
    /// The local part of its id; one is made up where it is missing.
    pub localpart: Option<String>,
    /// In the clear. May be missing from a request that only asks what must be proved.
    pub password: Option<String>,
    /// The first device's id; one is made up where it is missing.
    pub device_id: Option<String>,
    /// Where the request comes from.
    pub from: ClientNetwork,
}

/// What allows somebody to register.
#[derive(Clone, Copy, Debug)]
struct Admission {
    /// The registration token that is used up by it.
    token: Option<TokenHash>,
    /// Whether the account becomes an admin's.
    makes_admin: bool,
}

impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount")
            .field("localpart", &self.localpart)
            .finish_non_exhaustive()
    }
}

/// An account that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub user_id: OwnedUserId,
    /// What the first device is called, unless the client does not want to be logged in.
    pub device_id: String,
}

/// What sessions of interactive authentication have made: a client whose answer got lost asks again.
#[derive(Debug)]
pub(super) struct Registrations(Cache<String, Arc<OnceCell<Registered>>>);

impl Default for Registrations {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Registrations {
    fn of(&self, session: &str) -> Arc<OnceCell<Registered>> {
        self.0.get(session).unwrap_or_else(|| {
            let none = Arc::<OnceCell<_>>::default();
            self.0.insert(session.to_owned(), Arc::clone(&none));
            none
        })
    }
}

impl Accounts {
    /// Registers somebody who proves that they may, by the configured kind of registration. The one-time admin token
    /// of the first start is good whatever the kind. The same request in the same session gets the same account, as
    /// long as the session is remembered.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] where registration is closed, [`Refusal::InteractiveAuth`] until there is a proof,
    /// [`Refusal::MissingParam`] where a password is missing from a request that has one, and what is wrong with name
    /// or password.
    pub async fn register(
        self: &Arc<Self>,
        wanted: NewAccount,
        attempt: Option<Attempt>,
    ) -> Result<(Registered, Credentials), Refusal> {
        self.check_open(attempt.as_ref()).await?;
        if let Some(password) = &wanted.password {
            self.check_new_password(password)?;
        }
        let gate = self.registration_gate();
        if let (None, Some(localpart)) = (&attempt, &wanted.localpart) {
            let user_id = self.check_available(localpart).await?;
            self.check_no_service_has(&user_id)?;
        }
        let (proof, session) = gate.proof(attempt)?;
        let Some(password) = wanted.password.clone() else {
            return Err(Refusal::MissingParam("password is missing".into()));
        };
        let once = session.as_deref().map(|session| self.registrations.of(session));
        let (once, accounts) = (once.unwrap_or_default(), Arc::clone(self));
        let asked = wanted.clone();
        // Not given up when the client hangs up: the session must know of the account that it has made.
        let registering = self.tasks.finish("register", async move {
            let mut is_new = false;
            let made = once.get_or_try_init(async || {
                is_new = true;
                accounts.register_proved(asked, proof, session).await
            });
            Ok::<_, Refusal>((made.await?.clone(), is_new))
        });
        let (made, is_new) = registering.await.map_err(Refusal::internal)??;
        let proved = match is_new {
            true => Credentials::FIRST,
            false => self.check_same(&made, &wanted, password).await?,
        };
        Ok((made, proved))
    }

    /// Makes the account that somebody wants who has shown a proof.
    async fn register_proved(
        &self,
        wanted: NewAccount,
        proof: Proof,
        session: Option<String>,
    ) -> Result<Registered, Refusal> {
        let gate = self.registration_gate();
        let Some(admission) = self.judge(&proof).await? else {
            let why = Refusal::forbidden(match proof {
                Proof::RegistrationToken(_) => "this registration token is not valid",
                _ => "this does not allow to register here",
            });
            return Err(gate.ask(session, Some(why)));
        };
        let localpart = wanted.localpart.unwrap_or_else(new_name);
        self.check_no_service_has(&self.new_user_id(&localpart)?)?;
        if !admission.makes_admin {
            self.check_not_reserved(&localpart)?;
        }
        let user_id = self.check_available(&localpart).await?;
        let password = wanted.password.unwrap_or_default();
        let share = Share::Address(wanted.from);
        let made = self.make(user_id.clone(), password, share, false, admission.token);
        if !made.await? {
            let why = Refusal::forbidden("this registration token has just been used up");
            return Err(gate.ask(session, Some(why)));
        }
        let device_id = wanted.device_id.unwrap_or_else(new_device_id);
        Ok(Registered { user_id, device_id })
    }

    /// Checks that a request in a session that has made an account is the one that made it.
    async fn check_same(
        &self,
        made: &Registered,
        wanted: &NewAccount,
        password: String,
    ) -> Result<Credentials, Refusal> {
        let other_name = wanted
            .localpart
            .as_ref()
            .is_some_and(|name| name != made.user_id.localpart());
        let other_device = wanted.device_id.as_ref().is_some_and(|id| *id != made.device_id);
        if other_name || other_device {
            return Err(Refusal::forbidden(
                "this session has made another account; begin again",
            ));
        }
        let share = Share::Address(wanted.from);
        self.check_password(&made.user_id, password, share).await
    }

    /// Whether somebody can make an account here now, and whether that takes a registration token: `None` where nobody can.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn registration_needs_token(&self) -> Result<Option<bool>, Refusal> {
        match self.rules.registration {
            Registration::Open => Ok(Some(false)),
            Registration::Token => Ok(Some(true)),
            Registration::Closed => {
                let is_first = self.store.accounts.users_after("", 1).await?.is_empty();
                Ok(is_first.then_some(true))
            }
        }
    }

    /// Nobody learns anything where registration is closed, except who comes with a token. As long as there is no
    /// account at all, somebody holds the one-time admin token: whoever asks is asked for it.
    async fn check_open(&self, attempt: Option<&Attempt>) -> Result<(), Refusal> {
        let may_go_on = self.rules.registration != Registration::Closed
            || match attempt {
                Some(attempt) => matches!(attempt.proof, Proof::RegistrationToken(_)),
                None => self.store.accounts.users_after("", 1).await?.is_empty(),
            };
        match may_go_on {
            true => Ok(()),
            false => Err(Refusal::forbidden("registration is closed on this server")),
        }
    }

    fn registration_gate(&self) -> Gate<'_> {
        Gate {
            accounts: self,
            purpose: "register".to_owned(),
            flows: match self.rules.registration {
                Registration::Open => &[Stage::Dummy],
                Registration::Token | Registration::Closed => &[Stage::RegistrationToken],
            },
            page: None,
        }
    }

    /// What a proof allows: `None` when it does not allow to register.
    async fn judge(&self, proof: &Proof) -> Result<Option<Admission>, Refusal> {
        match proof {
            Proof::Dummy if self.rules.registration == Registration::Open => Ok(Some(Admission {
                token: None,
                makes_admin: false,
            })),
            Proof::RegistrationToken(token) => {
                let hash = TokenHash::of(token);
                let makes_admin = self.store.accounts.registration_token(hash, self.now()).await?;
                let good = match self.rules.registration {
                    Registration::Closed => makes_admin == Some(true),
                    Registration::Open | Registration::Token => makes_admin.is_some(),
                };
                Ok(good.then_some(Admission {
                    token: Some(hash),
                    makes_admin: makes_admin == Some(true),
                }))
            }
            _ => Ok(None),
        }
    }

    /// Stores an account; false when its registration token is used up.
    pub(super) async fn make(
        &self,
        user_id: OwnedUserId,
        password: String,
        share: Share,
        admin: bool,
        token: Option<TokenHash>,
    ) -> Result<bool, Refusal> {
        let user = NewUser {
            user_id,
            password_hash: Some(self.passwords.hash(share, password).await?),
            admin,
            created_at: self.now(),
        };
        match self.store.accounts.create_user(user, token).await {
            Err(StoreError::Conflict(_)) => Err(Refusal::UserInUse),
            made => Ok(made?),
        }
    }
}
