//! What depends on time: tokens that expire, and when devices were last seen.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruma::OwnedUserId;
use tempfile::TempDir;

use super::{NewDevice, Share};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::Keys;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::Database;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::devices::Devices;
use crate::token_hash::TokenHash;

const PASSWORD: &str = "long enough";

struct Moving {
    server: Arc<Server>,
    user: OwnedUserId,
    _folder: TempDir,
}

impl Moving {
    /// A server whose time stands still, with one user.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_make(folder.path()).unwrap();
        let identity = Identity {
            server_name: keys.server_name(None).unwrap(),
            signing_key: keys.signing,
        };
        let database = Database::Sqlite(folder.path().join("maru.db"));
        let clock = Clock::Manual(AtomicU64::new(1_700_000_000_000));
        let server = Box::pin(Server::open(Config::default(), database, identity, clock))
            .await
            .unwrap();
        let made = server.accounts.create_user("alice", PASSWORD.into(), false).await;
        Self {
            user: made.unwrap(),
            server,
            _folder: folder,
        }
    }

    fn pass(&self, time: Duration) {
        let Clock::Manual(now) = &*self.server.clock else {
            unreachable!()
        };
        now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_access_token_expires_where_it_can_be_renewed() {
    let moving = Moving::start().await;
    let accounts = &moving.server.accounts;
    let log_in = async |refreshable| {
        let device = NewDevice {
            refreshable,
            ..NewDevice::default()
        };
        accounts
            .start_session(&moving.user, Credentials::FIRST, device)
            .await
            .unwrap()
    };
    let (lasting, renewable) = (log_in(false).await, log_in(true).await);
    assert!(lasting.refresh_token.is_none() && lasting.expires_in.is_none());
    let lifetime = renewable.expires_in.unwrap();
    moving.pass(lifetime - Duration::from_millis(1));
    accounts
        .caller(TokenHash::of(&renewable.access_token))
        .await
        .unwrap();
    moving.pass(Duration::from_millis(1));
    let expired = accounts.caller(TokenHash::of(&renewable.access_token)).await;
    assert!(matches!(
        expired,
        Err(Refusal::UnknownToken { soft_logout: true })
    ));
    let (renewed, _, _) = accounts
        .refresh(&renewable.refresh_token.unwrap(), None)
        .await
        .unwrap();
    let caller = accounts.caller(TokenHash::of(&renewed)).await.unwrap();
    assert_eq!(caller.device_id, renewable.device_id);
    let ended = accounts.caller(TokenHash::of(&renewable.access_token)).await;
    assert!(matches!(ended, Err(Refusal::UnknownToken { soft_logout: false })));
    moving.pass(Duration::from_secs(10 * 365 * 86_400));
    accounts
        .caller(TokenHash::of(&lasting.access_token))
        .await
        .unwrap();
}

#[tokio::test]
async fn login_and_registration_tokens_expire() {
    let moving = Moving::start().await;
    let accounts = &moving.server.accounts;
    let session = accounts
        .start_session(&moving.user, Credentials::FIRST, NewDevice::default())
        .await
        .unwrap();
    let caller = accounts
        .caller(TokenHash::of(&session.access_token))
        .await
        .unwrap();
    let (in_time, lifetime) = accounts
        .create_login_token(&caller, Credentials::FIRST)
        .await
        .unwrap();
    let (late, _) = accounts
        .create_login_token(&caller, Credentials::FIRST)
        .await
        .unwrap();
    let (user, _) = accounts.take_login_token(&in_time).await.unwrap();
    assert_eq!(user, moving.user);
    moving.pass(lifetime);
    assert!(matches!(
        accounts.take_login_token(&late).await,
        Err(Refusal::Forbidden(_))
    ));

    let hour = Duration::from_secs(3600);
    let token = accounts
        .create_registration_token(None, Some(hour))
        .await
        .unwrap();
    assert!(accounts.is_valid_registration_token(&token).await.unwrap());
    moving.pass(hour);
    assert!(!accounts.is_valid_registration_token(&token).await.unwrap());
}

#[tokio::test]
async fn a_device_is_seen_without_a_write_per_request() {
    let moving = Moving::start().await;
    let (accounts, store) = (&moving.server.accounts, &moving.server.store);
    let session = accounts
        .start_session(&moving.user, Credentials::FIRST, NewDevice::default())
        .await
        .unwrap();
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let use_it = async || {
        accounts
            .caller_from(&session.access_token, address)
            .await
            .unwrap()
    };
    use_it().await;
    moving.pass(Duration::from_secs(1));
    use_it().await;
    let shown = accounts.devices(&moving.user).await.unwrap().remove(0);
    assert_eq!(shown.last_seen_at, Some(1_700_000_000_000), "noted once a minute");
    assert_eq!(shown.last_seen_address.as_deref(), Some("192.0.2.7"));
    let stored = store.accounts.devices(&moving.user).await.unwrap();
    assert_eq!(stored[0].last_seen_at, None, "nothing is written");
    accounts.flush_last_seen().await;
    assert_eq!(store.accounts.devices(&moving.user).await.unwrap(), [shown]);
    moving.pass(Duration::from_secs(60));
    use_it().await;
    let shown = accounts.devices(&moving.user).await.unwrap().remove(0);
    assert_eq!(shown.last_seen_at, Some(1_700_000_061_000));
}

#[tokio::test]
async fn what_was_proved_is_worth_nothing_once_the_password_changes_or_all_is_logged_out() {
    let moving = Moving::start().await;
    let (accounts, user) = (&moving.server.accounts, &moving.user);
    let prove = async |password: &str| {
        let proved = accounts.check_password(user, password.into(), Share::Admin).await;
        proved.unwrap()
    };
    let first = accounts
        .start_session(user, prove(PASSWORD).await, NewDevice::default())
        .await
        .unwrap();
    let caller = accounts.caller(TokenHash::of(&first.access_token)).await.unwrap();
    let keeping = || Devices::AllBut(first.device_id.clone());
    let mut password = PASSWORD.to_owned();
    for round in 0..2 {
        let proved = prove(&password).await;
        let (unused, _) = accounts.create_login_token(&caller, proved).await.unwrap();
        let (used, _) = accounts.create_login_token(&caller, proved).await.unwrap();
        let (_, by_token) = accounts.take_login_token(&used).await.unwrap();
        if round == 0 {
            password = "long enough too".into();
            let set = accounts.set_password(user, password.clone(), Some(proved), keeping());
            set.await.unwrap();
        } else {
            let all = accounts.remove_devices(user, Devices::All, None);
            all.await.unwrap();
        }
        let forbidden = |outcome: Result<(), Refusal>| assert!(matches!(outcome, Err(Refusal::Forbidden(_))));
        for proved in [proved, by_token] {
            let login = accounts.start_session(user, proved, NewDevice::default());
            forbidden(login.await.map(drop));
        }
        forbidden(accounts.take_login_token(&unused).await.map(drop));
        forbidden(accounts.create_login_token(&caller, proved).await.map(drop));
        let other = "of whoever knew the old one".to_owned();
        forbidden(accounts.set_password(user, other, Some(proved), keeping()).await);
        forbidden(accounts.remove_devices(user, Devices::All, Some(proved)).await);
        forbidden(accounts.deactivate(user, Some(proved), false).await);
        let now = accounts
            .start_session(user, prove(&password).await, NewDevice::default())
            .await
            .unwrap();
        accounts.caller(TokenHash::of(&now.access_token)).await.unwrap();
    }
    let ended = accounts.caller(TokenHash::of(&first.access_token)).await;
    assert!(matches!(ended, Err(Refusal::UnknownToken { .. })));
    let proved = prove(&password).await;
    accounts.deactivate(user, None, false).await.unwrap();
    let login = accounts.start_session(user, proved, NewDevice::default()).await;
    assert!(matches!(login, Err(Refusal::Forbidden(_))));
}
