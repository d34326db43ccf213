//! The way that everybody goes: an application registers, somebody signs in and allows it, and it has a session.

use http::Method;
use maru::config::Registration;
use maru_tests::{Engine, TestServer, for_both_engines};
use ruma::api::client::discovery::get_authorization_server_metadata::v1::{
    AccountManagementAction, AuthorizationServerMetadata,
};
use serde_json::{Value, json};

use super::browser::{Application, Browser, metadata, refused, register};
use super::{BASE, Place, with_base};

for_both_engines!(
    somebody_signs_in_by_an_application,
    a_lost_answer_is_asked_for_again,
    a_refresh_token_that_comes_back_ends_the_session,
    somebody_makes_an_account_on_the_way,
    a_new_account_takes_what_it_takes_elsewhere,
    the_answer_comes_where_the_application_wants_it,
    every_step_outlives_a_restart,
    turned_off_nothing_is_there,
);

async fn somebody_signs_in_by_an_application(engine: Engine) {
    let place = Place::on(engine).await;
    let api = &place.listening.api;
    for path in [
        "/_matrix/client/v1/auth_metadata",
        "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata",
    ] {
        let found = api.request(Method::GET, path, None, None).await.ok();
        assert_eq!(found["issuer"], BASE);
        assert_eq!(found["authorization_endpoint"], format!("{BASE}/oauth/authorize"));
        assert_eq!(found["account_management_uri"], format!("{BASE}/account"));
        assert_eq!(found["prompt_values_supported"], json!(["create"]));
        // As the SDK of Element X reads it.
        let read: AuthorizationServerMetadata = serde_json::from_value(found).unwrap();
        read.validate_urls().unwrap();
        for action in [
            AccountManagementAction::Profile,
            AccountManagementAction::DeviceDelete,
            AccountManagementAction::CrossSigningReset,
        ] {
            assert!(read.is_account_management_action_supported(&action));
        }
    }

    let application = place.application().await;
    assert_eq!(place.application().await.id, application.id, "the same again");
    let path = application.request("ABCDEFGHIJ", &[]);
    let mut browser = place.browser();
    let page = browser.get(&path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.says("<html lang=\"en\">") && page.says("Thunderbird"));
    for (header, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.header(header), value, "{header}");
    }
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!page.text.contains("<script"));

    let stranger = browser.cookie.clone();
    let wrong = browser.sign_in(&path, &page, "alice", "not her password").await;
    assert_eq!(wrong.status, 403);
    assert!(wrong.says("role=\"alert\"") && wrong.says("value=\"alice\""));
    let signed_in = browser
        .sign_in(&path, &page, "alice", &place.alice.password)
        .await;
    let (to, _) = signed_in.sent_to();
    assert_eq!(to, "authorize");
    assert_ne!(browser.cookie, stranger, "another cookie than before");
    let consent = browser.get(&path).await;
    assert!(consent.says("Thunderbird") && consent.says("app.example.com") && consent.says(&place.alice.id));
    let policy = consent.header("content-security-policy");
    assert!(
        policy.contains("form-action 'self' https://app.example.com;"),
        "{policy}"
    );

    let allowed = browser.send(&path, &consent, &[("step", "allow")]).await;
    let (to, answer) = allowed.sent_to();
    assert_eq!(to, "https://app.example.com/cb");
    assert_eq!(allowed.answered("state"), "a state & more");
    assert_eq!(allowed.answered("iss"), BASE);
    assert_eq!(answer.len(), 3);
    let reply = application.exchange(&allowed.answered("code")).await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let tokens = reply.ok();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 3600);
    assert_eq!(tokens["scope"], super::browser::scope("ABCDEFGHIJ"));

    let with = |tokens: &Value| place.alice.with_token(&tokens["access_token"]);
    let who = with(&tokens).get("account/whoami").await.ok();
    assert_eq!(who["user_id"], place.alice.id);
    assert_eq!(who["device_id"], "ABCDEFGHIJ");
    let device = place.alice.get("devices/ABCDEFGHIJ").await.ok();
    assert_eq!(device["display_name"], "Thunderbird");
    with(&tokens).get("sync").await.ok();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let legacy = json!({ "refresh_token": refresh });
    let legacy = api.request(Method::POST, "refresh", None, Some(legacy)).await;
    legacy.refused(401, "M_UNKNOWN_TOKEN");
    let renewed = application.refresh(refresh).await.ok();
    with(&renewed).get("sync").await.ok();
    with(&tokens).get("sync").await.refused(401, "M_UNKNOWN_TOKEN");

    application
        .revoke(renewed["access_token"].as_str().unwrap())
        .await
        .ok();
    with(&renewed).get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    let gone = place.alice.get("devices/ABCDEFGHIJ").await;
    gone.refused(404, "M_NOT_FOUND");
    place.alice.get("sync").await.ok();
}

async fn a_lost_answer_is_asked_for_again(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (_, first) = place.session(&application, "ABCDEFGHIJ").await;
    let lost = application.refresh(&first).await.ok();
    let again = application.refresh(&first).await.ok();
    assert_ne!(lost["refresh_token"], again["refresh_token"]);
    let refresh = again["refresh_token"].as_str().unwrap();
    let next = application.refresh(refresh).await.ok();
    // The refresh token alone, by RFC 7009.
    application
        .revoke(next["refresh_token"].as_str().unwrap())
        .await
        .ok();
    refused(
        &application.refresh(next["refresh_token"].as_str().unwrap()).await,
        400,
        "invalid_grant",
    );
}

async fn a_refresh_token_that_comes_back_ends_the_session(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (_, first) = place.session(&application, "ABCDEFGHIJ").await;
    let second = application.refresh(&first).await.ok();
    let second = second["refresh_token"].as_str().unwrap();
    let third = application.refresh(second).await.ok();
    let user = place.alice.with_token(&third["access_token"]);
    user.get("sync").await.ok();
    let other = Application::register(&place.listening.api, "Other").await;
    refused(&other.refresh(&first).await, 400, "invalid_grant");
    user.get("sync").await.ok();
    refused(&application.refresh(&first).await, 400, "invalid_grant");
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    refused(
        &application
            .refresh(third["refresh_token"].as_str().unwrap())
            .await,
        400,
        "invalid_grant",
    );
    let (again, _) = place.session(&application, "ABCDEFGHIJ").await;
    again.get("sync").await.ok();
}

async fn somebody_makes_an_account_on_the_way(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let path = application.request("ABCDEFGHIJ", &[("prompt", "create")]);
    let mut browser = place.browser();
    let page = browser.get(&path).await;
    assert!(page.says("Create an account") && !page.says("name=\"token\""));
    let create = |name: &'static str, password: &'static str, again: &'static str| {
        [
            ("step", "create"),
            ("name", name),
            ("password", password),
            ("again", again),
        ]
    };
    for (fields, status, said) in [
        (create("alice", "long enough", "long enough"), 400, "taken"),
        (
            create("Bob!", "long enough", "long enough"),
            400,
            "cannot be used",
        ),
        (
            create("admin", "long enough", "long enough"),
            400,
            "cannot be used",
        ),
        (create("bob", "short", "short"), 400, "too short"),
        (create("bob", "long enough", "long enouhg"), 400, "not the same"),
    ] {
        let refused = browser.send(&path, &page, &fields).await;
        assert_eq!(refused.status, status, "{fields:?} {}", refused.text);
        assert!(refused.says(said), "{fields:?} {}", refused.text);
    }
    let made = browser
        .send(&path, &page, &create("bob", "long enough", "long enough"))
        .await;
    let to = format!("/oauth/{}", made.header("location"));
    assert!(!to.contains("prompt"), "{to}");
    let consent = browser.get(&to).await;
    assert!(consent.says("@bob:"), "{}", consent.text);
    let allowed = browser.send(&to, &consent, &[("step", "allow")]).await;
    application.exchange(&allowed.answered("code")).await.ok();
    place.listening.api.log_in("bob", "long enough").await;
}

/// Where it takes a token, and where nobody can any more.
async fn a_new_account_takes_what_it_takes_elsewhere(engine: Engine) {
    let by_token = TestServer::start_with(engine, |config| {
        with_base(config);
        config.registration = Registration::Token;
    });
    let by_token = by_token.await;
    let application = Application::register(by_token.api(), "Thunderbird").await;
    let path = application.request("ABCDEFGHIJ", &[("prompt", "create")]);
    let mut browser = Browser::new(by_token.api());
    let page = browser.get(&path).await;
    assert!(page.says("name=\"token\""), "{}", page.text);
    let accounts = &by_token.parts().accounts;
    let token = accounts.create_registration_token(Some(1), None).await.unwrap();
    let fields = |token| {
        [
            ("step", "create"),
            ("name", "bob"),
            ("password", "long enough"),
            ("again", "long enough"),
            ("token", token),
        ]
    };
    let refused = browser.send(&path, &page, &fields("reg_wrong")).await;
    assert!(
        refused.status == 403 && refused.says("not valid"),
        "{}",
        refused.text
    );
    let without = browser.send(&path, &page, &fields("")).await;
    assert_eq!(without.status, 403, "{}", without.text);
    browser.send(&path, &page, &fields(&token)).await.sent_to();

    let closed = TestServer::start_with(engine, |config| {
        with_base(config);
        config.registration = Registration::Closed;
    });
    let closed = closed.await;
    let made = closed
        .parts()
        .accounts
        .create_user("alice", "long enough".into(), false);
    made.await.unwrap();
    let path = Application::register(closed.api(), "Thunderbird")
        .await
        .request("ABCDEFGHIJ", &[("prompt", "create")]);
    let mut browser = Browser::new(closed.api());
    let page = browser.get(&path).await;
    assert!(
        page.says("value=\"sign_in\"") && !page.says("prompt=create"),
        "{}",
        page.text
    );
    let refused = browser.send(&path, &page, &fields("")).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let metadata = "/_matrix/client/v1/auth_metadata";
    let found = closed.request(Method::GET, metadata, None).await.ok();
    assert!(found.get("prompt_values_supported").is_none());
}

async fn the_answer_comes_where_the_application_wants_it(engine: Engine) {
    let place = Place::on(engine).await;
    let mut native = metadata("Native");
    native["application_type"] = json!("native");
    native["redirect_uris"] = json!(["com.example.app:/", "http://127.0.0.1/cb"]);
    let native = Application::registered(&place.listening.api, native).await;
    let (mut browser, consent) = place.before_consent(&native, "ABCDEFGHIJ").await;
    let policy = consent.header("content-security-policy");
    assert!(
        policy.contains("form-action 'self' com.example.app:;"),
        "{policy}"
    );
    for (changes, to) in [
        (vec![("response_mode", "fragment")], "com.example.app:/"),
        (vec![("response_mode", "")], "com.example.app:/"),
        (
            vec![("redirect_uri", "http://127.0.0.1:4711/cb")],
            "http://127.0.0.1:4711/cb",
        ),
    ] {
        let path = native.request("ABCDEFGHIJ", &changes);
        let consent = browser.get(&path).await;
        let allowed = browser.send(&path, &consent, &[("step", "allow")]).await;
        assert_eq!(allowed.sent_to().0, to);
        let mark = if changes[0].1 == "fragment" { '#' } else { '?' };
        assert!(allowed.header("location").starts_with(&format!("{to}{mark}")));
        let denied = browser.send(&path, &consent, &[("step", "deny")]).await;
        assert_eq!(denied.sent_to().0, to);
        assert_eq!(denied.answered("error"), "access_denied");
        assert_eq!(denied.answered("state"), "a state & more");
    }
    // The one who is signed in need not be the one who wants to allow it.
    let path = native.request("ABCDEFGHIJ", &[]);
    let consent = browser.get(&path).await;
    browser.send(&path, &consent, &[("step", "sign_out")]).await;
    let page = browser.get(&path).await;
    assert!(page.says("name=\"password\""));
    let hint = format!("mxid:{}", place.alice.id);
    let path = native.request("ABCDEFGHIJ", &[("login_hint", &hint), ("prompt", "login")]);
    let page = browser.get(&path).await;
    assert!(
        page.says(&format!("value=\"{}\"", place.alice.id)),
        "{}",
        page.text
    );
}

async fn every_step_outlives_a_restart(engine: Engine) {
    let mut server = TestServer::start_with(engine, with_base).await;
    let alice = server.user("alice").await;
    let mut application = Application::register(server.api(), "Thunderbird").await;
    let mut browser = Browser::new(server.api());
    let path = application.request("ABCDEFGHIJ", &[]);
    let page = browser.get(&path).await;
    server = server.restart().await;
    browser = browser.at(server.api());
    browser
        .sign_in(&path, &page, "alice", &alice.password)
        .await
        .sent_to();
    server = server.restart().await;
    browser = browser.at(server.api());
    let consent = browser.get(&path).await;
    server = server.restart().await;
    browser = browser.at(server.api());
    let code = browser
        .send(&path, &consent, &[("step", "allow")])
        .await
        .answered("code");
    server = server.restart().await;
    application = application.at(server.api());
    let tokens = application.exchange(&code).await.ok();
    server = server.restart().await;
    application = application.at(server.api());
    let renewed = application
        .refresh(tokens["refresh_token"].as_str().unwrap())
        .await
        .ok();
    server = server.restart().await;
    let user = alice.on(server.api()).with_token(&renewed["access_token"]);
    user.get("sync").await.ok();
    refused(
        &application.at(server.api()).exchange(&code).await,
        400,
        "invalid_grant",
    );
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
}

async fn turned_off_nothing_is_there(engine: Engine) {
    for has_base in [false, true] {
        let server = TestServer::start_with(engine, |config| {
            if has_base {
                with_base(config);
                config.oauth = false;
            }
        });
        let server = server.await;
        for (method, path) in [
            (Method::GET, "/_matrix/client/v1/auth_metadata"),
            (Method::GET, "/oauth/authorize?client_id=a"),
            (Method::GET, "/oauth/device"),
            (Method::GET, "/account"),
            (Method::GET, "/oauth/style.css"),
            (Method::POST, "/oauth/register"),
            (Method::POST, "/oauth/token"),
            (Method::POST, "/oauth/revoke"),
            (Method::POST, "/oauth/authorize"),
            (Method::POST, "/account"),
        ] {
            let reply = server.request(method, path, None).await;
            reply.refused(404, "M_UNRECOGNIZED");
        }
        assert_eq!(register(server.api(), metadata("App")).await.status, 404);
    }
}

/// Two nodes on one database: each step at another one than the step before.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_does_any_step() {
    let one = TestServer::start_with(Engine::Postgres, with_base).await;
    let other = one.start_node("other").await;
    let alice = one.user("alice").await;
    let application = Application::register(one.api(), "Thunderbird").await;
    let path = application.request("ABCDEFGHIJ", &[]);
    let mut browser = Browser::new(other.api());
    let page = browser.get(&path).await;
    let mut browser = browser.at(one.api());
    browser
        .sign_in(&path, &page, "alice", &alice.password)
        .await
        .sent_to();
    let mut browser = browser.at(other.api());
    let consent = browser.get(&path).await;
    let mut browser = browser.at(one.api());
    let code = browser
        .send(&path, &consent, &[("step", "allow")])
        .await
        .answered("code");
    let application = application.at(other.api());
    let tokens = application.exchange(&code).await.ok();
    let user = alice.with_token(&tokens["access_token"]);
    user.get("sync").await.ok();
    user.on(other.api()).get("sync").await.ok();
    application.at(one.api()).revoke(&user.token).await.ok();
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    // The other node hears of it by the log.
    maru_tests::waiting::look_for("the other node knows", async || {
        let status = user.on(other.api()).get("account/whoami").await.status;
        (status == 401).then_some(()).ok_or(status.to_string())
    })
    .await;
}
