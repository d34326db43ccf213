//! Other people's keys, with the signatures that were made over them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use super::Keys;
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::device_keys::KeySignature;

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
    pub unreachable: BTreeSet<String>,
}

impl Keys {
    /// The keys of users, of these devices or (when none is named) of all. People who share no room with the caller
    /// have none. Costs grow with the devices of the users.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn query(
        &self,
        caller: &Caller,
        asked: BTreeMap<OwnedUserId, Vec<String>>,
    ) -> Result<Found, Refusal> {
        let mut found = Found::default();
        for user_id in asked.keys() {
            if self.identity.is_local(user_id) {
                found.devices.insert(user_id.clone(), BTreeMap::new());
            } else {
                found.unreachable.insert(user_id.server_name().to_string());
            }
        }
        let known = self.known_to(caller, asked.keys()).await?;
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            return Ok(found);
        }
        for stored in self.store.device_keys(names.clone()).await? {
            let wanted = asked.get(&stored.user_id);
            if wanted.is_some_and(|devices| devices.is_empty() || devices.contains(&stored.device_id)) {
                let mut keys: Value = serde_json::from_str(&stored.json).map_err(Refusal::internal)?;
                if let Some(name) = stored.display_name {
                    keys["unsigned"] = json!({ "device_display_name": name });
                }
                let devices = found.devices.entry(stored.user_id).or_default();
                devices.insert(stored.device_id, keys);
            }
        }
        for key in self.store.cross_signing_keys(names.clone()).await? {
            let json = serde_json::from_str(&key.json).map_err(Refusal::internal)?;
            let place = match key.usage.as_str() {
                "master" => &mut found.master,
                "self_signing" => &mut found.self_signing,
                _ if key.user_id == caller.user_id => &mut found.user_signing,
                _ => continue,
            };
            place.insert(key.user_id, json);
        }
        for signature in self.store.key_signatures(names, &caller.user_id).await? {
            add_signature(&mut found, signature);
        }
        Ok(found)
    }

    /// Those of the users, of this server, whose keys the caller may have: the caller, and who shares a room.
    pub(super) async fn known_to<'u>(
        &self,
        caller: &Caller,
        users: impl IntoIterator<Item = &'u OwnedUserId>,
    ) -> Result<HashSet<OwnedUserId>, Refusal> {
        let (own, others): (Vec<_>, Vec<_>) = users
            .into_iter()
            .filter(|user_id| self.identity.is_local(user_id))
            .partition(|user_id| **user_id == caller.user_id);
        let others = others.into_iter().map(ToString::to_string).collect();
        let mut known = self.store.sharing_rooms(&caller.user_id, others).await?;
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
