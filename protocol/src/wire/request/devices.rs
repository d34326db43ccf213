//! Devices and keys of users, for end-to-end encryption.

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    limits::MAX_ID_BYTES,
    wire::{
        bounded::{Json, Text, id, list, natural},
        limits::{MAX_DEVICES, MAX_NAME_BYTES, MAX_USERS},
    },
};

/// Asks for the devices and keys of users of the server that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The users.
    #[serde(deserialize_with = "list::<_, _, MAX_USERS>")]
    pub user_ids: Vec<OwnedUserId>,
}

/// Devices and keys of those users who exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLists {
    /// One entry for each user.
    #[serde(deserialize_with = "list::<_, _, MAX_USERS>")]
    pub users: Vec<DeviceListOf>,
}

/// Devices and keys of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceListOf {
    /// The user.
    pub user_id: OwnedUserId,
    /// Grows with every change, so that of two answers the newer is known.
    #[serde(deserialize_with = "natural")]
    pub version: u64,
    /// The user's devices.
    #[serde(deserialize_with = "list::<_, _, MAX_DEVICES>")]
    pub devices: Vec<Device>,
    /// The master key as its signed JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Json>,
    /// The self-signing key as its signed JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<Json>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub device_id: OwnedDeviceId,
    /// Its keys as their signed JSON object; none for a device without encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Json>,
    /// What its user calls it, if the server hands that out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text<MAX_ID_BYTES>>,
}

/// Asks for one-time keys; each is given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimKeys {
    /// One entry for each key that is wanted.
    #[serde(deserialize_with = "list::<_, _, MAX_DEVICES>")]
    pub keys: Vec<ClaimKey>,
}

/// One key that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimKey {
    /// A user of the server that is asked.
    pub user_id: OwnedUserId,
    /// The user's device.
    #[serde(deserialize_with = "id")]
    pub device_id: OwnedDeviceId,
    /// The algorithm, such as `signed_curve25519`.
    pub algorithm: Text<MAX_NAME_BYTES>,
}

/// The keys that there were. A device without any is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedKeys {
    /// At most one for each that was wanted.
    #[serde(deserialize_with = "list::<_, _, MAX_DEVICES>")]
    pub keys: Vec<ClaimedKey>,
}

/// One claimed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedKey {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    #[serde(deserialize_with = "id")]
    pub device_id: OwnedDeviceId,
    /// The key's id with its algorithm, such as `signed_curve25519:AAAAHQ`.
    pub key_id: Text<MAX_ID_BYTES>,
    /// The key, a JSON object or a JSON string.
    pub key: Json,
}
