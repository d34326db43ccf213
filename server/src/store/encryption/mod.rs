//! The tables of end-to-end encryption.
//!
//! | file | what |
//! |---|---|
//! | `device_keys.rs` | device keys, cross-signing keys, signatures over both |
//! | `one_time_keys.rs` | one-time and fallback keys |
//! | `device_lists.rs` | whose devices or keys changed when |
//! | `key_backups.rs` | versions of backups of room keys |
//! | `room_keys.rs` | the keys in them |
//! | `to_device.rs` | messages that wait for devices of this server |

pub mod device_keys;
pub(super) mod device_lists;
pub mod key_backups;
pub mod one_time_keys;
pub mod room_keys;
pub mod to_device;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

/// The tables of end-to-end encryption.
#[derive(Debug)]
pub struct EncryptionTables {
    readers: Readers,
    log: Arc<Log>,
}

impl EncryptionTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
