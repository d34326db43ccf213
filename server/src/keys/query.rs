//! Other people's keys, with the signatures that were made over them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ruma::{OwnedServerName, OwnedUserId};
use serde_json::{Map, Value, json};

use super::{FromOthers, Keys, UserKeys};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::encryption::device_keys::KeySignature;

/// The keys that were found, as JSON objects.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By user and device.
    pub devices: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
    /// Master keys by user.
    pub master: BTreeMap<OwnedUserId, Value>,
    /// Self-signing keys by user.
    pub self_signing: BTreeMap<OwnedUserId, Value>,
    /// The caller's own user-signing key.
    pub user_signing: BTreeMap<OwnedUserId, Value>,
    /// Servers that could not be asked.
    pub unreachable: BTreeSet<OwnedServerName>,
}

impl Keys {
    /// The keys of users, of these devices or (when none is named) of all. People who share no room with the caller
    /// have none. Costs grow with the devices of the users; other servers are asked for what is not known of theirs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn query(
        &self,
        caller: &Caller,
        asked: BTreeMap<OwnedUserId, Vec<String>>,
    ) -> Result<Found, Refusal> {
        let known = self.known_to(caller, asked.keys()).await?;
        let (own, others): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|user_id| self.identity.is_local(user_id));
        let mut found = self.keys_here(&own).await?;
        if !others.is_empty() {
            self.add_keys_elsewhere(&mut found, others.clone()).await?;
        }
        let names = own.iter().chain(&others).map(ToString::to_string).collect();
        for signature in self
            .store
            .encryption
            .key_signatures(names, Some(&caller.user_id))
            .await?
        {
            add_signature(&mut found, signature);
        }
        found.user_signing.retain(|user_id, _| *user_id == caller.user_id);
        for (user_id, wanted) in asked {
            let devices = found.devices.entry(user_id).or_default();
            devices.retain(|device_id, _| wanted.is_empty() || wanted.contains(device_id));
        }
        Ok(found)
    }

    /// The keys of users of this server as other servers may have them: without the names of devices, with the
    /// signatures of the users themselves; each with its version, which grows with every change.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn for_peers(&self, users: &[OwnedUserId]) -> Result<Vec<(UserKeys, i64)>, Refusal> {
        let names: Vec<String> = users.iter().map(ToString::to_string).collect();
        // Asked first: keys may be newer than their version says, never older.
        let versions = self.store.federation.device_list_versions(names.clone()).await?;
        let mut found = self.keys_here(users).await?;
        for signature in self.store.encryption.key_signatures(names, None).await? {
            add_signature(&mut found, signature);
        }
        for keys in found.devices.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(keys) = keys.as_object_mut() {
                keys.remove("unsigned");
            }
        }
        let version = |user_id| versions.get(user_id).map_or(0, |position| position.0);
        Ok(users
            .iter()
            .map(|user_id| (found.take(user_id), version(user_id)))
            .collect())
    }

    /// All keys of users of this server, without the signatures that were added later.
    async fn keys_here(&self, users: &[OwnedUserId]) -> Result<Found, Refusal> {
        let mut found = Found::default();
        if users.is_empty() {
            return Ok(found);
        }
        let names: Vec<String> = users.iter().map(ToString::to_string).collect();
        for stored in self.store.encryption.device_keys(names.clone()).await? {
            let mut keys: Value = serde_json::from_str(&stored.json).map_err(Refusal::internal)?;
            if let Some(name) = stored.display_name {
                keys["unsigned"] = json!({ "device_display_name": name });
            }
            let devices = found.devices.entry(stored.user_id).or_default();
            devices.insert(stored.device_id, keys);
        }
        for key in self.store.encryption.cross_signing_keys(names).await? {
            let json = serde_json::from_str(&key.json).map_err(Refusal::internal)?;
            let place = match key.usage.as_str() {
                "master" => &mut found.master,
                "self_signing" => &mut found.self_signing,
                _ => &mut found.user_signing,
            };
            place.insert(key.user_id, json);
        }
        Ok(found)
    }

    async fn add_keys_elsewhere(&self, found: &mut Found, users: Vec<OwnedUserId>) -> Result<(), Refusal> {
        let answered = match self.others() {
            Some(others) => others.keys_of(users).await?,
            None => FromOthers::none(users.iter().map(|user_id| user_id.server_name().to_owned())),
        };
        answered.found.into_iter().for_each(|keys| found.add(keys));
        found.unreachable = answered.unreachable;
        Ok(())
    }

    /// Those of the users whose keys the caller may have: the caller, and who shares a room.
    pub(super) async fn known_to<'u>(
        &self,
        caller: &Caller,
        users: impl IntoIterator<Item = &'u OwnedUserId>,
    ) -> Result<HashSet<OwnedUserId>, Refusal> {
        let (own, others): (Vec<_>, Vec<_>) =
            users.into_iter().partition(|user_id| **user_id == caller.user_id);
        let others = others.into_iter().map(ToString::to_string).collect();
        let mut known = self.store.rooms.sharing_rooms(&caller.user_id, others).await?;
        known.extend(own.first().map(|user_id| (*user_id).clone()));
        Ok(known)
    }
}

/// Puts a signature where the key that it is over was found.
fn add_signature(found: &mut Found, signature: KeySignature) {
    let user_id = &signature.target_user;
    let device = found.devices.get_mut(user_id);
    let device = device.and_then(|devices| devices.get_mut(&signature.target_key));
    let target = match device {
        Some(device) => device,
        None => {
            let of_user = [&mut found.master, &mut found.self_signing]
                .into_iter()
                .filter_map(|keys| keys.get_mut(user_id));
            match of_user
                .into_iter()
                .find(|key| has_key(key, &signature.target_key))
            {
                Some(key) => key,
                None => return,
            }
        }
    };
    let Some(target) = target.as_object_mut() else {
        return;
    };
    let signatures = target
        .entry("signatures")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(signatures) = signatures.as_object_mut() {
        let by_signer = signatures
            .entry(signature.signer.as_str())
            .or_insert_with(|| Value::Object(Map::new()));
        by_signer[signature.signer_key.as_str()] = Value::String(signature.signature);
    }
}

/// Whether a key object is the one with this public key.
pub(super) fn has_key(object: &Value, public_key: &str) -> bool {
    let keys = object.get("keys").and_then(Value::as_object);
    keys.is_some_and(|keys| keys.values().any(|key| key.as_str() == Some(public_key)))
}
