//! The account page, and what applications send people there for.

use http::Method;
use maru::config::Setting;
use maru_tests::{Engine, Reply, User, for_both_engines};
use serde_json::{Value, json};

use super::Place;
use super::browser::{Browser, Shown};

for_both_engines!(
    people_look_after_their_account,
    a_password_is_changed_by_who_knows_it,
    new_cross_signing_keys_are_allowed_on_the_page,
    a_device_is_signed_out_on_the_page,
    an_account_is_closed_by_who_is_sure,
    pages_speak_korean,
    without_https_a_cookie_is_plain,
    what_has_ended_is_dropped,
);

/// A browser in which alice is signed in, at a page.
async fn at(place: &Place, path: &str) -> (Browser, Shown) {
    let mut browser = place.browser();
    let page = browser.get(path).await;
    let signed_in = browser.sign_in(path, &page, "alice", &place.alice.password).await;
    let (to, _) = signed_in.sent_to();
    assert_eq!(to, "account");
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    (browser, page)
}

async fn people_look_after_their_account(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (user, _) = place.session(&application, "ABCDEFGHIJ").await;
    let (mut browser, page) = at(&place, "/account").await;
    for shown in [
        &*place.alice.id,
        "ABCDEFGHIJ",
        &*place.alice.device,
        "Thunderbird",
    ] {
        assert!(page.says(shown), "{shown} {}", page.text);
    }
    let fields = [("step", "rename"), ("display_name", "Alice <b>")];
    let renamed = browser.send("/account", &page, &fields).await;
    let done = format!("/{}", renamed.header("location"));
    let page = browser.get(&done).await;
    assert!(
        page.says("Your display name is changed") && page.says("Alice &lt;b&gt;"),
        "{}",
        page.text
    );
    let profile = place.alice.get(&format!("profile/{}", place.alice.id)).await.ok();
    assert_eq!(profile["displayname"], "Alice <b>");

    for action in [
        "org.matrix.device_view",
        "org.matrix.session_view",
        "org.matrix.session_end",
    ] {
        let path = format!("/account?action={action}&device_id=ABCDEFGHIJ");
        let page = browser.get(&path).await;
        assert!(
            page.says("ABCDEFGHIJ") && !page.says(&place.alice.device),
            "{}",
            page.text
        );
    }
    let path = "/account?action=org.matrix.device_delete&device_id=ABCDEFGHIJ";
    let page = browser.get(path).await;
    let fields = [("step", "sign_out_device"), ("device_id", "ABCDEFGHIJ")];
    let gone = browser.send(path, &page, &fields).await;
    assert!(gone.header("location").contains("done=done_signed_out"));
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    place.alice.get("sync").await.ok();

    let out = browser.send("/account", &page, &[("step", "sign_out")]).await;
    assert_eq!(out.status, 303);
    let page = browser.get("/account").await;
    assert!(page.says("value=\"sign_in\"") && !page.says(&place.alice.device));
}

async fn a_password_is_changed_by_who_knows_it(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (user, _) = place.session(&application, "ABCDEFGHIJ").await;
    let path = "/account?action=org.matrix.profile";
    let (mut browser, page) = at(&place, path).await;
    let mut elsewhere = browser.clone();
    let change = |password: &'static str, new: &'static str, again: &'static str| {
        [
            ("step", "change_password"),
            ("password", password),
            ("new_password", new),
            ("again", again),
            ("sign_out_devices", "yes"),
        ]
    };
    let own: &'static str = place.alice.password.clone().leak();
    for (fields, status, said) in [
        (
            change("wrong one", "another long one", "another long one"),
            403,
            "The password is wrong",
        ),
        (change(own, "another long one", "other"), 400, "not the same"),
        (change(own, "short", "short"), 400, "too short"),
    ] {
        let refused = browser.send(path, &page, &fields).await;
        assert_eq!(refused.status, status, "{}", refused.text);
        assert!(refused.says(said), "{}", refused.text);
    }
    user.get("sync").await.ok();
    let fields = change(own, "another long one", "another long one");
    let changed = browser.send(path, &page, &fields).await;
    let to = format!("/{}", changed.header("location"));
    assert!(browser.get(&to).await.says("Your password is changed"));
    user.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    assert!(
        elsewhere.get(path).await.says("value=\"sign_in\""),
        "signed out elsewhere"
    );
    place.listening.api.log_in("alice", "another long one").await;
}

fn keys(user: &User, key: &str) -> Value {
    let keys = json!({ format!("ed25519:{key}"): key });
    json!({ "master_key": { "user_id": user.id, "usage": ["master"], "keys": keys } })
}

async fn upload(user: &User, key: &str, auth: Option<Value>) -> Reply {
    let mut body = keys(user, key);
    if let Some(auth) = auth {
        body["auth"] = auth;
    }
    user.post("keys/device_signing/upload", body).await
}

async fn new_cross_signing_keys_are_allowed_on_the_page(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (user, _) = place.session(&application, "ABCDEFGHIJ").await;
    upload(&user, "first", None).await.ok();
    let asked = upload(&user, "second", None).await;
    assert_eq!(asked.status, 401, "{}", asked.json);
    let flows = json!([{ "stages": ["m.oauth"] }, { "stages": ["org.matrix.cross_signing_reset"] }]);
    assert_eq!(asked.json["flows"], flows);
    let page = "https://chat.example.org/account?action=org.matrix.cross_signing_reset";
    for stage in ["m.oauth", "org.matrix.cross_signing_reset"] {
        assert_eq!(asked.json["params"][stage]["url"], page);
    }
    let auth = |stage: &str| json!({ "type": stage, "session": asked.json["session"] });
    for stage in ["m.oauth", "org.matrix.cross_signing_reset"] {
        let again = upload(&user, "second", Some(auth(stage))).await;
        assert_eq!(again.status, 401, "{}", again.json);
        assert_eq!(again.json["session"], asked.json["session"]);
    }
    // Whoever logged in by password is asked for that.
    let legacy = upload(&place.alice, "second", None).await;
    assert_eq!(legacy.json["flows"], json!([{ "stages": ["m.login.password"] }]));

    let path = page.strip_prefix("https://chat.example.org").unwrap();
    let (mut browser, shown) = at(&place, path).await;
    let wrong = [("step", "allow_reset"), ("password", "wrong one")];
    assert_eq!(browser.send(path, &shown, &wrong).await.status, 403);
    assert_eq!(upload(&user, "second", None).await.status, 401);
    let right = [("step", "allow_reset"), ("password", &*place.alice.password)];
    let allowed = browser.send(path, &shown, &right).await;
    assert!(
        allowed.header("location").contains("done=done_reset"),
        "{}",
        allowed.text
    );
    upload(&user, "second", Some(auth("m.oauth"))).await.ok();
    upload(&user, "third", None).await.ok();
    // What one has allowed is not allowed to another, nor after the password has changed.
    let bob = place.listening.api.register("bob").await;
    upload(&bob, "first", None).await.ok();
    assert_eq!(upload(&bob, "second", None).await.status, 401);
    let proof = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": place.alice.password,
    });
    let change = json!({ "auth": proof, "new_password": "another long one", "logout_devices": false });
    place.alice.post("account/password", change).await.ok();
    assert_eq!(upload(&user, "fourth", None).await.status, 401);
}

async fn a_device_is_signed_out_on_the_page(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let (user, _) = place.session(&application, "ABCDEFGHIJ").await;
    let (other, _) = place.session(&application, "KLMNOPQRST").await;
    let delete = async |auth: Option<Value>| {
        let body = auth.map_or(json!({}), |auth| json!({ "auth": auth }));
        user.request(Method::DELETE, "devices/KLMNOPQRST", Some(body))
            .await
    };
    let asked = delete(None).await;
    assert_eq!(asked.status, 401, "{}", asked.json);
    assert_eq!(asked.json["flows"], json!([{ "stages": ["m.oauth"] }]));
    let url = asked.json["params"]["m.oauth"]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let auth = json!({ "type": "m.oauth", "session": asked.json["session"] });
    assert_eq!(delete(Some(auth.clone())).await.status, 401);
    let path = url.strip_prefix("https://chat.example.org").unwrap();
    let (mut browser, page) = at(&place, path).await;
    let fields = [("step", "sign_out_device"), ("device_id", "KLMNOPQRST")];
    browser.send(path, &page, &fields).await;
    delete(Some(auth)).await.ok();
    other.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    let several = user.post(
        "delete_devices",
        json!({ "devices": ["ABCDEFGHIJ", &place.alice.device] }),
    );
    let several = several.await;
    assert_eq!(several.status, 401);
    let url = several.json["params"]["m.oauth"]["url"].as_str().unwrap();
    assert!(url.ends_with("/account?action=org.matrix.devices_list"), "{url}");
}

async fn an_account_is_closed_by_who_is_sure(engine: Engine) {
    let place = Place::on(engine).await;
    let path = "/account?action=org.matrix.account_deactivate";
    let (mut browser, page) = at(&place, path).await;
    let password = ("password", &*place.alice.password);
    let step = ("step", "deactivate");
    let unsure = browser.send(path, &page, &[step, password]).await;
    assert!(unsure.status == 400 && unsure.says("sure"), "{}", unsure.text);
    let wrong = browser
        .send(path, &page, &[step, ("password", "wrong one"), ("sure", "yes")])
        .await;
    assert_eq!(wrong.status, 403);
    place.alice.get("sync").await.ok();
    let closed = browser
        .send(path, &page, &[step, password, ("sure", "yes")])
        .await;
    assert!(
        closed.status == 200 && closed.says("Your account is closed"),
        "{}",
        closed.text
    );
    place.alice.get("sync").await.refused(401, "M_UNKNOWN_TOKEN");
    assert!(browser.get(path).await.says("value=\"sign_in\""));
}

async fn pages_speak_korean(engine: Engine) {
    let place = Place::on(engine).await;
    let mut browser = place.browser();
    browser.language = "ko-KR,ko;q=0.9,en;q=0.5";
    let page = browser.get("/account").await;
    assert!(
        page.says("<html lang=\"ko\">") && page.says("비밀번호"),
        "{}",
        page.text
    );
    assert_eq!(page.header("content-language"), "ko");
    let failed = browser.get("/oauth/authorize").await;
    assert!(
        failed.status == 400 && failed.says("처리하지 못했습니다"),
        "{}",
        failed.text
    );
    let style = browser.get("/oauth/style.css").await;
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}

/// Where somebody tries the server on their own machine.
async fn without_https_a_cookie_is_plain(engine: Engine) {
    let base = "http://127.0.0.1:8008";
    let place = Place::with(engine, |config| {
        config.public_base_url = Some(Setting::read(base).unwrap());
    });
    let place = place.await;
    let api = &place.listening.api;
    let page = api.request(Method::GET, "/account", None, None).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    let (pair, guards) = cookie.split_once(';').unwrap();
    assert!(pair.starts_with("maru="), "{cookie}");
    assert_eq!(guards, " Path=/; HttpOnly; SameSite=Lax");
}

async fn what_has_ended_is_dropped(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    place.code(&application, "ABCDEFGHIJ").await;
    let scope = super::browser::scope("KLMNOPQRST");
    let fields = [("client_id", &*application.id), ("scope", &*scope)];
    let begun = super::browser::post_form(&application.api, "/oauth/device_authorization", &fields).await;
    begun.ok();
    super::browser::Application::register(&place.listening.api, "Unused").await;
    let oauth = &place.server.parts().store.oauth;
    let alice: ruma::OwnedUserId = place.alice.id.clone().try_into().unwrap();
    let first = maru::store::accounts::credentials::Credentials::FIRST;
    oauth.allow_reset(&alice, first, 1).await.unwrap();
    let rows = async |table: &str| {
        let count = format!("SELECT COUNT(*) FROM {table}");
        place.server.data().number(&count).await
    };
    let held = async |kind: &str| {
        let held = format!("SELECT held FROM oauth_counts WHERE kind = '{kind}'");
        place.server.data().number(&held).await
    };
    assert_eq!((rows("oauth_clients").await, held("clients").await), (2, 2));
    assert_eq!((rows("device_grants").await, held("device_grants").await), (1, 1));
    let day = place.server.parts().now() + 24 * 60 * 60 * 1000;
    assert_eq!(oauth.expire_codes(day, 10).await.unwrap(), 1);
    assert_eq!(oauth.expire_device_grants(day, 10).await.unwrap(), 1);
    assert_eq!(oauth.expire_browser_sessions(day, 10).await.unwrap(), 1);
    assert_eq!(oauth.expire_resets(day, 10).await.unwrap(), 1);
    assert_eq!(
        oauth.expire_clients(day, 10).await.unwrap(),
        1,
        "the one that nobody has used"
    );
    assert_eq!((rows("oauth_clients").await, held("clients").await), (1, 1));
    assert_eq!((rows("device_grants").await, held("device_grants").await), (0, 0));
    for table in ["oauth_codes", "browser_sessions", "cross_signing_resets"] {
        assert_eq!(rows(table).await, 0, "{table}");
    }
    assert_eq!(oauth.expire_codes(day, 10).await.unwrap(), 0);
}
