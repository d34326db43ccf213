//! What becomes of a login, a proof or a name that somebody should not have: from outside, on both engines.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request};
use maru::config::{Rate, Setting};
use maru::http::transport::client_address::ClientAddress;
use maru::limits::Budget;
use maru::refusal::Refusal;
use maru::store::accounts::credentials::Credentials;
use maru::store::accounts::devices::Devices;
use maru_tests::{Engine, Reply, TestServer, User, on_both_engines};
use ruma::UserId;
use serde_json::{Value, json};

on_both_engines!(
    a_changed_password_ends_what_the_old_one_could_become,
    logging_out_everywhere_ends_what_a_session_could_become,
    a_password_is_long_enough_wherever_it_is_set,
    a_closed_account_looks_like_none,
    an_outdated_proof_takes_nothing_away,
    a_refused_login_does_not_use_its_token_up,
);

const TOKEN: &str = "/_matrix/client/v1/login/get_token";

async fn post(server: &TestServer, path: &str, body: Value) -> Reply {
    server.request(Method::POST, path, Some(body)).await
}

fn login(name: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": name }, "password": password })
}

fn proof(user: &User) -> Value {
    login(&user.id, &user.password)
}

/// The session in which something is to be proved.
async fn challenge(user: &User, path: &str) -> Value {
    let asked = user.post(path, json!({})).await;
    assert_eq!(asked.status, 401, "{}", asked.json);
    asked.json["session"].clone()
}

/// A login token of the user's.
async fn login_token(user: &User) -> Value {
    let made = user.post(TOKEN, json!({ "auth": proof(user) })).await.ok();
    json!({ "type": "m.login.token", "token": made["login_token"] })
}

async fn a_changed_password_ends_what_the_old_one_could_become(server: TestServer) {
    let mut alice = server.user("alice").await;
    let (token, session) = (login_token(&alice).await, challenge(&alice, TOKEN).await);
    let change = json!({ "new_password": "quite another", "auth": proof(&alice), "logout_devices": false });
    let logins = (0..4).map(|_| post(&server, "login", login("alice", &alice.password)));
    let (logins, changed) = tokio::join!(
        futures_util::future::join_all(logins),
        alice.post("account/password", change)
    );
    changed.ok();
    for under_way in logins {
        // Either it was over before the change, and was kept as the change asked for, or it is not at all.
        assert!(
            [200, 403].contains(&under_way.status.as_u16()),
            "{}",
            under_way.json
        );
    }
    post(&server, "login", token).await.refused(403, "M_FORBIDDEN");
    post(&server, "login", login("alice", &alice.password))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.password = "quite another".into();
    let mut auth = proof(&alice);
    auth["session"] = session.clone();
    let again = alice.post(TOKEN, json!({ "auth": auth })).await;
    assert_eq!(again.status, 401, "{}", again.json);
    assert_ne!(again.json["session"], session, "the old one is over");
    auth["session"] = again.json["session"].clone();
    alice.post(TOKEN, json!({ "auth": auth })).await.ok();
}

async fn logging_out_everywhere_ends_what_a_session_could_become(server: TestServer) {
    let alice = server.user("alice").await;
    let mut renewing = login("alice", &alice.password);
    renewing["refresh_token"] = json!(true);
    let renewing = post(&server, "login", renewing).await.ok();
    let token = login_token(&alice).await;
    alice.post("logout/all", json!({})).await.ok();
    post(&server, "login", token).await.refused(403, "M_FORBIDDEN");
    let refresh = json!({ "refresh_token": renewing["refresh_token"] });
    post(&server, "refresh", refresh)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    post(&server, "login", login("alice", &alice.password)).await.ok();
}

async fn a_password_is_long_enough_wherever_it_is_set(server: TestServer) {
    let alice = server.user("alice").await;
    let change = json!({ "new_password": "1234567", "auth": proof(&alice) });
    let refused = alice.post("account/password", change).await;
    refused.refused(400, "M_WEAK_PASSWORD");
    let accounts = &server.parts().accounts;
    let made = accounts.create_user("bob", "1234567".into(), false).await;
    assert!(made.is_err());
    post(&server, "login", login("alice", &alice.password)).await.ok();
}

async fn a_closed_account_looks_like_none(server: TestServer) {
    let alice = server.user("alice").await;
    let close = json!({ "auth": proof(&alice) });
    alice.post("account/deactivate", close).await.ok();
    let mut told = Vec::new();
    for (name, password) in [
        ("alice", "wrong one"),
        ("alice", &alice.password),
        ("nobody", "wrong one"),
    ] {
        let refused = post(&server, "login", login(name, password)).await;
        refused.refused(403, "M_FORBIDDEN");
        told.push(refused.json);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
}

async fn an_outdated_proof_takes_nothing_away(server: TestServer) {
    let alice = server.user("alice").await;
    let change = json!({ "new_password": "quite another", "auth": proof(&alice), "logout_devices": false });
    alice.post("account/password", change).await.ok();
    let sent = format!(
        "INSERT INTO transactions (user_id, device_id, scope, transaction_id, event_id, position, used_at) \
         WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 2500) \
         SELECT '{}', '{}', 'scope', 'many' || n, '$event', n, 0 FROM many",
        alice.id, alice.device
    );
    server.data().run(&sent).await;
    let (accounts, outdated) = (&server.parts().accounts, Some(Credentials::FIRST));
    let id: &UserId = alice.id.as_str().try_into().unwrap();
    let removed = accounts.remove_devices(id, Devices::All, outdated).await;
    assert!(matches!(removed, Err(Refusal::Forbidden(_))), "{removed:?}");
    let another = "one more password".to_owned();
    let changed = accounts.set_password(id, another, outdated, Devices::All).await;
    assert!(matches!(changed, Err(Refusal::Forbidden(_))), "{changed:?}");
    let closed = accounts.deactivate(id, outdated, true).await;
    assert!(matches!(closed, Err(Refusal::Forbidden(_))), "{closed:?}");
    let kept = "SELECT COUNT(*) FROM transactions WHERE scope = 'scope'";
    assert_eq!(server.data().number(kept).await, 2500);
    accounts.remove_devices(id, Devices::All, None).await.unwrap();
    assert_eq!(server.data().number(kept).await, 0);
}

async fn a_refused_login_does_not_use_its_token_up(server: TestServer) {
    let alice = server.user("alice").await;
    let mut login = login_token(&alice).await;
    login["device_id"] = json!("");
    post(&server, "login", login.clone())
        .await
        .refused(400, "M_INVALID_PARAM");
    login["device_id"] = json!("PHONE");
    post(&server, "login", login).await.ok();
}

/// A login from an address.
async fn log_in_from(server: &TestServer, address: &str, body: &Value) -> Reply {
    let address: IpAddr = address.parse().unwrap();
    let request = Request::post("/_matrix/client/v3/login")
        .extension(ClientAddress(address))
        .body(Bytes::from(body.to_string()));
    server.api().send(request.unwrap()).await.unwrap()
}

#[tokio::test]
async fn strangers_cannot_lock_an_account_for_its_owner() {
    let few = Rate {
        per_second: 0.001,
        burst: 3,
    };
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.rate_limits = true;
        for budget in [
            Budget::LoginsToAccountFromAddress,
            Budget::LoginsToAccount,
            Budget::ProofsOfDevice,
        ] {
            *config.rates.of_mut(budget) = few;
        }
    })
    .await;
    let alice = server.user("alice").await;
    let (wrong, right) = (login("alice", "wrong"), login("alice", &alice.password));
    for address in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        log_in_from(&server, address, &wrong)
            .await
            .refused(403, "M_FORBIDDEN");
    }
    for address in ["203.0.113.1", "203.0.113.3", "2001:db8:1::1"] {
        log_in_from(&server, address, &right)
            .await
            .refused(429, "M_LIMIT_EXCEEDED");
    }
    // Where the owner has been seen nobody else's attempts count, and a live session proves by its own budget.
    log_in_from(&server, "127.0.0.1", &right).await.ok();
    let path = "delete_devices";
    let mut guess = proof(&alice);
    for _ in 0..2 {
        guess["password"] = json!("wrong");
        let refused = alice.post(path, json!({ "devices": [], "auth": guess })).await;
        assert_eq!(refused.status, 401, "{}", refused.json);
    }
    let body = json!({ "devices": [], "auth": proof(&alice) });
    alice.post(path, body.clone()).await.ok();
    alice
        .post(path, body.clone())
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    log_in_from(&server, "127.0.0.1", &wrong)
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn names_of_the_server_are_for_admins_alone() {
    let server = TestServer::start().await;
    let register = async |name: &str, auth: Value| {
        let body = json!({ "username": name, "password": "long enough", "auth": auth });
        post(&server, "register", body).await
    };
    let dummy = || json!({ "type": "m.login.dummy" });
    let accounts = &server.parts().accounts;
    let token = accounts.ensure_first_admin_token().await.unwrap().unwrap();
    let admin = json!({ "type": "m.login.registration_token", "token": token });
    register("admin", admin).await.ok();
    for name in ["root", "ser.ver", "_irc_alice"] {
        register(name, dummy()).await.refused(400, "M_INVALID_USERNAME");
        let path = format!("register/available?username={name}");
        server
            .request(Method::GET, &path, None)
            .await
            .refused(400, "M_INVALID_USERNAME");
    }
    register("alice", dummy()).await.ok();
}

#[tokio::test]
async fn a_client_finds_the_server_where_the_configuration_says_and_nowhere_else() {
    let path = "/.well-known/matrix/client";
    let asked = async |server: &TestServer| {
        let request = Request::get(path).header("host", "evil.example");
        server
            .api()
            .send(request.body(Bytes::new()).unwrap())
            .await
            .unwrap()
    };
    let server = TestServer::start().await;
    asked(&server).await.refused(404, "M_NOT_FOUND");
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.public_base_url = Some(Setting::read("https://chat.example").unwrap());
    })
    .await;
    let found = asked(&server).await.ok();
    assert_eq!(found["m.homeserver"]["base_url"], "https://chat.example");
}
