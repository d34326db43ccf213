//! Profiles, of this server's users and of others.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::wire::request::directory::Profile;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::accounts::Accounts;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::peers::dependencies::Dependencies;
use crate::peers::identity::known_servers::KnownServers;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;

/// Profiles of other servers' users that are remembered, two generations of this many.
const REMEMBERED: usize = 5_000;

/// For how long, in milliseconds; who shares a room hears of a new name at once, by the member event.
const REMEMBERED_MS: u64 = 300_000;

/// For how long it is remembered that there is none to be had.
const MISSING_MS: u64 = 30_000;

/// How long somebody who looks at a profile waits for another server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest profile of another server's user, in bytes of JSON (client-server API, "Profiles").
const MAX_BYTES: usize = 64 * 1024;

/// What another server said of a user's profile, and when.
#[derive(Clone, Debug)]
struct Said {
    profile: Result<Map<String, Value>, Refusal>,
    at_ms: u64,
}

impl Said {
    fn holds(&self, now_ms: u64) -> bool {
        let kept = if self.profile.is_ok() {
            REMEMBERED_MS
        } else {
            MISSING_MS
        };
        now_ms.saturating_sub(self.at_ms) <= kept
    }
}

/// Profiles of all users: this server's, and those of others with a cache.
#[derive(Debug)]
pub struct Profiles {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
    accounts: Arc<Accounts>,
    remembered: Cache<OwnedUserId, Said>,
}

impl Profiles {
    pub(in crate::peers) fn new(dependencies: &Dependencies, accounts: Arc<Accounts>) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            clock: Arc::clone(&dependencies.clock),
            servers: Arc::clone(&dependencies.servers),
            rpc: Arc::clone(&dependencies.rpc),
            accounts,
            remembered: Cache::new(REMEMBERED),
        }
    }

    /// A user's profile, whichever the server. Anybody may ask without being logged in, so only servers that are known
    /// here are asked.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such user, or nothing is known of the user's server;
    /// [`Refusal::Unavailable`] when that does not answer.
    pub async fn profile(&self, user_id: &UserId) -> Result<Map<String, Value>, Refusal> {
        if self.identity.is_local(user_id) {
            return self.accounts.profile(user_id).await;
        }
        let now = self.clock.now_ms();
        if let Some(said) = self.remembered.get(user_id).filter(|said| said.holds(now)) {
            return said.profile;
        }
        if !self.servers.is_known(user_id.server_name()) {
            return Err(Refusal::not_found("nothing is known here of that user's server"));
        }
        let asked = timeout(PATIENCE, self.request_profile(user_id)).await;
        let profile = asked.unwrap_or_else(|_| Err(Refusal::Unavailable("no answer in time".into())));
        let said = Said {
            profile: profile.clone(),
            at_ms: now,
        };
        self.remembered.insert(user_id.to_owned(), said);
        profile
    }

    /// One field of a user's profile.
    ///
    /// # Errors
    /// As [`Profiles::profile`], and [`Refusal::NotFound`] when there is no such field.
    pub async fn profile_field(&self, user_id: &UserId, field: &str) -> Result<Value, Refusal> {
        let mut profile = self.profile(user_id).await?;
        let missing = || Refusal::not_found("the user's profile has no such field");
        profile.remove(field).ok_or_else(missing)
    }

    async fn request_profile(&self, user_id: &UserId) -> Result<Map<String, Value>, Refusal> {
        let server = user_id.server_name();
        let call = Profile {
            user_id: user_id.to_owned(),
        };
        let profile = self.rpc.request(server, call).await?.profile;
        if profile.len() > MAX_BYTES {
            return Err(Refusal::Unavailable(format!(
                "{server} gives a profile that is too large"
            )));
        }
        serde_json::from_str(&profile)
            .map_err(|error| Refusal::Unavailable(format!("{server} gives no profile: {error}")))
    }
}
