//! The tables of OAuth 2.0. Nothing in them is a record of the log; the sessions that come of it are in `accounts`.
//!
//! | file | what |
//! |---|---|
//! | `clients.rs` | applications that have registered |
//! | `codes.rs` | what users have allowed, until the client fetches its tokens |
//! | `device_grants.rs` | devices without a browser that ask to be signed in |
//! | `browser_sessions.rs` | who is signed in on this server's own pages |
//! | `cross_signing_resets.rs` | who has allowed that their cross-signing keys are replaced |
//! | `counts.rs` | how much there is of what strangers can have made |

pub mod browser_sessions;
pub mod clients;
pub mod codes;
mod counts;
mod cross_signing_resets;
pub mod device_grants;

use std::sync::Arc;

use super::StoreError;
use super::engine::{Connection, Readers};
use super::log::Log;
use crate::token_hash::TokenHash;

/// The tables of OAuth 2.0.
#[derive(Debug)]
pub struct OAuthTables {
    readers: Readers,
    log: Arc<Log>,
}

impl OAuthTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}

/// What a user has allowed, and a session uses up.
#[derive(Clone, Copy, Debug)]
pub enum Grant {
    /// By an authorization code.
    Code(TokenHash),
    /// By a device code.
    DeviceCode(TokenHash),
}

/// Uses a grant up for the session whose refresh tokens are of this family; false when it was used already.
pub(super) async fn use_up(
    connection: &mut Connection,
    grant: Grant,
    family: TokenHash,
) -> Result<bool, StoreError> {
    match grant {
        Grant::Code(code) => codes::use_up(connection, code, family).await,
        Grant::DeviceCode(code) => device_grants::use_up(connection, code).await,
    }
}
