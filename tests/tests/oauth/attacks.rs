//! What somebody tries who should not come in, or not as far.

use http::Method;
use maru::config::Rate;
use maru::limits::Budget;
use maru_tests::{Engine, for_both_engines};
use serde_json::json;

use super::Place;
use super::browser::{Application, metadata, post_form, refused, register};

for_both_engines!(
    a_code_is_good_once_and_for_who_asked_for_it,
    a_code_that_is_used_twice_at_once_becomes_no_session,
    nobody_learns_who_has_an_account,
    who_tries_too_often_has_to_wait,
    what_ends_an_account_ends_what_it_has_allowed,
    a_device_belongs_to_the_application_that_signed_it_in,
    a_token_is_taken_back_from_its_own_application_only,
);

async fn a_code_is_good_once_and_for_who_asked_for_it(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let other = Application::register(&place.listening.api, "Other").await;
    let code = place.code(&application, "ABCDEFGHIJ").await;
    let exchange = async |changes: &[(&str, &str)]| {
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("redirect_uri", &*application.redirect_uri),
            ("code_verifier", &*application.verifier),
            ("client_id", &*application.id),
        ];
        let is_other = |name: &str| changes.iter().any(|(other, _)| *other == name);
        let kept = usual.into_iter().filter(|(name, _)| !is_other(name));
        let all: Vec<_> = kept.chain(changes.iter().copied()).collect();
        post_form(&place.listening.api, "/oauth/token", &all).await
    };
    let wrong = "b".repeat(43);
    for (changes, error) in [
        (vec![("client_id", &*other.id)], "invalid_grant"),
        (vec![("client_id", "nobody")], "invalid_grant"),
        (vec![("client_id", "")], "invalid_request"),
        (vec![("code_verifier", &*wrong)], "invalid_grant"),
        (vec![("code_verifier", "short")], "invalid_grant"),
        (vec![("code_verifier", "")], "invalid_request"),
        (
            vec![("redirect_uri", "https://app.example.com/other")],
            "invalid_grant",
        ),
        (vec![("code", "code_wrong")], "invalid_grant"),
        (vec![("code", "")], "invalid_request"),
        (vec![("grant_type", "password")], "unsupported_grant_type"),
        (vec![("grant_type", "")], "invalid_request"),
    ] {
        refused(&exchange(&changes).await, 400, error);
    }
    // Not one of these has used it up.
    let tokens = exchange(&[]).await.ok();
    let user = place.alice.with_token(&tokens["access_token"]);
    user.get("sync").await.ok();
    refused(&exchange(&[("client_id", &other.id)]).await, 400, "invalid_grant");
    user.get("sync").await.ok();
    refused(&exchange(&[]).await, 400, "invalid_grant");
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    refused(&application.refresh(refresh).await, 400, "invalid_grant");
    place.alice.get("sync").await.ok();
}

async fn a_code_that_is_used_twice_at_once_becomes_no_session(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let code = place.code(&application, "ABCDEFGHIJ").await;
    let all = (0..4).map(|_| application.exchange(&code));
    let all = futures_util::future::join_all(all).await;
    let given: Vec<_> = all.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(given.len(), 1, "one of them was first");
    let devices = place.alice.get("devices").await.ok();
    let ids = devices["devices"].as_array().unwrap().iter();
    assert!(
        ids.clone().all(|device| device["device_id"] != "ABCDEFGHIJ"),
        "{devices}"
    );
    let refresh = given[0].json["refresh_token"].as_str().unwrap();
    refused(&application.refresh(refresh).await, 400, "invalid_grant");
}

async fn nobody_learns_who_has_an_account(engine: Engine) {
    let place = Place::on(engine).await;
    let gone = place.listening.api.register("gone").await;
    let proof = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "gone" },
        "password": gone.password,
    });
    gone.post("account/deactivate", json!({ "auth": proof }))
        .await
        .ok();
    let application = place.application().await;
    let path = application.request("ABCDEFGHIJ", &[]);
    let mut browser = place.browser();
    let page = browser.get(&path).await;
    let mut told = Vec::new();
    for (name, password) in [
        ("alice", "wrong one"),
        ("nobody", "wrong one"),
        ("gone", &*gone.password),
        ("gone", "wrong one"),
        ("@alice:elsewhere.example", "wrong one"),
        ("", "wrong one"),
        ("a\u{1f98a}", "wrong one"),
    ] {
        let answer = browser.sign_in(&path, &page, name, password).await;
        let text = answer.text.replace(&format!("value=\"{name}\""), "value=\"\"");
        told.push((answer.status, text));
    }
    assert_eq!(told[0].0, 403);
    for other in &told[1..] {
        assert_eq!(other, &told[0]);
    }
}

async fn who_tries_too_often_has_to_wait(engine: Engine) {
    let place = Place::with(engine, |config| {
        config.rate_limits = true;
        for budget in [Budget::LoginsToAccountFromAddress, Budget::ClientRegistrations] {
            *config.rates.of_mut(budget) = Rate {
                per_second: 0.001,
                burst: 3,
            };
        }
    })
    .await;
    let application = place.application().await;
    let path = application.request("ABCDEFGHIJ", &[]);
    let mut browser = place.browser();
    let page = browser.get(&path).await;
    for _ in 0..3 {
        let wrong = browser.sign_in(&path, &page, "alice", "wrong one").await;
        assert_eq!(wrong.status, 403);
    }
    let locked = browser
        .sign_in(&path, &page, "alice", &place.alice.password)
        .await;
    assert_eq!(locked.status, 429);
    assert!(locked.says("Too many attempts"), "{}", locked.text);
    // The same attempts as over the older API.
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": place.alice.password,
    });
    let api = &place.listening.api;
    let login = api.request(Method::POST, "login", None, Some(login)).await;
    login.refused(429, "M_LIMIT_EXCEEDED");
    for name in ["Second", "Third"] {
        Application::register(api, name).await;
    }
    let fourth = register(api, metadata("Fourth")).await;
    refused(&fourth, 429, "temporarily_unavailable");
    assert!(fourth.headers.contains_key("retry-after"));
}

async fn what_ends_an_account_ends_what_it_has_allowed(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let code = place.code(&application, "ABCDEFGHIJ").await;
    let (mut browser, consent) = place.before_consent(&application, "KLMNOPQRST").await;
    let (user, refresh) = place.session(&application, "UVWXYZABCD").await;
    let proof = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": place.alice.password,
    });
    let change = json!({ "auth": proof, "new_password": "another long one", "logout_devices": true });
    place.alice.post("account/password", change).await.ok();
    refused(&application.exchange(&code).await, 400, "invalid_grant");
    refused(&application.refresh(&refresh).await, 400, "invalid_grant");
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    let path = application.request("KLMNOPQRST", &[]);
    let asked = browser.send(&path, &consent, &[("step", "allow")]).await;
    assert!(asked.says("value=\"sign_in\""), "{}", asked.text);

    let signed_in = browser.sign_in(&path, &asked, "alice", "another long one").await;
    assert_eq!(signed_in.status, 303);
    let consent = browser.get(&path).await;
    let code = browser
        .send(&path, &consent, &[("step", "allow")])
        .await
        .answered("code");
    let accounts = &place.server.parts().accounts;
    let alice = place.alice.id.clone().try_into().unwrap();
    let alice: ruma::OwnedUserId = alice;
    accounts.deactivate(&alice, None, false).await.unwrap();
    refused(&application.exchange(&code).await, 400, "invalid_grant");
    let asked = browser.get(&path).await;
    assert!(asked.says("value=\"sign_in\""), "{}", asked.text);
    let refused = browser.sign_in(&path, &asked, "alice", "another long one").await;
    assert_eq!(refused.status, 403);
}

async fn a_device_belongs_to_the_application_that_signed_it_in(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let other = Application::register(&place.listening.api, "Other").await;
    let (user, _) = place.session(&application, "ABCDEFGHIJ").await;
    for taken in ["ABCDEFGHIJ", &*place.alice.device] {
        let code = place.code(&other, taken).await;
        refused(&other.exchange(&code).await, 400, "invalid_grant");
    }
    user.get("sync").await.ok();
    place.alice.get("sync").await.ok();
    // Its own application signs it in again.
    let (again, _) = place.session(&application, "ABCDEFGHIJ").await;
    again.get("sync").await.ok();
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
}

async fn a_token_is_taken_back_from_its_own_application_only(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let other = Application::register(&place.listening.api, "Other").await;
    let (user, refresh) = place.session(&application, "ABCDEFGHIJ").await;
    refused(&other.revoke(&user.token).await, 401, "invalid_client");
    refused(&other.revoke(&refresh).await, 401, "invalid_client");
    user.get("sync").await.ok();
    application.revoke("mat_unknown").await.ok();
    application.revoke(&place.alice.token).await.ok();
    place.alice.get("sync").await.ok();
    refused(
        &post_form(
            &place.listening.api,
            "/oauth/revoke",
            &[("client_id", &application.id)],
        )
        .await,
        400,
        "invalid_request",
    );
    let fields = [("token", &*refresh), ("token_type_hint", "access_token")];
    post_form(&place.listening.api, "/oauth/revoke", &fields)
        .await
        .ok();
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
}
