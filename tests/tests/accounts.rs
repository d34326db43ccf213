//! Accounts over the client API: registering, logging in and out, devices, passwords, closing.
//!
//! Over 500 lines, because each story of an account is told whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

use http::Method;
use maru::config::{Rate, Registration};
use maru_tests::user::encode;
use maru_tests::{Engine, Reply, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    registering_takes_a_proof_and_a_free_name,
    who_asks_to_register_is_told_what_must_be_proved,
    a_registration_whose_answer_got_lost_is_made_again,
    a_proof_is_good_again_for_the_same_request,
    a_registration_token_is_good_as_often_as_it_says,
    a_user_logs_in_by_any_of_the_names,
    a_login_token_lets_one_device_in_once,
    a_refreshed_pair_replaces_the_old_one_once_it_is_used,
    a_logged_out_token_is_refused_at_once,
    devices_are_listed_named_and_deleted_with_the_password,
    the_transaction_ids_of_a_device_go_with_it,
    a_new_password_replaces_the_old_one,
    a_closed_account_is_gone_from_everywhere,
);

async fn post(server: &TestServer, path: &str, body: Value) -> Reply {
    server.request(Method::POST, path, Some(body)).await
}

fn password_proof(user: &User, session: Option<&Value>) -> Value {
    let mut proof = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user.id },
        "password": user.password,
    });
    if let Some(session) = session {
        proof["session"] = session.clone();
    }
    proof
}

/// The session of a challenge for one of these stages.
#[track_caller]
fn challenged(reply: &Reply, stage: &str) -> Value {
    assert_eq!(reply.status, 401, "{}", reply.json);
    assert_eq!(
        reply.json["flows"],
        json!([{ "stages": [stage] }]),
        "{}",
        reply.json
    );
    assert!(reply.json["session"].is_string(), "{}", reply.json);
    reply.json["session"].clone()
}

async fn registering_takes_a_proof_and_a_free_name(server: TestServer) {
    let wanted = json!({ "username": "alice", "password": "long enough", "inhibit_login": true });
    let asked = post(&server, "register", wanted.clone()).await;
    let session = challenged(&asked, "m.login.dummy");
    let mut proved = wanted.clone();
    proved["auth"] = json!({ "type": "m.login.dummy", "session": "made up" });
    challenged(&post(&server, "register", proved.clone()).await, "m.login.dummy");
    proved["auth"]["session"] = session;
    let made = post(&server, "register", proved).await.ok();
    assert_eq!(made["user_id"], format!("@alice:{}", server.name()));
    assert_eq!(made.as_object().unwrap().len(), 1, "nobody is logged in: {made}");

    post(&server, "register", wanted)
        .await
        .refused(400, "M_USER_IN_USE");
    for name in ["Alice", "a b", "", "a\0b", &"x".repeat(300)] {
        let body = json!({ "username": name, "password": "long enough" });
        post(&server, "register", body)
            .await
            .refused(400, "M_INVALID_USERNAME");
    }
    let weak = json!({ "username": "bob", "password": "short" });
    post(&server, "register", weak)
        .await
        .refused(400, "M_WEAK_PASSWORD");
    let guest = post(&server, "register?kind=guest", json!({})).await;
    guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN");

    let available = async |name: &str| {
        let path = format!("register/available?username={name}");
        server.request(Method::GET, &path, None).await
    };
    assert_eq!(available("bob").await.ok(), json!({ "available": true }));
    available("alice").await.refused(400, "M_USER_IN_USE");
    available("Bob").await.refused(400, "M_INVALID_USERNAME");

    let nameless = json!({ "password": "long enough", "auth": { "type": "m.login.dummy" } });
    let made = post(&server, "register", nameless).await.ok();
    assert!(
        made["user_id"].is_string() && made["access_token"].is_string(),
        "{made}"
    );
}

async fn who_asks_to_register_is_told_what_must_be_proved(server: TestServer) {
    for body in [None, Some(json!({})), Some(json!({ "username": "alice" }))] {
        let asked = server.request(Method::POST, "register", body).await;
        challenged(&asked, "m.login.dummy");
    }
    let proved = json!({ "username": "alice", "auth": { "type": "m.login.dummy" } });
    post(&server, "register", proved)
        .await
        .refused(400, "M_MISSING_PARAM");

    let server = with_registration(server, Registration::Token).await;
    let asked = post(&server, "register", json!({})).await;
    challenged(&asked, "m.login.registration_token");

    // Nobody has an account yet: this is the admin, who holds the one-time token.
    let server = with_registration(server, Registration::Closed).await;
    let asked = post(&server, "register", json!({})).await;
    let session = challenged(&asked, "m.login.registration_token");
    let token = server.parts().accounts.ensure_first_admin_token().await;
    let auth = json!({ "type": "m.login.registration_token", "token": token.unwrap(), "session": session });
    let body = json!({ "username": "root", "password": "long enough", "auth": auth });
    post(&server, "register", body).await.ok();
    post(&server, "register", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn a_registration_whose_answer_got_lost_is_made_again(server: TestServer) {
    let server = with_registration(server, Registration::Token).await;
    let token = server.parts().accounts.create_registration_token(Some(1), None);
    let token = token.await.unwrap();
    let session = async || {
        let asked = post(&server, "register", json!({})).await;
        challenged(&asked, "m.login.registration_token")
    };
    let body = |session: &Value, name: Option<&str>, password: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token, "session": session });
        let mut body = json!({ "password": password, "auth": auth });
        if let Some(name) = name {
            body["username"] = json!(name);
        }
        body
    };
    let first = session().await;
    let request = body(&first, Some("alice"), "long enough");
    let twice = [
        post(&server, "register", request.clone()),
        post(&server, "register", request.clone()),
    ];
    let twice = futures_util::future::join_all(twice).await;
    let [one, other] = twice.try_into().unwrap();
    let (one, other) = (one.ok(), other.ok());
    let last = post(&server, "register", request).await.ok();
    assert_eq!(one["user_id"], format!("@alice:{}", server.name()));
    for again in [&other, &last] {
        assert_eq!(again["user_id"], one["user_id"]);
        assert_eq!(again["device_id"], one["device_id"], "there is one device");
    }
    let alice = User::from_session(server.api().clone(), "alice", "long enough", &last);
    let devices = alice.get("devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "{devices}");

    // The session alone lets nobody in, and is good for nobody else.
    for (name, password) in [("alice", "a wrong guess"), ("bob", "long enough")] {
        post(&server, "register", body(&first, Some(name), password))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    let spent = body(&session().await, Some("bob"), "long enough");
    challenged(
        &post(&server, "register", spent).await,
        "m.login.registration_token",
    );

    let server = with_registration(server, Registration::Open).await;
    let asked = post(&server, "register", json!({})).await;
    let auth = json!({ "type": "m.login.dummy", "session": challenged(&asked, "m.login.dummy") });
    let nameless = json!({ "password": "long enough", "auth": auth });
    let made = post(&server, "register", nameless.clone()).await.ok();
    let again = post(&server, "register", nameless).await.ok();
    assert_eq!(
        again["user_id"], made["user_id"],
        "the name that was made up stays"
    );
}

async fn a_proof_is_good_again_for_the_same_request(server: TestServer) {
    let alice = server.user("alice").await;
    let phone = alice.second_device().await;
    let path = format!("devices/{}", phone.device);
    let session = challenged(&alice.delete(&path).await, "m.login.password");
    let proved = json!({ "auth": password_proof(&alice, Some(&session)) });
    for _ in 0..2 {
        let deleted = alice.request(Method::DELETE, &path, Some(proved.clone())).await;
        deleted.ok();
    }
    let unproved = json!({ "auth": { "session": session } });
    let refused = alice.request(Method::DELETE, &path, Some(unproved)).await;
    assert_eq!(challenged(&refused, "m.login.password"), session);
}

/// Restarts a server that is open to everybody as one with another kind of registration.
async fn with_registration(server: TestServer, registration: Registration) -> TestServer {
    let engine = server.data().engine();
    drop(server);
    TestServer::start_with(engine, |config| config.registration = registration).await
}

async fn a_registration_token_is_good_as_often_as_it_says(server: TestServer) {
    let server = with_registration(server, Registration::Token).await;
    let accounts = &server.parts().accounts;
    let admin_token = accounts.ensure_first_admin_token().await.unwrap().unwrap();
    assert!(accounts.ensure_first_admin_token().await.unwrap().is_none());
    let token = accounts.create_registration_token(Some(1), None).await.unwrap();
    let register = async |name: &str, token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        let body = json!({ "username": name, "password": "long enough", "auth": auth });
        post(&server, "register", body).await
    };
    let is_valid = async |token: &str| {
        let path = "/_matrix/client/v1/register/m.login.registration_token/validity";
        let reply = server
            .request(Method::GET, &format!("{path}?token={token}"), None)
            .await;
        reply.ok()["valid"].as_bool().unwrap()
    };
    assert!(is_valid(&token).await && is_valid(&admin_token).await && !is_valid("guess").await);

    let body = json!({ "username": "alice", "password": "long enough", "auth": { "type": "m.login.dummy" } });
    let dummy = post(&server, "register", body).await;
    challenged(&dummy, "m.login.registration_token");
    let wrong = register("alice", "guess").await;
    challenged(&wrong, "m.login.registration_token");
    assert_eq!(wrong.json["errcode"], "M_FORBIDDEN");

    register("alice", &token).await.ok();
    assert!(!is_valid(&token).await);
    challenged(&register("bob", &token).await, "m.login.registration_token");
    register("root", &admin_token).await.ok();
    challenged(
        &register("root2", &admin_token).await,
        "m.login.registration_token",
    );
    let users = accounts.list_users().await.unwrap();
    let admins: Vec<_> = users
        .iter()
        .map(|user| (user.user_id.localpart(), user.admin))
        .collect();
    assert_eq!(admins, [("alice", false), ("root", true)]);

    let server = with_registration(server, Registration::Closed).await;
    let accounts = &server.parts().accounts;
    let admin_token = accounts.ensure_first_admin_token().await.unwrap().unwrap();
    let token = accounts.create_registration_token(None, None).await.unwrap();
    let register = async |name: &str, auth: Value| {
        let body = json!({ "username": name, "password": "long enough", "auth": auth });
        post(&server, "register", body).await
    };
    let by_token = |token: &str| json!({ "type": "m.login.registration_token", "token": token });
    challenged(
        &register("eve", by_token(&token)).await,
        "m.login.registration_token",
    );
    register("root", by_token(&admin_token)).await.ok();
    let closed = post(
        &server,
        "register",
        json!({ "username": "eve", "password": "long enough" }),
    )
    .await;
    closed.refused(403, "M_FORBIDDEN");
    register("eve", json!({ "type": "m.login.dummy" }))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn a_user_logs_in_by_any_of_the_names(server: TestServer) {
    let alice = server.user("alice").await;
    let flows = server.request(Method::GET, "login", None).await.ok();
    let kinds: Vec<_> = flows["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| flow["type"].clone())
        .collect();
    assert_eq!(kinds, ["m.login.password", "m.login.token"]);

    let right = &alice.password;
    let by = |name: &str, password: &str| {
        let identifier = json!({ "type": "m.id.user", "user": name });
        json!({ "type": "m.login.password", "identifier": identifier, "password": password })
    };
    for name in ["alice", &alice.id] {
        let session = post(&server, "login", by(name, right)).await.ok();
        assert_eq!(session["user_id"], alice.id.as_str());
    }
    let old = json!({ "type": "m.login.password", "user": "alice", "password": right });
    let session = post(&server, "login", old).await.ok();
    let again = User::from_session(alice.api.clone(), "alice", right, &session);
    let me = again.get("account/whoami").await.ok();
    assert_eq!(me, json!({ "user_id": alice.id, "device_id": again.device }));

    for (name, password) in [
        ("alice", "wrong"),
        ("nobody", right),
        ("@alice:elsewhere", right),
        ("a\0b", right),
    ] {
        post(&server, "login", by(name, password))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    let odd = [
        (json!({}), "M_BAD_JSON"),
        (json!({ "type": 7 }), "M_BAD_JSON"),
        (json!([]), "M_BAD_JSON"),
        (json!({ "type": "org.example.retina" }), "M_UNKNOWN"),
        (
            json!({ "type": "m.login.password", "password": right }),
            "M_MISSING_PARAM",
        ),
        (
            json!({ "type": "m.login.password", "user": "alice" }),
            "M_MISSING_PARAM",
        ),
    ];
    for (body, errcode) in odd {
        post(&server, "login", body).await.refused(400, errcode);
    }
    let raw = server
        .api()
        .try_request(Method::POST, "login", None, Some("{\"type\":".into()));
    raw.await.unwrap().refused(400, "M_NOT_JSON");
    for device in ["", "a\0b", &"x".repeat(256)] {
        let mut body = by("alice", right);
        body["device_id"] = json!(device);
        post(&server, "login", body).await.refused(400, "M_INVALID_PARAM");
    }

    // The same device again: its first token ends.
    let mut body = by("alice", right);
    body["device_id"] = json!("PHONE");
    let first = post(&server, "login", body.clone()).await.ok();
    let second = post(&server, "login", body).await.ok();
    let on = |session: &Value| User::from_session(alice.api.clone(), "alice", right, session);
    on(&first)
        .get("account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(on(&second).get("account/whoami").await.ok()["device_id"], "PHONE");
}

async fn a_login_token_lets_one_device_in_once(server: TestServer) {
    let alice = server.user("alice").await;
    let path = "/_matrix/client/v1/login/get_token";
    let session = challenged(&alice.post(path, json!({})).await, "m.login.password");
    let auth = password_proof(&alice, Some(&session));
    let made = alice.post(path, json!({ "auth": auth })).await.ok();
    assert!(
        made["expires_in_ms"].as_u64().is_some_and(|ms| ms <= 300_000),
        "{made}"
    );
    let login = json!({ "type": "m.login.token", "token": made["login_token"] });
    let session = post(&server, "login", login.clone()).await.ok();
    assert_eq!(session["user_id"], alice.id.as_str());
    assert_ne!(session["device_id"], alice.device.as_str());
    post(&server, "login", login).await.refused(403, "M_FORBIDDEN");
}

async fn a_refreshed_pair_replaces_the_old_one_once_it_is_used(server: TestServer) {
    let alice = server.user("alice").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": alice.password,
        "refresh_token": true,
    });
    let first = post(&server, "login", login).await.ok();
    assert!(
        first["expires_in_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{first}"
    );
    let works = async |pair: &Value| {
        let token = pair["access_token"].as_str();
        let reply = server
            .api()
            .request(Method::GET, "account/whoami", token, None)
            .await;
        if reply.status != 200 {
            reply.refused(401, "M_UNKNOWN_TOKEN");
        }
        reply.status == 200
    };
    let refresh = async |pair: &Value| {
        let body = json!({ "refresh_token": pair["refresh_token"] });
        post(&server, "refresh", body).await
    };
    assert!(works(&first).await);
    let lost = refresh(&first).await.ok();
    let second = refresh(&first).await.ok();
    assert!(works(&first).await, "the new pair is not in use yet");
    assert!(
        !works(&lost).await,
        "the pair of a lost answer ends with the next one"
    );
    assert!(works(&second).await);
    assert!(!works(&first).await, "the new pair is in use");
    refresh(&first).await.refused(401, "M_UNKNOWN_TOKEN");
    let third = refresh(&second).await.ok();
    let fourth = refresh(&third).await.ok();
    assert!(!works(&second).await, "a refresh uses the pair as well");
    assert!(works(&third).await && works(&fourth).await && !works(&third).await);
    post(&server, "refresh", json!({ "refresh_token": "guess" }))
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    assert!(
        alice.get("account/whoami").await.status == 200,
        "other devices go on"
    );
}

async fn a_logged_out_token_is_refused_at_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = alice.sync(None).await.next();
    let phone = bob.second_device().await;
    phone.get("account/whoami").await.ok();
    phone.post("logout", json!({})).await.ok();
    phone.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    bob.get("account/whoami").await.ok();
    let told = alice.sync(Some(&since)).await;
    assert_eq!(told.0["device_lists"]["changed"], json!([bob.id]), "{}", told.0);

    let tablet = bob.second_device().await;
    bob.post("logout/all", json!({})).await.ok();
    for gone in [&bob, &tablet] {
        gone.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    }
    let back = bob.second_device().await;
    let devices = back.get("devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "{devices}");
}

async fn devices_are_listed_named_and_deleted_with_the_password(server: TestServer) {
    let alice = server.user("alice").await;
    let phone = alice.second_device().await;
    let tablet = alice.second_device().await;
    let named = json!({ "display_name": "Pocket" });
    alice.put(&format!("devices/{}", phone.device), named).await.ok();
    alice
        .put("devices/NOPE", json!({ "display_name": "x" }))
        .await
        .refused(404, "M_NOT_FOUND");
    let shown = alice.get(&format!("devices/{}", phone.device)).await.ok();
    assert_eq!(shown["display_name"], "Pocket");
    let own = alice.get(&format!("devices/{}", alice.device)).await.ok();
    assert!(
        own["last_seen_ts"].is_u64() && own["last_seen_ip"].is_string(),
        "{own}"
    );
    assert!(own.get("display_name").is_none(), "it has no name: {own}");
    let listed = alice.get("devices").await.ok();
    assert!(!listed.to_string().contains("null"), "{listed}");
    alice.get("devices/NOPE").await.refused(404, "M_NOT_FOUND");
    let too_long = json!({ "display_name": "x".repeat(1000) });
    alice
        .put(&format!("devices/{}", phone.device), too_long)
        .await
        .refused(400, "M_INVALID_PARAM");

    let path = format!("devices/{}", phone.device);
    let session = challenged(&alice.delete(&path).await, "m.login.password");
    let mut wrong = password_proof(&alice, Some(&session));
    wrong["password"] = json!("wrong");
    let refused = alice
        .request(Method::DELETE, &path, Some(json!({ "auth": wrong })))
        .await;
    assert_eq!(
        challenged(&refused, "m.login.password"),
        session,
        "the session goes on"
    );
    assert_eq!(refused.json["errcode"], "M_FORBIDDEN");
    phone.get("account/whoami").await.ok();
    let elsewhere = json!({ "devices": [phone.device], "auth": password_proof(&alice, Some(&session)) });
    challenged(&alice.post("delete_devices", elsewhere).await, "m.login.password");
    let right = json!({ "auth": password_proof(&alice, Some(&session)) });
    alice.request(Method::DELETE, &path, Some(right)).await.ok();
    phone.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");

    let body = json!({ "devices": [tablet.device, "NOPE"], "auth": password_proof(&alice, None) });
    alice.post("delete_devices", body).await.ok();
    tablet.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let left = alice.get("devices").await.ok();
    assert_eq!(left["devices"].as_array().unwrap().len(), 1, "{left}");

    let desk = alice.second_device().await;
    let old = json!({ "type": "m.login.password", "user": "alice", "password": alice.password });
    let body = json!({ "devices": [desk.device], "auth": old });
    alice.post("delete_devices", body).await.ok();
    desk.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");

    let bob = server.user("bob").await;
    let of_another = json!({ "devices": [alice.device], "auth": password_proof(&bob, None) });
    challenged(
        &alice.post("delete_devices", of_another).await,
        "m.login.password",
    );
}

async fn the_transaction_ids_of_a_device_go_with_it(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let log_in = async || {
        let login = json!({
            "type": "m.login.password", "user": "alice", "password": alice.password, "device_id": "PHONE",
        });
        let session = post(&server, "login", login).await.ok();
        User::from_session(alice.api.clone(), "alice", &alice.password, &session)
    };
    let say = async |user: &User, text: &str| {
        let content = json!({ "msgtype": "m.text", "body": text });
        let sent = user.send_as(&room, "m.room.message", "one", content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    };
    let mut sent = Vec::new();
    for end in ["log out", "delete", "log out everywhere"] {
        let phone = log_in().await;
        let event = say(&phone, end).await;
        assert_eq!(say(&phone, "a retry").await, event);
        let logged_in_again = log_in().await;
        assert_eq!(
            say(&logged_in_again, "a retry").await,
            event,
            "it is the same device"
        );
        sent.push(event);
        match end {
            "log out" => logged_in_again.post("logout", json!({})).await.ok(),
            "delete" => {
                let body = json!({ "devices": ["PHONE"], "auth": password_proof(&alice, None) });
                alice.post("delete_devices", body).await.ok()
            }
            _ => logged_in_again.post("logout/all", json!({})).await.ok(),
        };
    }
    // A device that sent much is forgotten as well, piece by piece.
    let phone = log_in().await;
    for n in 0..2_100 {
        let path = format!("sendToDevice/org.example/{n}");
        phone.put(&path, json!({ "messages": {} })).await.ok();
    }
    sent.push(say(&phone, "much").await);
    let change = json!({ "new_password": "quite another", "auth": password_proof(&alice, None) });
    let desk = alice.second_device().await;
    desk.post("account/password", change).await.ok();
    let login = json!({
        "type": "m.login.password", "user": "alice", "password": "quite another", "device_id": "PHONE",
    });
    let session = post(&server, "login", login).await.ok();
    let phone = User::from_session(alice.api.clone(), "alice", "quite another", &session);
    sent.push(say(&phone, "after the password").await);
    let unique: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(unique.len(), sent.len(), "every device has its own message");
}

async fn a_new_password_replaces_the_old_one(server: TestServer) {
    let alice = server.user("alice").await;
    let (phone, tablet) = (alice.second_device().await, alice.second_device().await);
    let change = json!({ "new_password": "quite another" });
    let session = challenged(
        &alice.post("account/password", change.clone()).await,
        "m.login.password",
    );
    let mut proved = change;
    proved["auth"] = password_proof(&alice, Some(&session));
    proved["logout_devices"] = json!(false);
    alice.post("account/password", proved).await.ok();
    phone.get("account/whoami").await.ok();
    let login = |password: &str| json!({ "type": "m.login.password", "user": "alice", "password": password });
    post(&server, "login", login(&alice.password))
        .await
        .refused(403, "M_FORBIDDEN");
    post(&server, "login", login("quite another")).await.ok();

    let mut renewed = alice.clone();
    renewed.password = "quite another".into();
    let change = json!({ "new_password": "the third one", "auth": password_proof(&renewed, None) });
    alice.post("account/password", change).await.ok();
    alice.get("account/whoami").await.ok();
    for gone in [phone, tablet] {
        gone.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    }
    server
        .request(
            Method::POST,
            "account/password",
            Some(json!({ "new_password": "x" })),
        )
        .await
        .refused(401, "M_MISSING_TOKEN");
}

async fn a_closed_account_is_gone_from_everywhere(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.put(
        &format!("profile/{}/displayname", encode(&bob.id)),
        json!({ "displayname": "Bob" }),
    )
    .await
    .ok();
    challenged(
        &bob.post("account/deactivate", json!({})).await,
        "m.login.password",
    );
    let closed = bob
        .post(
            "account/deactivate",
            json!({ "auth": password_proof(&bob, None) }),
        )
        .await;
    assert_eq!(closed.ok(), json!({ "id_server_unbind_result": "no-support" }));
    bob.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let login = json!({ "type": "m.login.password", "user": "bob", "password": bob.password });
    post(&server, "login", login).await.refused(403, "M_FORBIDDEN");
    let path = format!("profile/{}", encode(&bob.id));
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    let again = json!({ "username": "bob", "password": "long enough", "auth": { "type": "m.login.dummy" } });
    post(&server, "register", again)
        .await
        .refused(400, "M_USER_IN_USE");
    let seen = alice.sync(None).await;
    let left = seen
        .events(&room)
        .into_iter()
        .rfind(|event| event["state_key"] == bob.id.as_str())
        .unwrap();
    assert_eq!(left["content"]["membership"], "leave");
}

#[tokio::test]
async fn a_user_has_so_many_devices_and_no_more() {
    let server = TestServer::start_with(Engine::Sqlite, |config| config.limits.devices_per_user = 2).await;
    let alice = server.user("alice").await;
    let phone = alice.second_device().await;
    let login = json!({ "type": "m.login.password", "user": "alice", "password": alice.password });
    let third = post(&server, "login", login.clone()).await;
    third.refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    phone.post("logout", json!({})).await.ok();
    post(&server, "login", login).await.ok();
}

#[tokio::test]
async fn too_many_attempts_are_told_to_wait() {
    let slow = |burst| Rate {
        per_second: 0.001,
        burst,
    };
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.rate_limits = true;
        config.rates.login_per_account_and_address = slow(3);
        config.rates.login_per_address = slow(7);
        config.rates.registration_per_address = slow(2);
    })
    .await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    let auth = json!({ "type": "m.login.dummy" });
    let third = json!({ "username": "carol", "password": "long enough", "auth": auth });
    limited(&post(&server, "register", third).await);

    let login = |name: &str, password: &str| json!({ "type": "m.login.password", "user": name, "password": password });
    for _ in 0..3 {
        post(&server, "login", login("alice", "wrong"))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    limited(&post(&server, "login", login("alice", &alice.password)).await);
    post(&server, "login", login("bob", "the password of bob"))
        .await
        .ok();
    post(&server, "login", login("carol", "x"))
        .await
        .refused(403, "M_FORBIDDEN");
    post(&server, "login", login("dave", "x"))
        .await
        .refused(403, "M_FORBIDDEN");
    limited(&post(&server, "login", login("erin", "x")).await);
}

#[track_caller]
fn limited(reply: &Reply) {
    reply.refused(429, "M_LIMIT_EXCEEDED");
    assert!(
        reply.json["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{}",
        reply.json
    );
    let header = reply.headers["retry-after"].to_str().unwrap();
    assert!(header.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{header}");
}
