//! Accounts: who may come in, and on which devices.

mod password;
mod register;
mod session;
mod token;

use std::sync::Arc;

use ruma::OwnedUserId;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::store::Store;

pub use token::TokenHash;

/// Whose access token a request carried. Only a valid token makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device that the token belongs to.
    pub device_id: String,
}

/// Sessions whose token is known without asking the database.
const KNOWN_SESSIONS: usize = 50_000;

/// Everything that accounts need to work.
#[derive(Debug)]
pub struct Accounts {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    sessions: Cache<TokenHash, (Arc<Caller>, Option<u64>)>,
}

impl Accounts {
    /// Accounts over a store.
    #[must_use]
    pub fn new(identity: Arc<Identity>, clock: Arc<Clock>, store: Arc<Store>) -> Self {
        Self {
            identity,
            clock,
            store,
            sessions: Cache::new(KNOWN_SESSIONS),
        }
    }
}
