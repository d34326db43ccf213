//! Keys of a device: its identity, once and for all, and its one-time keys.

use std::sync::Arc;

use ruma::UserId;
use ruma::encryption::DeviceKeys;
use serde_json::{Map, Value};

use super::one_time::key_of;
use super::{KeyCounts, Keys, check_key_size, check_name};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::encryption::one_time_keys::{KeysRefused, NewKey};

/// One-time keys that a device may offer at a time.
const ONE_TIME_KEYS: usize = 1000;

/// Public keys of one device's identity.
const IDENTITY_KEYS: usize = 20;

/// What a device uploads, as JSON texts.
#[derive(Clone, Debug, Default)]
pub struct NewDeviceKeys {
    /// The device's identity.
    pub device_keys: Option<String>,
    /// One-time keys by `algorithm:id`.
    pub one_time_keys: Vec<(String, String)>,
    /// Fallback keys by `algorithm:id`.
    pub fallback_keys: Vec<(String, String)>,
}

impl Keys {
    /// Takes keys of the caller's device; what the server holds for the device then.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] and [`Refusal::BadJson`] for keys of another device, without signature, malformed, or
    /// that contradict what is there; [`Refusal::TooLarge`].
    pub async fn upload(&self, caller: &Caller, new: NewDeviceKeys) -> Result<Arc<KeyCounts>, Refusal> {
        let (user_id, device_id) = (&caller.user_id, caller.device_id.as_str());
        // An application service may have named no device.
        check_name(device_id)?;
        let one_time = keys_of(new.one_time_keys)?;
        let fallback = keys_of(new.fallback_keys)?;
        if let Some(json) = new.device_keys {
            let identity = check_identity(user_id, device_id, &json)?;
            let keys = identity.get("keys").cloned();
            let json = Value::Object(identity).to_string();
            let same = move |stored: Option<&str>| same_identity(stored, keys.as_ref());
            self.store
                .encryption
                .put_device_keys(user_id, device_id, json, same)
                .await??;
        }
        if !one_time.is_empty() || !fallback.is_empty() {
            let offered = self
                .store
                .encryption
                .offer_keys(user_id, device_id, one_time, fallback, ONE_TIME_KEYS)
                .await?;
            self.counts_changed(user_id, device_id);
            offered.map_err(refused)?;
        }
        self.counts(user_id, device_id).await
    }
}

fn keys_of(keys: Vec<(String, String)>) -> Result<Vec<NewKey>, Refusal> {
    keys.into_iter().map(|(id, json)| key_of(&id, json)).collect()
}

fn refused(refused: KeysRefused) -> Refusal {
    match refused {
        KeysRefused::Exists(id) => Refusal::invalid(format!("another key named {id} is there already")),
        KeysRefused::TooMany => {
            Refusal::TooLarge(format!("a device may offer {ONE_TIME_KEYS} one-time keys"))
        }
    }
}

/// The identity of a device, signed by itself, without what others add to it.
pub(super) fn check_identity(
    user_id: &UserId,
    device_id: &str,
    json: &str,
) -> Result<Map<String, Value>, Refusal> {
    check_key_size(json)?;
    let bad = |error: serde_json::Error| Refusal::BadJson(error.to_string());
    let keys: DeviceKeys = serde_json::from_str(json).map_err(bad)?;
    if keys.user_id != user_id || keys.device_id != device_id {
        return Err(Refusal::invalid("these are not the keys of your device"));
    }
    if keys.keys.is_empty() || keys.keys.len() > IDENTITY_KEYS {
        let why = format!("a device has 1 to {IDENTITY_KEYS} identity keys");
        return Err(Refusal::invalid(why));
    }
    for (key_id, key) in &keys.keys {
        check_name(key_id.as_str())?;
        check_name(key)?;
    }
    let own = format!("ed25519:{device_id}");
    let signed = keys
        .signatures
        .get(user_id)
        .is_some_and(|signatures| signatures.keys().any(|key_id| key_id.as_str() == own));
    if !signed {
        return Err(Refusal::invalid("device keys are signed by the device itself"));
    }
    let mut identity: Map<String, Value> = serde_json::from_str(json).map_err(bad)?;
    identity.remove("unsigned");
    Ok(identity)
}

/// A device that others know by its keys keeps them for as long as it lives.
fn same_identity(stored: Option<&str>, keys: Option<&Value>) -> Result<(), Refusal> {
    let Some(stored) = stored else {
        return Ok(());
    };
    let stored: Map<String, Value> = serde_json::from_str(stored).map_err(Refusal::internal)?;
    if stored.get("keys") == keys {
        return Ok(());
    }
    Err(Refusal::invalid(
        "this device has other identity keys already; log in as a new device",
    ))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    fn keys(device: &str, signer: &str) -> String {
        json!({
            "user_id": "@a:example.org", "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": { format!("ed25519:{device}"): "AAAA" },
            "signatures": { "@a:example.org": { signer: "sig" } },
            "unsigned": { "device_display_name": "hers" },
        })
        .to_string()
    }

    #[test]
    fn only_the_device_itself_says_who_it_is() {
        let alice = user_id!("@a:example.org");
        let identity = check_identity(alice, "D", &keys("D", "ed25519:D")).unwrap();
        assert!(!identity.contains_key("unsigned"));
        for (device, signer) in [("E", "ed25519:E"), ("D", "ed25519:E")] {
            let refused = check_identity(alice, "D", &keys(device, signer));
            assert!(matches!(refused, Err(Refusal::InvalidParam(_))), "{refused:?}");
        }
    }

    #[test]
    fn an_identity_does_not_change() {
        let first = json!({ "keys": { "ed25519:D": "AAAA" } });
        assert!(same_identity(Some(&first.to_string()), first.get("keys")).is_ok());
        let other = json!({ "ed25519:D": "BBBB" });
        assert!(same_identity(Some(&first.to_string()), Some(&other)).is_err());
    }
}
