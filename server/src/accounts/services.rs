//! What application services do with accounts: act as their users, make them, log in as them, and make their devices
//! (Application Service API, "Client-Server API Extensions").

use std::sync::Arc;

use ruma::{OwnedUserId, UserId};

use super::device::{check_device_id, check_device_name};
use super::register::Registered;
use super::token::{new_device_id, new_name};
use super::{Accounts, Caller};
use crate::appservice_registrations::Registration;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::devices::{Made, NewBareDevice};
use crate::store::accounts::users::NewUser;
use crate::token_hash::TokenHash;

/// What an application service may do without a proof of its user, who has none to give: remove devices and set up
/// cross-signing.
const WITHOUT_PROOF: [&str; 3] = ["delete_device", "delete_devices", "upload cross-signing keys"];

impl Caller {
    /// Whether an operation that asks others for a proof asks this caller for none.
    pub(super) fn needs_no_proof(&self, operation: &str) -> bool {
        self.service.is_some() && WITHOUT_PROOF.contains(&operation)
    }
}

impl Accounts {
    /// The application service that a token belongs to.
    #[must_use]
    pub fn service_of(&self, token: &str) -> Option<Arc<Registration>> {
        if self.services.is_empty() {
            return None;
        }
        self.services.by_token(TokenHash::of(token)).cloned()
    }

    /// Whether there are application services.
    #[must_use]
    pub fn has_services(&self) -> bool {
        !self.services.is_empty()
    }

    /// An application service acting as a user, or as its own, and on a device where it names one.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a user who is not its or does not exist, [`Refusal::UnknownDevice`].
    pub async fn service_caller(
        &self,
        service: Arc<Registration>,
        user_id: Option<&str>,
        device_id: Option<String>,
    ) -> Result<Caller, Refusal> {
        let user_id = match user_id {
            None => service.sender.clone(),
            Some(user_id) => {
                let user_id =
                    UserId::parse(user_id).map_err(|_| Refusal::invalid("user_id is no user id"))?;
                self.check_acts_as(&service, &user_id)?;
                user_id
            }
        };
        self.check_exists(&user_id).await?;
        if let Some(device_id) = &device_id
            && !self.store.accounts.has_device(&user_id, device_id).await?
        {
            let what = format!("{user_id} has no device {device_id}");
            return Err(Refusal::UnknownDevice(what));
        }
        Ok(Caller {
            user_id,
            device_id: device_id.unwrap_or_default(),
            service: Some(service),
        })
    }

    /// Whether a service acts as a user of this server, who need not exist.
    fn check_acts_as(&self, service: &Registration, user_id: &UserId) -> Result<(), Refusal> {
        // Whose a name is alone, nobody else acts as, however wide a namespace.
        let is_of_another = || {
            let owner = self.services.owner_of_user(user_id);
            owner.is_some_and(|owner| **owner != *service)
        };
        if self.identity.is_local(user_id) && service.is_for_user(user_id) && !is_of_another() {
            return Ok(());
        }
        Err(Refusal::forbidden(
            "this user is not one of the application service",
        ))
    }

    async fn check_exists(&self, user_id: &OwnedUserId) -> Result<(), Refusal> {
        let user = self.store.accounts.user(user_id).await?;
        match user {
            Some(user) if !user.deactivated => Ok(()),
            Some(_) => Err(Refusal::forbidden("this account is closed")),
            None => Err(Refusal::forbidden(
                "the application service has not registered this user",
            )),
        }
    }

    /// Checks that a name is no application service's alone.
    ///
    /// # Errors
    /// [`Refusal::Exclusive`].
    pub(super) fn check_no_service_has(&self, user_id: &UserId) -> Result<(), Refusal> {
        match self.services.owner_of_user(user_id) {
            None => Ok(()),
            Some(_) => Err(Refusal::Exclusive(
                "this user name is reserved for an application service".into(),
            )),
        }
    }

    /// Makes a user of an application service, without a password. A name is made up where it is missing.
    ///
    /// # Errors
    /// [`Refusal::Exclusive`] for a name outside its namespaces, or in one that is another's alone;
    /// [`Refusal::InvalidUsername`], [`Refusal::UserInUse`].
    pub async fn register_for_service(
        &self,
        service: &Registration,
        localpart: Option<String>,
        device_id: Option<String>,
    ) -> Result<Registered, Refusal> {
        let localpart = localpart.unwrap_or_else(new_name);
        let user_id = self.service_user_id(&localpart)?;
        let owner = self.services.owner_of_user(&user_id);
        if self.check_acts_as(service, &user_id).is_err() || owner.is_some_and(|owner| **owner != *service) {
            return Err(Refusal::Exclusive(
                "this user name is not in a namespace of the application service".into(),
            ));
        }
        self.make_without_password(user_id.clone()).await?;
        let device_id = device_id.unwrap_or_else(new_device_id);
        Ok(Registered { user_id, device_id })
    }

    /// The id of a service's user. Networks have names that others cannot have here: whatever is printed, but for the colon.
    fn service_user_id(&self, localpart: &str) -> Result<OwnedUserId, Refusal> {
        let is_plain = |c: char| c.is_ascii_graphic() && c != ':';
        let user_id = self.identity.user(localpart);
        let user_id = user_id.filter(|_| !localpart.is_empty() && localpart.chars().all(is_plain));
        user_id.ok_or_else(|| {
            Refusal::InvalidUsername(
                "a user name has only visible ASCII characters, and the whole id at most 255".into(),
            )
        })
    }

    /// Makes the users as whom application services act by themselves, those that are not there yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make_service_senders(&self) -> Result<(), Refusal> {
        for service in self.services.iter() {
            match self.make_without_password(service.sender.clone()).await {
                Ok(()) | Err(Refusal::UserInUse) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    async fn make_without_password(&self, user_id: OwnedUserId) -> Result<(), Refusal> {
        if self.store.accounts.user(&user_id).await?.is_some() {
            return Err(Refusal::UserInUse);
        }
        let user = NewUser {
            user_id,
            password_hash: None,
            admin: false,
            created_at: self.now(),
        };
        match self.store.accounts.create_user(user, None).await {
            Err(StoreError::Conflict(_)) => Err(Refusal::UserInUse),
            made => Ok(made.map(drop)?),
        }
    }

    /// What allows a service to log in as a user of its own.
    ///
    /// # Errors
    /// [`Refusal::Exclusive`] for a user outside its namespaces, [`Refusal::Forbidden`] for one who does not exist or whose
    /// account is closed.
    pub async fn prove_by_service(
        &self,
        service: &Registration,
        user_id: &UserId,
    ) -> Result<Credentials, Refusal> {
        if self.check_acts_as(service, user_id).is_err() {
            return Err(Refusal::Exclusive(
                "this user is not in a namespace of the application service".into(),
            ));
        }
        let user = self.store.accounts.user(user_id).await?;
        let user = user.filter(|user| !user.deactivated);
        let user = user.ok_or_else(|| Refusal::forbidden("there is no such user"))?;
        Ok(user.credentials)
    }

    /// Makes a device of a service's user, without a session; one that is there is given the name, if there is one. Whether
    /// it is new.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`], [`Refusal::ResourceLimitExceeded`] when the user has too many devices.
    pub async fn put_service_device(
        &self,
        user_id: &UserId,
        device_id: &str,
        name: Option<String>,
    ) -> Result<bool, Refusal> {
        check_device_id(device_id)?;
        name.as_deref().map_or(Ok(()), check_device_name)?;
        let device = NewBareDevice {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            display_name: name.clone(),
            created_at: self.now(),
            devices_allowed: i64::from(self.rules.devices_per_user),
        };
        match self.store.accounts.make_device(device).await? {
            Made::New => Ok(true),
            Made::Known => {
                if let Some(name) = name {
                    self.rename_device(user_id, device_id, name).await?;
                }
                Ok(false)
            }
            Made::TooMany => {
                let limit = self.rules.devices_per_user;
                let text = format!("this account has {limit} devices; remove one before the next comes");
                Err(Refusal::ResourceLimitExceeded(text))
            }
        }
    }
}
