//! Accounts: who may come in, on which devices, and how they call themselves.
//!
//! One file per kind of thing that is done with accounts; [`Accounts`] holds what they all need. What a stranger can
//! make grow (known sessions, interactive authentication) is bounded, and of every secret only a hash is stored.

mod account_page;
mod admin;
mod client_session;
mod device;
mod directory;
mod interactive_auth;
mod last_seen;
mod login;
mod name;
mod openid;
mod password;
mod profile;
mod register;
mod registration_token;
mod seal;
mod services;
mod session;
mod session_cache;
#[cfg(test)]
mod tests;
mod token;

use std::sync::{Arc, Weak};

use ruma::OwnedUserId;

use crate::appservice_registrations::{Registration, Registrations};
use crate::clock::Clock;
use crate::config;
use crate::identity::Identity;
use crate::live::Notifier;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::log::Mirror;
use crate::tasks::Tasks;

pub use account_page::OnPage;
pub use directory::{DirectoryPage, DirectoryUser};
pub use interactive_auth::{Attempt, Proof};
pub use openid::LIFETIME as OPENID_LIFETIME;
pub use password::Share;
pub use register::{NewAccount, Registered};
pub(crate) use seal::SealKey;
pub use session::{NewDevice, Session, WatchedToken};
pub(crate) use token::new_secret;

/// Whose access token a request carried. Only a valid token makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device that the token belongs to; empty for an application service that names none.
    pub device_id: String,
    /// The application service that acts as the user; none where it is the user who calls.
    pub service: Option<Arc<Registration>>,
}

impl Caller {
    /// A user on a device.
    #[must_use]
    pub fn on_device(user_id: OwnedUserId, device_id: String) -> Self {
        Self {
            user_id,
            device_id,
            service: None,
        }
    }

    /// Whether the requests spend budgets: those of everybody, but for application services that the admin has exempted.
    #[must_use]
    pub fn is_rate_limited(&self) -> bool {
        self.service.as_ref().is_none_or(|service| service.rate_limited)
    }
}

/// Who may register, and what accounts may have.
#[derive(Clone, Debug)]
pub struct AccountRules {
    /// Who may make an account.
    pub registration: config::Registration,
    /// Most devices of one user.
    pub devices_per_user: u32,
    /// Fewest characters of a password that is set.
    pub password_characters: usize,
    /// Names that only admins have.
    pub reserved_names: Vec<String>,
    /// The address of the account page, where there is one.
    pub account_page: Option<String>,
}

/// Everything that accounts need to work.
#[derive(Debug)]
pub struct Accounts {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    tasks: Arc<Tasks>,
    rules: AccountRules,
    services: Arc<Registrations>,
    sessions: Arc<session_cache::KnownSessions>,
    last_seen: last_seen::LastSeen,
    passwords: password::Hasher,
    interactive: interactive_auth::Sessions,
    openid: openid::OpenIdTokens,
    registrations: register::Registrations,
}

impl Accounts {
    /// Accounts over a store. `notifier` is told when sessions end.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        store: Arc<Store>,
        rooms: Arc<Rooms>,
        notifier: Arc<Notifier>,
        tasks: Arc<Tasks>,
        rules: AccountRules,
        services: Arc<Registrations>,
    ) -> Self {
        let secret = identity.signing_key.secret.to_seed();
        let interactive = interactive_auth::Sessions::sealed_with(&secret);
        Self {
            identity,
            clock,
            store,
            rooms,
            tasks,
            rules,
            services,
            sessions: session_cache::KnownSessions::new(notifier),
            last_seen: last_seen::LastSeen::default(),
            passwords: password::Hasher::default(),
            interactive,
            openid: openid::OpenIdTokens::sealed_with(&secret),
            registrations: register::Registrations::default(),
        }
    }

    /// What has to hear of other nodes' commits: sessions that are in memory.
    #[must_use]
    pub fn sessions_mirror(&self) -> Weak<dyn Mirror> {
        Arc::downgrade(&self.sessions) as Weak<dyn Mirror>
    }

    /// Milliseconds since 1970, as the database holds them.
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }
}
