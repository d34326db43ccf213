//! Devices: listed, named, logged out.

use std::sync::Arc;

use ruma::{OwnedUserId, UserId};

use super::{Accounts, Caller};
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::devices::{Devices, StoredDevice};
use crate::store::{Store, StoreError};
use crate::token_hash::TokenHash;

/// Longest device id, in bytes.
const ID_BYTES: usize = 255;

/// Longest name of a device, in characters.
const NAME_CHARACTERS: usize = 255;

/// Checks a device id that a client chose.
pub(super) fn check_device_id(device_id: &str) -> Result<(), Refusal> {
    if device_id.is_empty() || device_id.len() > ID_BYTES || device_id.chars().any(char::is_control) {
        let text = format!("a device id has 1 to {ID_BYTES} bytes and no control characters");
        return Err(Refusal::invalid(text));
    }
    Ok(())
}

/// Checks a name that somebody gave a device.
pub(super) fn check_device_name(name: &str) -> Result<(), Refusal> {
    if name.chars().count() > NAME_CHARACTERS || name.contains('\0') {
        let text = format!("a device's name has at most {NAME_CHARACTERS} characters, none of them NUL");
        return Err(Refusal::invalid(text));
    }
    Ok(())
}

fn unknown_device() -> Refusal {
    Refusal::not_found("you have no such device")
}

impl Accounts {
    /// The devices of a user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn devices(&self, user_id: &UserId) -> Result<Vec<StoredDevice>, Refusal> {
        let mut devices = self.store.accounts.devices(user_id).await?;
        self.last_seen.complete(user_id, &mut devices);
        Ok(devices)
    }

    /// One device of a user.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn device(&self, user_id: &UserId, device_id: &str) -> Result<StoredDevice, Refusal> {
        let devices = self.devices(user_id).await?;
        let found = devices.into_iter().find(|device| device.device_id == device_id);
        found.ok_or_else(unknown_device)
    }

    /// Names a device.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::InvalidParam`].
    pub async fn rename_device(
        &self,
        user_id: &UserId,
        device_id: &str,
        name: String,
    ) -> Result<(), Refusal> {
        check_device_name(&name)?;
        let renamed = self
            .store
            .accounts
            .rename_device(user_id, device_id, name)
            .await?;
        renamed.then_some(()).ok_or_else(unknown_device)
    }

    /// Logs devices out and removes all that belongs to them. Their access tokens are refused from now on. `proved`
    /// where the user had to prove to be the owner of the account.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when what was proved does not hold any more.
    pub async fn remove_devices(
        &self,
        user_id: &UserId,
        devices: Devices,
        proved: Option<Credentials>,
    ) -> Result<(), Refusal> {
        let removed = self.end_sessions(user_id, |store, user_id| async move {
            let removed = store.accounts.remove_devices(&user_id, devices, proved).await?;
            Ok(removed.map(|ended| (ended, ())))
        });
        removed.await?.ok_or_else(Refusal::outdated_proof)
    }

    /// Ends sessions of a user in the database and then in memory: what else came of it, `None` when nothing was done.
    /// Not given up when the client hangs up: what ends in the one must end in the other.
    pub(super) async fn end_sessions<F, T>(
        &self,
        user_id: &UserId,
        end: impl FnOnce(Arc<Store>, OwnedUserId) -> F,
    ) -> Result<Option<T>, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<Option<(Vec<TokenHash>, T)>, StoreError>> + Send + 'static,
    {
        let ending = self.sessions.ending(user_id);
        let stored = end(Arc::clone(&self.store), user_id.to_owned());
        let ended = self.tasks.finish("end_sessions", async move {
            let ended = stored.await?;
            if let Some((tokens, _)) = &ended {
                ending.ended(tokens);
            }
            Ok::<_, StoreError>(ended.map(|(_, outcome)| outcome))
        });
        Ok(ended.await.map_err(Refusal::internal)??)
    }

    /// Logs the caller's device out.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn log_out(&self, caller: &Caller) -> Result<(), Refusal> {
        let this = Devices::These(vec![caller.device_id.clone()]);
        self.remove_devices(&caller.user_id, this, None).await
    }
}
