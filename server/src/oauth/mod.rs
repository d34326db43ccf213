//! OAuth 2.0 (client-server API, "OAuth 2.0 API"): this server is its own authorization server.
//!
//! Whoever signs in does so on a page of this server, by whatever application; the application is told a code and fetches tokens
//! for it. What it gets is a session of `accounts` like any other: a device with an access token that ends and a refresh
//! token. Any node does any step: what is under way is in the database, as hashes.
//!
//! | file | what |
//! |---|---|
//! | `client.rs`, `redirect_uri.rs` | applications that register, and where they may have people sent |
//! | `scope.rs` | what an application asks for |
//! | `authorization.rs` | a request to sign somebody in, and the code that comes of it |
//! | `device_grant.rs` | the same for devices without a browser (RFC 8628) |
//! | `token.rs` | codes and refresh tokens to tokens, and their end |
//! | `browser.rs` | who is signed in on the pages, and that a form is this server's own |
//! | `parameters.rs`, `error.rs` | what a request says, and what is wrong with it |

mod authorization;
mod browser;
mod client;
mod device_grant;
mod error;
mod parameters;
mod redirect_uri;
mod scope;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use crate::accounts::{Accounts, SealKey};
use crate::clock::Clock;
use crate::store::oauth::OAuthTables;

pub use authorization::{AuthorizationRequest, Prompt, Turned};
pub use browser::SignedIn;
pub use client::{Client, Registration};
pub use device_grant::{DeviceAuthorization, DeviceRequest};
pub use error::{ErrorCode, OAuthError};
pub use parameters::Parameters;
pub use token::Tokens;

/// The authorization server.
#[derive(Debug)]
pub struct OAuth {
    accounts: Arc<Accounts>,
    store: Arc<OAuthTables>,
    clock: Arc<Clock>,
    /// Where it is reached, which is also its name as an issuer. No slash at the end.
    issuer: String,
    /// By these a form is known for one of this server's own.
    form_seals: SealKey,
}

impl OAuth {
    /// The authorization server at a base URL. `secret` is one of this server's, the same on every node.
    #[must_use]
    pub fn new(
        accounts: Arc<Accounts>,
        store: Arc<OAuthTables>,
        clock: Arc<Clock>,
        issuer: &str,
        secret: &[u8; 32],
    ) -> Self {
        Self {
            accounts,
            store,
            clock,
            issuer: issuer.to_owned(),
            form_seals: SealKey::derived(secret, browser::PURPOSE),
        }
    }

    /// Where it is reached.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Milliseconds since 1970, as the database holds them.
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }
}
