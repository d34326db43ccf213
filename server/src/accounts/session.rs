//! Sessions: an access token on a device, and the refresh token that renews it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruma::UserId;

use super::device::{check_device_id, check_device_name};
use super::session_cache::Known;
use super::token::{new_device_id, new_secret};
use super::{Accounts, Caller};
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::sessions::{NewSession, NewTokens, SessionClient, Started};
use crate::store::oauth::Grant;
use crate::token_hash::TokenHash;

/// How long an access token is good for that comes with a refresh token. Others do not expire.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How often a device is noted as seen while it is in use, in milliseconds.
const NOTE_EVERY_MS: u64 = 60_000;

/// A device to log in on.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Its id; a known one loses the sessions that it has.
    pub device_id: Option<String>,
    /// Its name, if it is new.
    pub display_name: Option<String>,
    /// Whether the client can renew tokens, so that they may expire.
    pub refreshable: bool,
    /// Where the login comes from, which is where the device was first seen.
    pub address: Option<IpAddr>,
    /// The OAuth 2.0 client that logs in, and what its user has allowed it, which is used up.
    pub client: Option<(String, Grant)>,
}

impl NewDevice {
    /// Checks what the client chose.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an impossible device id or name.
    pub fn check(&self) -> Result<(), Refusal> {
        self.device_id.as_deref().map_or(Ok(()), check_device_id)?;
        self.display_name.as_deref().map_or(Ok(()), check_device_name)
    }
}

/// A device's way in. Its tokens are shown once.
#[derive(Clone)]
pub struct Session {
    /// The device.
    pub device_id: String,
    /// The access token.
    pub access_token: String,
    /// Renews the access token.
    pub refresh_token: Option<String>,
    /// For how long the access token is good; unset: until it is revoked.
    pub expires_in: Option<Duration>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// A new pair of tokens, and what is stored of it. The refresh tokens of a session may have something in common: its family.
fn new_tokens(refreshable: bool, family: Option<&str>, now: i64) -> (NewTokens, String, Option<String>) {
    let access_token = new_secret("mat");
    let refresh_token = refreshable.then(|| match family {
        Some(family) => new_secret(&format!("mrt_{family}.")),
        None => new_secret("mrt"),
    });
    let lifetime = i64::try_from(ACCESS_TOKEN_LIFETIME.as_millis()).unwrap_or(i64::MAX);
    let stored = NewTokens {
        token_hash: TokenHash::of(&access_token),
        expires_at: refreshable.then(|| now.saturating_add(lifetime)),
        refresh_hash: refresh_token.as_deref().map(TokenHash::of),
    };
    (stored, access_token, refresh_token)
}

/// What a refresh token has in common with the others of its session.
pub(super) fn family_of(refresh_token: &str) -> Option<&str> {
    let (family, _) = refresh_token.strip_prefix("mrt_")?.split_once("._")?;
    Some(family)
}

/// A token that is looked at again and again while its connection lasts.
#[derive(Debug)]
pub struct WatchedToken {
    token: TokenHash,
    expires_at: Option<u64>,
    /// How often an end of sessions had begun or been stored when it was looked up; none for one that never ends.
    ends: Option<u64>,
}

impl WatchedToken {
    /// That of an application service.
    fn of_service(token: TokenHash) -> Self {
        Self {
            token,
            expires_at: None,
            ends: None,
        }
    }
}

impl Accounts {
    /// What [`Accounts::still_valid`] needs to ask again for the token of a caller.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn watch_caller(&self, caller: &Caller, token: TokenHash) -> Result<WatchedToken, Refusal> {
        if caller.service.is_some() {
            // Registrations stay as they are while the server runs.
            return Ok(WatchedToken::of_service(token));
        }
        Ok(self.watch(token).await?.1)
    }

    /// Who a token belongs to, and what [`Accounts::still_valid`] needs to ask for it again.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn watch(&self, token: TokenHash) -> Result<(Caller, WatchedToken), Refusal> {
        let ends = self.sessions.ends();
        let known = self.known(token).await?;
        let watched = WatchedToken {
            token,
            expires_at: known.expires_at,
            ends: Some(ends),
        };
        Ok((known.caller.clone(), watched))
    }

    /// Whether a watched token is still valid. Costs nothing as long as nobody's session ends.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn still_valid(&self, watched: &mut WatchedToken) -> Result<(), Refusal> {
        let Some(seen) = watched.ends else {
            return Ok(());
        };
        let ends = self.sessions.ends();
        let has_expired = || watched.expires_at.is_some_and(|at| at <= self.clock.now_ms());
        if seen != ends || has_expired() {
            self.known(watched.token).await?;
            watched.ends = Some(ends);
        }
        Ok(())
    }

    /// Who a token belongs to.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn caller(&self, token: TokenHash) -> Result<Caller, Refusal> {
        Ok(self.known(token).await?.caller.clone())
    }

    /// Who a token belongs to that came from an address: the device has been seen there.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn caller_from(&self, token: &str, address: IpAddr) -> Result<Caller, Refusal> {
        let known = self.known(TokenHash::of(token)).await?;
        let now = self.clock.now_ms();
        if known
            .noted_at
            .load(Ordering::Relaxed)
            .saturating_add(NOTE_EVERY_MS)
            <= now
        {
            known.noted_at.store(now, Ordering::Relaxed);
            self.last_seen.note(&known.caller, now, address);
        }
        Ok(known.caller.clone())
    }

    async fn known(&self, token: TokenHash) -> Result<Arc<Known>, Refusal> {
        let known = match self.sessions.get(&token) {
            Some(known) => known,
            None => Box::pin(self.read_session(token)).await?,
        };
        if known.expires_at.is_some_and(|at| at <= self.clock.now_ms()) {
            return Err(Refusal::UnknownToken { soft_logout: true });
        }
        Ok(known)
    }

    async fn read_session(&self, token: TokenHash) -> Result<Arc<Known>, Refusal> {
        let ends_before = self.sessions.ends();
        let stored = self.store.accounts.session(token).await?;
        let stored = stored.ok_or(Refusal::UnknownToken { soft_logout: false })?;
        let known = Arc::new(Known {
            caller: Caller::on_device(stored.user_id, stored.device_id),
            expires_at: stored.expires_at,
            noted_at: AtomicU64::new(0),
        });
        if stored.replaces {
            // The first use of a new pair: the client has it, so the old one has served.
            let ending = self.sessions.ending(&known.caller.user_id);
            let replaced = self.store.accounts.end_replaced(&known.caller.user_id, token);
            ending.ended(&replaced.await?);
        } else {
            self.sessions.keep(token, Arc::clone(&known), ends_before);
        }
        Ok(known)
    }

    /// Starts a session on a device, new or known, for somebody who proved to be the owner of the account.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when what was proved does not hold any more, or the device is another client's;
    /// [`Refusal::BadState`] when what the user has allowed a client is used up; [`Refusal::ResourceLimitExceeded`] when
    /// the user has too many devices, [`Refusal::InvalidParam`] for an impossible device id or name.
    pub async fn start_session(
        &self,
        user_id: &UserId,
        proved: Credentials,
        device: NewDevice,
    ) -> Result<Session, Refusal> {
        device.check()?;
        let now = self.now();
        let device_id = device.device_id.unwrap_or_else(new_device_id);
        let family = device.client.as_ref().map(|_| new_secret("f"));
        let (tokens, access_token, refresh_token) = new_tokens(device.refreshable, family.as_deref(), now);
        let client = device.client.zip(family).map(|((client_id, grant), family)| {
            let family = TokenHash::of(&family);
            (SessionClient { client_id, family }, grant)
        });
        let session = NewSession {
            user_id: user_id.to_owned(),
            device_id: device_id.clone(),
            display_name: device.display_name,
            tokens,
            created_at: now,
            devices_allowed: i64::from(self.rules.devices_per_user),
            proved,
            client,
        };
        let (store, ending) = (Arc::clone(&self.store), self.sessions.ending(user_id));
        // Not given up when the client hangs up: what ends in the database must end in memory.
        let starting = self.tasks.finish("start_session", async move {
            let started = store.accounts.start_session(session).await;
            if let Ok(Started::Running(ended)) = &started {
                ending.ended(ended);
            }
            started
        });
        match starting.await.map_err(Refusal::internal)?? {
            Started::Running(_) => {}
            Started::Outdated => return Err(Refusal::outdated_proof()),
            Started::UsedUp => return Err(Refusal::BadState("this was used already".into())),
            Started::OtherClient => {
                return Err(Refusal::forbidden(
                    "this device is signed in by another application",
                ));
            }
            Started::TooManyDevices => {
                let limit = self.rules.devices_per_user;
                let text = format!("this account has {limit} devices; log one out before the next comes in");
                return Err(Refusal::ResourceLimitExceeded(text));
            }
        }
        if let Some(address) = device.address {
            let caller = Caller::on_device(user_id.to_owned(), device_id.clone());
            self.last_seen.note(&caller, self.clock.now_ms(), address);
        }
        Ok(Session {
            device_id,
            access_token,
            expires_in: refresh_token.is_some().then_some(ACCESS_TOKEN_LIFETIME),
            refresh_token,
        })
    }

    /// Renews a session's tokens: access token, refresh token, and for how long the former is good. The old pair is
    /// good until the new one is used. `client_id` is the OAuth 2.0 client that asks, whose session it must be.
    ///
    /// # Errors
    /// [`Refusal::UnknownToken`].
    pub async fn refresh(
        &self,
        refresh_token: &str,
        client_id: Option<&str>,
    ) -> Result<(String, String, Duration), Refusal> {
        let unknown = Refusal::UnknownToken { soft_logout: false };
        let family = client_id.and_then(|_| family_of(refresh_token));
        let (tokens, access_token, new_refresh_token) = new_tokens(true, family, self.now());
        let renewed = self
            .store
            .accounts
            .renew(TokenHash::of(refresh_token), tokens, client_id.map(str::to_owned))
            .await?;
        let (Some(renewed), Some(new_refresh_token)) = (renewed, new_refresh_token) else {
            return Err(unknown);
        };
        self.sessions.ending(&renewed.user_id).ended(&renewed.ended);
        Ok((access_token, new_refresh_token, ACCESS_TOKEN_LIFETIME))
    }
}
