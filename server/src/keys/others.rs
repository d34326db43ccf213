//! Keys that other servers hold: what this server asks of them, and how what they say is checked.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use ruma::encryption::KeyUsage;
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cross_signing::check_key;
use super::upload::check_identity;
use super::{Claimed, Found};
use crate::refusal::Refusal;
use crate::store::encryption::one_time_keys::Claim;

/// The devices and keys of one user, as JSON objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserKeys {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Identity keys by device.
    pub devices: BTreeMap<String, Value>,
    /// The master key.
    pub master: Option<Value>,
    /// The self-signing key.
    pub self_signing: Option<Value>,
}

impl UserKeys {
    /// Keys as another server gave them, as JSON texts. Those that are no keys of that user and device are left out: one
    /// that is malformed takes none of the others with it.
    #[must_use]
    pub fn checked<'k>(
        user_id: &UserId,
        devices: impl IntoIterator<Item = (&'k str, &'k str)>,
        master: Option<&str>,
        self_signing: Option<&str>,
    ) -> Self {
        let device = |(device_id, json): (&str, &str)| {
            let identity = check_identity(user_id, device_id, json).ok()?;
            Some((device_id.to_owned(), Value::Object(identity)))
        };
        let key = |json: Option<&str>, usage: &KeyUsage| {
            let json = json?;
            check_key(user_id, json, usage).ok()?;
            serde_json::from_str(json).ok()
        };
        Self {
            user_id: user_id.to_owned(),
            devices: devices.into_iter().filter_map(device).collect(),
            master: key(master, &KeyUsage::Master),
            self_signing: key(self_signing, &KeyUsage::SelfSigning),
        }
    }
}

impl Found {
    /// Adds what another server said of one of its users.
    pub(super) fn add(&mut self, keys: UserKeys) {
        self.master
            .extend(keys.master.map(|key| (keys.user_id.clone(), key)));
        self.self_signing
            .extend(keys.self_signing.map(|key| (keys.user_id.clone(), key)));
        self.devices.insert(keys.user_id, keys.devices);
    }

    /// The public part of what was found of one user.
    pub(super) fn take(&mut self, user_id: &UserId) -> UserKeys {
        UserKeys {
            user_id: user_id.to_owned(),
            devices: self.devices.remove(user_id).unwrap_or_default(),
            master: self.master.remove(user_id),
            self_signing: self.self_signing.remove(user_id),
        }
    }
}

/// What other servers answered, and those that did not.
#[derive(Clone, Debug)]
pub struct FromOthers<T> {
    /// What they answered.
    pub found: Vec<T>,
    /// Servers that could not be asked. What was known of their users before is in `found` all the same.
    pub unreachable: BTreeSet<OwnedServerName>,
}

impl<T> Default for FromOthers<T> {
    fn default() -> Self {
        Self::none([])
    }
}

impl<T> FromOthers<T> {
    /// Nobody could be asked.
    pub(super) fn none(servers: impl IntoIterator<Item = OwnedServerName>) -> Self {
        Self {
            found: Vec::new(),
            unreachable: servers.into_iter().collect(),
        }
    }
}

/// The way to other servers. Bounded in time: a server that does not answer is unreachable.
pub trait OtherServers: Send + Sync + std::fmt::Debug {
    /// The devices and keys of users of other servers.
    fn keys_of(&self, users: Vec<OwnedUserId>) -> BoxFuture<'_, Result<FromOthers<UserKeys>, Refusal>>;

    /// One-time keys of devices of other servers. At most one for each claim.
    fn claim_of(&self, claims: Vec<Claim>) -> BoxFuture<'_, Result<FromOthers<Claimed>, Refusal>>;
}
