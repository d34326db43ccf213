//! What depends on time: codes, grants, browser sessions and applications that end.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ruma::OwnedUserId;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{ErrorCode, OAuth, OAuthError, Parameters, SignedIn, Tokens, Turned};
use crate::clock::Clock;
use crate::config::{Config, Setting};
use crate::data_folder::Keys;
use crate::identity::Identity;
use crate::server::Server;
use crate::store::Database;
use crate::store::accounts::credentials::Credentials;

const VERIFIER: &str = "a-verifier-of-forty-three-or-more-characters";
const MINUTE: Duration = Duration::from_secs(60);

struct Moving {
    server: Arc<Server>,
    oauth: Arc<OAuth>,
    who: SignedIn,
    client: String,
    _folder: TempDir,
}

fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs);
    Parameters::read(text.finish().as_bytes()).unwrap()
}

impl Moving {
    /// A server whose time stands still, with one user and one client.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_make(folder.path()).unwrap();
        let identity = Identity {
            server_name: keys.server_name(None).unwrap(),
            signing_key: keys.signing,
        };
        let database = Database::Sqlite(folder.path().join("maru.db"));
        let clock = Clock::Manual(AtomicU64::new(1_700_000_000_000));
        let config = Config {
            public_base_url: Some(Setting::read("https://chat.example.org").unwrap()),
            ..Config::default()
        };
        let server = Box::pin(Server::open(config, database, identity, clock))
            .await
            .unwrap();
        let user: OwnedUserId = server
            .accounts
            .create_user("alice", "long enough".into(), false)
            .await
            .unwrap();
        let oauth = Arc::clone(server.oauth.as_ref().unwrap());
        let said = json!({
            "client_uri": "https://app.example.com/",
            "redirect_uris": ["https://app.example.com/cb"],
            "grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"],
        });
        let client = oauth
            .register(serde_json::from_value(said).unwrap())
            .await
            .unwrap();
        let who = SignedIn {
            user_id: user,
            proved: Credentials::FIRST,
        };
        Self {
            server,
            oauth,
            who,
            client: client.id,
            _folder: folder,
        }
    }

    fn pass(&self, time: Duration) {
        let Clock::Manual(now) = &*self.server.clock else {
            unreachable!()
        };
        now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    async fn code(&self) -> Result<String, Turned> {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let request = parameters(&[
            ("client_id", &self.client),
            ("response_type", "code"),
            (
                "scope",
                "urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ",
            ),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let request = self.oauth.authorization(&request).await?;
        let to = self.oauth.allow(request, &self.who).await?;
        let (_, code) = to.split_once("code=").unwrap();
        Ok(code.split('&').next().unwrap().to_owned())
    }

    async fn token(&self, pairs: &[(&str, &str)]) -> Result<Tokens, OAuthError> {
        let pairs = [&[("client_id", &*self.client)], pairs].concat();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.oauth.token(&parameters(&pairs), address).await
    }

    async fn exchange(&self, code: &str) -> Result<Tokens, ErrorCode> {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
        ];
        self.token(&pairs).await.map_err(|error| error.code)
    }
}

#[tokio::test]
async fn a_code_is_good_for_a_while() {
    let moving = Moving::start().await;
    let (in_time, late) = (moving.code().await.unwrap(), moving.code().await.unwrap());
    moving.pass(MINUTE * 10 - Duration::from_millis(1));
    moving.exchange(&in_time).await.unwrap();
    moving.pass(Duration::from_millis(1));
    assert_eq!(moving.exchange(&late).await.unwrap_err(), ErrorCode::InvalidGrant);
}

#[tokio::test]
async fn an_application_is_remembered_when_somebody_signs_in_with_it() {
    let moving = Moving::start().await;
    moving.pass(MINUTE * 119);
    moving.code().await.unwrap();
    moving.pass(MINUTE * 60 * 24 * 182);
    moving.code().await.unwrap();
    moving.pass(MINUTE * 60 * 24 * 182);
    moving.code().await.unwrap();
    moving.pass(MINUTE * 60 * 24 * 184);
    let forgotten = moving.code().await.unwrap_err();
    assert!(matches!(forgotten, Turned::Here(error) if error.code == ErrorCode::InvalidClient));
}

#[tokio::test]
async fn an_application_that_nobody_uses_is_forgotten() {
    let moving = Moving::start().await;
    moving.pass(MINUTE * 120);
    let forgotten = moving.code().await.unwrap_err();
    assert!(matches!(forgotten, Turned::Here(error) if error.code == ErrorCode::InvalidClient));
    let dropped = moving
        .server
        .store
        .oauth
        .expire_clients(moving.server.now(), 10)
        .await;
    assert_eq!(dropped.unwrap(), 1);
}

#[tokio::test]
async fn a_device_asks_at_its_pace_and_for_a_while() {
    let moving = Moving::start().await;
    let asked = parameters(&[
        ("client_id", &moving.client),
        (
            "scope",
            "urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ",
        ),
    ]);
    let begun = moving.oauth.begin_device_grant(&asked).await.unwrap();
    let poll = async || {
        let pairs = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &*begun.device_code),
        ];
        moving.token(&pairs).await.map(drop).map_err(|error| error.code)
    };
    assert_eq!(poll().await, Err(ErrorCode::AuthorizationPending));
    moving.pass(Duration::from_secs(4));
    assert_eq!(poll().await, Err(ErrorCode::SlowDown));
    moving.pass(Duration::from_secs(9));
    assert_eq!(poll().await, Err(ErrorCode::SlowDown), "it waits ten seconds now");
    moving.pass(Duration::from_secs(15));
    assert_eq!(poll().await, Err(ErrorCode::AuthorizationPending));
    moving.pass(MINUTE * 15);
    assert_eq!(poll().await, Err(ErrorCode::ExpiredToken));
    let found = moving.oauth.device_request(&begun.user_code).await.unwrap();
    assert!(found.is_none(), "nobody can allow it any more");
}

#[tokio::test]
async fn somebody_is_signed_in_in_a_browser_for_a_while() {
    let moving = Moving::start().await;
    let oauth = &moving.oauth;
    let user = &moving.who.user_id;
    let cookie = oauth.sign_in(user, Credentials::FIRST).await.unwrap();
    assert_eq!(oauth.signed_in(&cookie).await.unwrap().unwrap().user_id, *user);
    assert!(oauth.signed_in("browser_other").await.unwrap().is_none());
    moving.pass(MINUTE * 30);
    assert!(oauth.signed_in(&cookie).await.unwrap().is_none());

    let mut cookies = Vec::new();
    for _ in 0..12 {
        cookies.push(oauth.sign_in(user, Credentials::FIRST).await.unwrap());
        moving.pass(Duration::from_secs(1));
    }
    let mut left = 0;
    for cookie in &cookies {
        left += usize::from(oauth.signed_in(cookie).await.unwrap().is_some());
    }
    assert_eq!(left, 10, "the oldest went");

    oauth.allow_reset(user, Credentials::FIRST).await.unwrap();
    let allowed = async || {
        let tables = &moving.server.store.oauth;
        tables.allowed_reset(user, moving.server.now()).await.unwrap()
    };
    assert!(allowed().await.is_some());
    moving.pass(MINUTE * 10);
    assert!(allowed().await.is_none());
}
