//! Backups of room keys, from which a new device reads old messages (client-server API, "Server-side key backups"). Clients
//! encrypt the keys for themselves: the server keeps them, and of two for one session the better one.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::encryption::key_backups::Held;
pub use crate::store::encryption::key_backups::KeyBackup;
use crate::store::encryption::room_keys::KeysChanged;
pub use crate::store::encryption::room_keys::{BackedUpKey, KeyName};

/// Longest name of an algorithm or of a session, in bytes.
const NAME_BYTES: usize = 255;

/// Largest `auth_data` of a version, in bytes.
const AUTH_DATA_BYTES: usize = 64 * 1024;

/// Largest encrypted key, in bytes.
const BACKED_UP_KEY_BYTES: usize = 64 * 1024;

/// What a client says of a version: all else in its request is not kept.
#[derive(Debug, Deserialize)]
struct Algorithm {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

/// A key as a client sends it.
#[derive(Debug, Deserialize)]
struct SentKey {
    first_message_index: u32,
    forwarded_count: u32,
    is_verified: bool,
    session_data: Box<RawValue>,
}

/// The etag and the number of keys of a version after a change of its keys.
type Changed = (String, u64);

/// Which keys of a version: all, those of a room, or that of a session.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Of this room only.
    pub room_id: Option<String>,
    /// Of this session in the room only.
    pub session_id: Option<String>,
}

/// The backups of users' room keys.
#[derive(Debug)]
pub struct KeyBackups {
    store: Arc<Store>,
    quota: Held,
}

/// Keys of a version as they are read, page by page.
#[derive(Debug)]
pub struct RestoredKeys {
    store: Arc<Store>,
    user_id: OwnedUserId,
    version: i64,
    which: Which,
}

impl KeyBackups {
    /// Backups over a store, of so many keys and so many bytes for each user.
    #[must_use]
    pub fn new(store: Arc<Store>, keys: u32, bytes: u64) -> Self {
        let quota = Held {
            keys: keys.into(),
            bytes: bytes.try_into().unwrap_or(i64::MAX),
        };
        Self { store, quota }
    }

    /// Makes a further version, which takes all keys from now on, and returns its number.
    ///
    /// # Errors
    /// [`Refusal::BadJson`], [`Refusal::TooLarge`], or [`Refusal::ResourceLimitExceeded`] for too many versions.
    pub async fn create(&self, user_id: &UserId, json: &str) -> Result<String, Refusal> {
        let new = algorithm(json)?;
        let tables = &self.store.encryption;
        let created = tables.create_key_backup(user_id, new.algorithm, new.auth_data.get().to_owned());
        let too_many = || Refusal::ResourceLimitExceeded("you have too many key backups: remove some".into());
        created
            .await?
            .map(|version| version.to_string())
            .ok_or_else(too_many)
    }

    /// A version, or the newest one.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn version(&self, user_id: &UserId, version: Option<&str>) -> Result<KeyBackup, Refusal> {
        let version = version.map(number).transpose()?;
        let found = self.store.encryption.key_backup(user_id, version).await?;
        found.ok_or_else(no_version)
    }

    /// Changes what clients need to use a version.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::InvalidParam`] where the JSON is of another version or algorithm.
    pub async fn update(&self, user_id: &UserId, version: &str, json: &str) -> Result<(), Refusal> {
        let new = algorithm(json)?;
        if new.version.is_some_and(|named| named != version) {
            return Err(Refusal::invalid(
                "the version in the body is not that in the path",
            ));
        }
        let known = self.version(user_id, Some(version)).await?;
        if known.algorithm != new.algorithm {
            return Err(Refusal::invalid("a version keeps its algorithm"));
        }
        let tables = &self.store.encryption;
        let auth_data = new.auth_data.get().to_owned();
        match tables
            .update_key_backup(user_id, known.version, new.algorithm, auth_data)
            .await?
        {
            true => Ok(()),
            false => Err(no_version()),
        }
    }

    /// Removes a version and its keys; nothing where it is removed already.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn delete(&self, user_id: &UserId, version: &str) -> Result<(), Refusal> {
        match self
            .store
            .encryption
            .delete_key_backup(user_id, number(version)?)
            .await?
        {
            true => Ok(()),
            false => Err(no_version()),
        }
    }

    /// Adds keys (JSON by room and session) to the newest version, which must be `version`.
    ///
    /// # Errors
    /// [`Refusal::WrongRoomKeysVersion`], [`Refusal::NotFound`], [`Refusal::BadJson`], [`Refusal::TooLarge`], or
    /// [`Refusal::ResourceLimitExceeded`] beyond the quota: nothing is added then.
    pub async fn add<'k>(
        &self,
        user_id: &UserId,
        version: &str,
        sent: impl Iterator<Item = (&'k RoomId, &'k str, &'k str)>,
    ) -> Result<Changed, Refusal> {
        let keys = sent.map(|(room_id, session_id, json)| {
            Ok((
                (room_id.to_string(), checked(session_id, "session id")?),
                key(json)?,
            ))
        });
        let keys: BTreeMap<KeyName, BackedUpKey> = keys.collect::<Result<_, Refusal>>()?;
        let tables = &self.store.encryption;
        let added = tables.back_up_keys(user_id, number(version)?, keys, self.quota);
        changed(added.await?)
    }

    /// Removes keys of a version.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such version.
    pub async fn remove(&self, user_id: &UserId, version: &str, which: Which) -> Result<Changed, Refusal> {
        let of = (which.room_id, which.session_id);
        let tables = &self.store.encryption;
        changed(tables.remove_room_keys(user_id, number(version)?, of).await?)
    }

    /// Keys of a version, to be read.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such version.
    pub async fn restore(
        &self,
        user_id: &UserId,
        version: &str,
        which: Which,
    ) -> Result<RestoredKeys, Refusal> {
        let version = self.version(user_id, Some(version)).await?.version;
        Ok(RestoredKeys {
            store: Arc::clone(&self.store),
            user_id: user_id.to_owned(),
            version,
            which,
        })
    }
}

impl RestoredKeys {
    /// The one key that is meant, where it is that of a session.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it is not backed up.
    pub async fn one(self) -> Result<BackedUpKey, Refusal> {
        let keys = self.after(&KeyName::default()).await?;
        let found = keys.into_iter().next().map(|(_, key)| key);
        found.ok_or_else(|| Refusal::not_found("there is no key of that session"))
    }

    /// All keys that are meant, page by page in order of rooms and sessions. What is added or removed meanwhile may be there
    /// or not.
    pub fn pages(self) -> impl Stream<Item = Result<Vec<(KeyName, BackedUpKey)>, Refusal>> + Send {
        stream::try_unfold((self, KeyName::default()), async |(keys, after)| {
            let page = keys.after(&after).await?;
            let last = page.last().map(|(name, _)| name.clone());
            Ok(last.map(|last| (page, (keys, last))))
        })
    }

    async fn after(&self, name: &KeyName) -> Result<Vec<(KeyName, BackedUpKey)>, Refusal> {
        let of = (self.which.room_id.as_deref(), self.which.session_id.as_deref());
        let tables = &self.store.encryption;
        Ok(tables.room_keys(&self.user_id, self.version, of, name).await?)
    }
}

impl BackedUpKey {
    /// Appends it as JSON, as the client-server API has it.
    pub fn write(&self, out: &mut String) {
        let Self {
            first_message_index,
            forwarded_count,
            is_verified,
            session_data,
        } = self;
        out.push_str(&format!(
            r#"{{"first_message_index":{first_message_index},"forwarded_count":{forwarded_count},"is_verified":{is_verified},"session_data":{session_data}}}"#
        ));
    }
}

fn changed(outcome: KeysChanged) -> Result<Changed, Refusal> {
    match outcome {
        KeysChanged::Stored { etag, keys } => Ok((etag.to_string(), u64::try_from(keys).unwrap_or(0))),
        KeysChanged::NoVersion => Err(no_version()),
        KeysChanged::NotNewest(current) => Err(Refusal::WrongRoomKeysVersion { current }),
        KeysChanged::OverQuota => Err(Refusal::ResourceLimitExceeded(
            "your key backups hold as many keys as they may".into(),
        )),
    }
}

fn no_version() -> Refusal {
    Refusal::not_found("you have no key backup of that version")
}

/// The number of a version. Only numbers are given out, so any other is of none.
fn number(version: &str) -> Result<i64, Refusal> {
    version.parse().map_err(|_| no_version())
}

fn checked(name: &str, what: &str) -> Result<String, Refusal> {
    match name.len() {
        1..=NAME_BYTES => Ok(name.to_owned()),
        _ => Err(Refusal::invalid(format!("a {what} has 1 to {NAME_BYTES} bytes"))),
    }
}

fn algorithm(json: &str) -> Result<Algorithm, Refusal> {
    let new: Algorithm = serde_json::from_str(json).map_err(|error| Refusal::BadJson(error.to_string()))?;
    checked(&new.algorithm, "name of an algorithm")?;
    object(&new.auth_data, AUTH_DATA_BYTES, "auth_data")?;
    Ok(new)
}

fn key(json: &str) -> Result<BackedUpKey, Refusal> {
    let sent: SentKey = serde_json::from_str(json).map_err(|error| Refusal::BadJson(error.to_string()))?;
    object(&sent.session_data, BACKED_UP_KEY_BYTES, "session_data")?;
    Ok(BackedUpKey {
        first_message_index: sent.first_message_index.into(),
        forwarded_count: sent.forwarded_count.into(),
        is_verified: sent.is_verified,
        session_data: sent.session_data.get().to_owned(),
    })
}

fn object(json: &RawValue, most: usize, what: &str) -> Result<(), Refusal> {
    let text = json.get();
    if text.len() > most {
        return Err(Refusal::TooLarge(format!("`{what}` has at most {most} bytes")));
    }
    match text.starts_with('{') {
        true => Ok(()),
        false => Err(Refusal::BadJson(format!("`{what}` is an object"))),
    }
}
