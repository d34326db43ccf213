//! Devices without a browser: they show a code, and their user types it elsewhere.

use maru_tests::{Engine, Reply, for_both_engines};
use serde_json::{Value, json};

use super::Place;
use super::browser::{Application, Browser, metadata, post_form, refused, scope};

for_both_engines!(
    somebody_signs_a_device_in,
    somebody_does_not,
    a_code_is_not_to_be_guessed_or_used_by_others,
);

/// What a device is told that asks to be signed in.
async fn begin(application: &Application, device: &str) -> Value {
    let scope = scope(device);
    let fields = [("client_id", &*application.id), ("scope", &*scope)];
    post_form(&application.api, "/oauth/device_authorization", &fields)
        .await
        .ok()
}

async fn poll(application: &Application, begun: &Value) -> Reply {
    let code = begun["device_code"].as_str().unwrap();
    application
        .token(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code),
        ])
        .await
}

/// A browser in which alice is signed in.
async fn signed_in(place: &Place) -> Browser {
    let mut browser = place.browser();
    let page = browser.get("/oauth/device").await;
    let path = "/oauth/device";
    browser
        .sign_in(path, &page, "alice", &place.alice.password)
        .await
        .sent_to();
    browser
}

async fn somebody_signs_a_device_in(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let begun = begin(&application, "ABCDEFGHIJ").await;
    assert_eq!(begun["interval"], 5);
    let code = begun["user_code"].as_str().unwrap();
    let complete = begun["verification_uri_complete"].as_str().unwrap();
    assert_eq!(begun["verification_uri"], "https://chat.example.org/oauth/device");
    refused(&poll(&application, &begun).await, 400, "authorization_pending");
    refused(&poll(&application, &begun).await, 400, "slow_down");

    let path = complete.strip_prefix("https://chat.example.org").unwrap();
    let mut browser = place.browser();
    let page = browser.get(path).await;
    assert!(!page.says(code), "whoever is not signed in is told nothing");
    browser
        .sign_in(path, &page, "alice", &place.alice.password)
        .await
        .sent_to();
    let consent = browser.get(path).await;
    assert!(
        consent.says(code) && consent.says("Thunderbird"),
        "{}",
        consent.text
    );
    let fields = [("step", "allow"), ("user_code", code)];
    let allowed = browser.send(path, &consent, &fields).await;
    assert!(allowed.says("Your device is being signed in"), "{}", allowed.text);
    let again = browser.send(path, &consent, &fields).await;
    assert_eq!(again.status, 404, "{}", again.text);

    let other = Application::register(&place.listening.api, "Other").await;
    refused(&poll(&other, &begun).await, 400, "invalid_grant");
    let tokens = poll(&application, &begun).await.ok();
    let user = place.alice.with_token(&tokens["access_token"]);
    let who = user.get("account/whoami").await.ok();
    assert_eq!(who["device_id"], "ABCDEFGHIJ");
    let renewed = application
        .refresh(tokens["refresh_token"].as_str().unwrap())
        .await
        .ok();

    // The device is not given to who asks for one of its name, not even by the same application: who has a device code
    // need not be who was told to type it.
    let other = begin(&application, "ABCDEFGHIJ").await;
    let complete = other["verification_uri_complete"].as_str().unwrap();
    let path = complete.strip_prefix("https://chat.example.org").unwrap();
    let consent = browser.get(path).await;
    let fields = [
        ("step", "allow"),
        ("user_code", other["user_code"].as_str().unwrap()),
    ];
    browser.send(path, &consent, &fields).await;
    assert_eq!(poll(&application, &other).await.status, 400);
    let user = place.alice.with_token(&renewed["access_token"]);
    assert_eq!(user.get("account/whoami").await.ok()["device_id"], "ABCDEFGHIJ");
    refused(&poll(&application, &begun).await, 400, "invalid_grant");
}

async fn somebody_does_not(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let begun = begin(&application, "ABCDEFGHIJ").await;
    let code = begun["user_code"].as_str().unwrap();
    let mut browser = signed_in(&place).await;
    let form = browser.get("/oauth/device").await;
    // As people type.
    let typed = format!(" {} ", code.to_lowercase().replace('-', " "));
    let found = browser
        .send("/oauth/device", &form, &[("step", "find"), ("user_code", &typed)])
        .await;
    assert!(found.says(code), "{}", found.text);
    let fields = [("step", "deny"), ("user_code", code)];
    let denied = browser.send("/oauth/device", &found, &fields).await;
    assert!(denied.says("not signed in"), "{}", denied.text);
    refused(&poll(&application, &begun).await, 400, "access_denied");
}

async fn a_code_is_not_to_be_guessed_or_used_by_others(engine: Engine) {
    let place = Place::with(engine, |config| {
        config.rate_limits = true;
    })
    .await;
    let application = place.application().await;
    let begun = begin(&application, "ABCDEFGHIJ").await;
    let mut browser = signed_in(&place).await;
    let form = browser.get("/oauth/device").await;
    let mut last = 0;
    for _ in 0..25 {
        let fields = [("step", "find"), ("user_code", "BBBB-BBBB")];
        let guessed = browser.send("/oauth/device", &form, &fields).await;
        last = guessed.status;
        assert!([404, 429].contains(&last), "{}", guessed.text);
    }
    assert_eq!(last, 429, "guesses are counted");
    refused(&poll(&application, &begun).await, 400, "authorization_pending");

    let mut only_code = metadata("Without");
    only_code["grant_types"] = json!(["authorization_code"]);
    let without = Application::registered(&place.listening.api, only_code).await;
    let scope = scope("ABCDEFGHIJ");
    for (client, scope, status, error) in [
        (&*without.id, &*scope, 400, "unauthorized_client"),
        ("nobody", &*scope, 401, "invalid_client"),
        (&*application.id, "openid", 400, "invalid_scope"),
        (&*application.id, "", 400, "invalid_request"),
    ] {
        let fields = [("client_id", client), ("scope", scope)];
        let reply = post_form(&application.api, "/oauth/device_authorization", &fields).await;
        refused(&reply, status, error);
    }
}
