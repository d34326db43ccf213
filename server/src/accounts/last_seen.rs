//! When devices were last heard of: gathered in memory and stored in batches, so that a request writes nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ruma::{OwnedUserId, UserId};

use super::{Accounts, Caller};
use crate::store::accounts::devices::{Seen, StoredDevice};

/// Devices that wait to be stored; when there are more, the others are noted a little later.
const WAITING: usize = 50_000;

/// A user's device, whoever acts on it.
type Device = (OwnedUserId, String);

/// What is not stored yet.
#[derive(Debug, Default)]
pub(super) struct LastSeen(Mutex<HashMap<Device, (i64, IpAddr)>>);

impl LastSeen {
    /// Notes a sign of life.
    pub(super) fn note(&self, caller: &Caller, now_ms: u64, address: IpAddr) {
        let mut waiting = self.lock();
        if waiting.len() < WAITING {
            let at = i64::try_from(now_ms).unwrap_or(i64::MAX);
            let device = (caller.user_id.clone(), caller.device_id.clone());
            waiting.insert(device, (at, address));
        }
    }

    /// Adds to a user's devices what is not stored yet.
    pub(super) fn complete(&self, user_id: &UserId, devices: &mut [StoredDevice]) {
        let waiting = self.lock();
        for device in devices {
            let key = (user_id.to_owned(), device.device_id.clone());
            if let Some((at, address)) = waiting.get(&key) {
                device.last_seen_at = Some(*at);
                device.last_seen_address = Some(address.to_string());
            }
        }
    }

    fn take(&self) -> Vec<Seen> {
        let waiting = std::mem::take(&mut *self.lock());
        let seen = waiting
            .into_iter()
            .map(|((user_id, device_id), (at, address))| Seen {
                user_id,
                device_id,
                at,
                address: address.to_string(),
            });
        seen.collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Device, (i64, IpAddr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// Stores when devices were last heard of. What cannot be stored is dropped: the devices will be heard of again.
    pub async fn flush_last_seen(&self) {
        let seen = self.last_seen.take();
        if seen.is_empty() {
            return;
        }
        if let Err(error) = self.store.accounts.note_seen(seen).await {
            tracing::warn!(%error, "could not store when devices were last seen");
        }
    }
}
