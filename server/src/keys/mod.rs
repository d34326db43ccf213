//! Keys of end-to-end encryption: the server keeps public keys and passes messages on; it can read none of them
//! (client-server API, "End-to-End Encryption").

mod backup;
mod cross_signing;
mod one_time;
mod others;
mod query;
mod to_device;
mod upload;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::{BoxFuture, ready};
use ruma::{OwnedUserId, UserId};

pub use backup::{BackedUpKey, KeyBackup, KeyBackups, KeyName, RestoredKeys, Which};
pub use cross_signing::{NewCrossSigningKeys, OwnKeys, SignatureFailures};
pub use one_time::{Claimed, ClaimedKeys, Claims};
pub use others::{FromOthers, OtherServers, UserKeys};
pub use query::Found;
pub use to_device::{CONTENT_BYTES, SHARES_OF_DEVICE, WAITING, device_message};
pub use upload::NewDeviceKeys;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::store::log::{Committed, Mirror, Record};
use crate::store::{Store, StoreError};

/// Devices whose key counts are known without asking the database.
const KNOWN_COUNTS: usize = 50_000;

/// Largest JSON of one key, in bytes.
const KEY_BYTES: usize = 16 * 1024;

/// Longest name of a key, algorithm or device, in bytes.
const NAME_BYTES: usize = 255;

/// What a device must know of the keys that the server holds for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// One-time keys left, by algorithm. `signed_curve25519` is always named, because clients fill it up by that.
    pub one_time: BTreeMap<String, u64>,
    /// Algorithms whose fallback key has not been used.
    pub unused_fallback: Vec<String>,
}

impl KeyCounts {
    /// The counts of a device without keys.
    fn none() -> Self {
        Self {
            one_time: BTreeMap::from([("signed_curve25519".to_owned(), 0)]),
            unused_fallback: Vec::new(),
        }
    }
}

/// A device's key counts as somebody remembers them who tells them again and again.
#[derive(Clone, Debug, Default)]
pub struct RememberedCounts {
    counts: Option<Arc<KeyCounts>>,
    /// The changes that had happened when they were asked for.
    changes: u64,
}

/// Everything that keys need to work.
#[derive(Debug)]
pub struct Keys {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    counts: Cache<(OwnedUserId, String), Arc<KeyCounts>>,
    /// The counts of a device without keys, once in memory for all of them.
    no_keys: Arc<KeyCounts>,
    /// Raised with every change of counts, so that an answer of the database that was overtaken is not kept.
    changes: AtomicU64,
    others: OnceLock<Weak<dyn OtherServers>>,
}

impl Keys {
    /// Keys over a store.
    #[must_use]
    pub fn new(identity: Arc<Identity>, clock: Arc<Clock>, store: Arc<Store>) -> Self {
        Self {
            identity,
            clock,
            store,
            counts: Cache::new(KNOWN_COUNTS),
            no_keys: Arc::new(KeyCounts::none()),
            changes: AtomicU64::new(0),
            others: OnceLock::new(),
        }
    }

    /// Says by which way other servers are asked; before, none of them can be reached. Only the first way counts.
    pub fn reach_others_by(&self, others: Weak<dyn OtherServers>) {
        let _ = self.others.set(others);
    }

    fn others(&self) -> Option<Arc<dyn OtherServers>> {
        self.others.get()?.upgrade()
    }

    /// How many keys a device has left on the server.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn counts(&self, user_id: &UserId, device_id: &str) -> Result<Arc<KeyCounts>, Refusal> {
        let key = (user_id.to_owned(), device_id.to_owned());
        if let Some(known) = self.counts.get(&key) {
            return Ok(known);
        }
        let before = self.changes.load(Ordering::Acquire);
        let (one_time, unused_fallback) = self.store.encryption.key_counts(user_id, device_id).await?;
        let mut counts = KeyCounts {
            unused_fallback,
            ..KeyCounts::none()
        };
        for (algorithm, count) in one_time {
            counts
                .one_time
                .insert(algorithm, u64::try_from(count).unwrap_or(0));
        }
        let counts = if counts == *self.no_keys {
            Arc::clone(&self.no_keys)
        } else {
            Arc::new(counts)
        };
        if self.changes.load(Ordering::Acquire) == before {
            self.counts.insert(key, Arc::clone(&counts));
        }
        Ok(counts)
    }

    /// The same from memory, as long as no device's counts have changed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn remembered_counts<'r>(
        &self,
        remembered: &'r mut RememberedCounts,
        user_id: &UserId,
        device_id: &str,
    ) -> Result<&'r KeyCounts, Refusal> {
        let changes = self.changes.load(Ordering::Acquire);
        let counts = match remembered.counts.take() {
            Some(counts) if remembered.changes == changes => counts,
            _ => self.counts(user_id, device_id).await?,
        };
        remembered.changes = changes;
        Ok(remembered.counts.insert(counts))
    }

    fn counts_changed(&self, user_id: &UserId, device_id: &str) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.counts.remove(&(user_id.to_owned(), device_id.to_owned()));
        // Again for who looked between the two and remembers the old counts.
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Mirror for Keys {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        for committed in records {
            if let Record::KeyCounts(device) = &committed.record {
                self.counts_changed(&device.user_id, &device.device_id);
            }
        }
        Box::pin(ready(Ok(())))
    }
}

/// A name that a client gives to something.
fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        let why = format!("a key's or device's name has 1 to {NAME_BYTES} bytes and no NUL");
        return Err(Refusal::invalid(why));
    }
    Ok(())
}

/// A key as a client sent it.
fn check_key_size(json: &str) -> Result<(), Refusal> {
    if json.len() > KEY_BYTES {
        return Err(Refusal::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
    }
    Ok(())
}
