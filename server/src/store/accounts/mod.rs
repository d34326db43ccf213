//! The tables of accounts: users and what belongs to them.
//!
//! | file | what |
//! |---|---|
//! | `users.rs`, `credentials.rs` | accounts, and what proves whose they are |
//! | `gone_devices.rs` | what is left of devices that were removed |
//! | `devices.rs`, `sessions.rs` | devices, access and refresh tokens, login tokens |
//! | `registration_tokens.rs` | tokens that let their holders register |
//! | `profiles.rs`, `member_profiles.rs` | profiles of this server's users; names and pictures of members of rooms |
//! | `sync_connections.rs` | what devices have been sent of which rooms by sliding sync |
//! | `user_directory.rs` | the search for users |
//! | `account_data.rs`, `filters.rs` | account data, global and of rooms; filters of sync |

pub mod account_data;
pub mod credentials;
pub mod devices;
pub(super) mod filters;
pub mod gone_devices;
pub mod member_profiles;
pub mod profiles;
pub mod registration_tokens;
pub mod sessions;
pub mod sync_connections;
pub mod user_directory;
pub mod users;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

/// The tables of accounts.
#[derive(Debug)]
pub struct AccountTables {
    readers: Readers,
    log: Arc<Log>,
}

impl AccountTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
