//! What somebody tries who should not come in, or not as far.

use bytes::Bytes;
use http::{Method, Request, header};
use maru::config::Rate;
use maru::limits::Budget;
use maru_tests::{Api, Engine, for_both_engines};
use serde_json::{Value, json};

use super::Place;
use super::browser::{Application, Browser, metadata, post_form, refused, register};

for_both_engines!(
    a_code_is_good_once_and_for_who_asked_for_it,
    a_code_that_is_used_twice_at_once_becomes_no_session,
    nobody_is_sent_anywhere_but_to_what_was_registered,
    what_is_wrong_is_told_where_it_can_be,
    a_form_is_sent_by_who_was_shown_it,
    what_applications_say_is_shown_as_text,
    nobody_learns_who_has_an_account,
    who_tries_too_often_has_to_wait,
    what_ends_an_account_ends_what_it_has_allowed,
    a_device_belongs_to_the_application_that_signed_it_in,
    a_token_is_taken_back_from_its_own_application_only,
    whatever_is_sent_is_answered,
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

async fn nobody_is_sent_anywhere_but_to_what_was_registered(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let mut browser = place.browser();
    for redirect_uri in [
        "https://evil.example/",
        "https://app.example.com/cb/",
        "https://app.example.com/cb?a=b",
        "https://app.example.com/cb#part",
        "https://app.example.com.evil.example/cb",
        "https://app.example.com@evil.example/cb",
        "https://app.example.com:443/cb",
        "HTTPS://app.example.com/cb",
        "//evil.example",
        "javascript:alert(1)",
        "x",
    ] {
        for extra in [("state", "s"), ("response_type", "token"), ("scope", "nothing")] {
            let path = application.request("ABCDEFGHIJ", &[("redirect_uri", redirect_uri), extra]);
            let page = browser.get(&path).await;
            assert_eq!(page.status, 400, "{redirect_uri}");
            assert!(page.headers.get("location").is_none(), "{redirect_uri}");
            assert!(page.says("invalid_redirect_uri"), "{}", page.text);
        }
    }
    for client in ["", "nobody", "\u{1f98a}"] {
        let path = application.request("ABCDEFGHIJ", &[("client_id", client)]);
        let page = browser.get(&path).await;
        assert_eq!(page.status, 400, "{}", page.text);
        assert!(page.headers.get("location").is_none());
    }
    let twice = application.request("ABCDEFGHIJ", &[]) + "&redirect_uri=https%3A%2F%2Fevil.example";
    let page = browser.get(&twice).await;
    assert_eq!((page.status, page.header("location")), (400, ""));

    for (name, value, error) in [
        (
            "redirect_uris",
            json!(["https://evil.example/"]),
            "invalid_redirect_uri",
        ),
        (
            "redirect_uris",
            json!(["https://app.example.com/#a"]),
            "invalid_redirect_uri",
        ),
        (
            "redirect_uris",
            json!(["http://127.0.0.1/"]),
            "invalid_redirect_uri",
        ),
        ("redirect_uris", json!([]), "invalid_redirect_uri"),
        (
            "redirect_uris",
            json!("https://app.example.com/cb"),
            "invalid_client_metadata",
        ),
        (
            "client_uri",
            json!("http://app.example.com/"),
            "invalid_client_metadata",
        ),
        ("client_name", json!("a\u{202e}b"), "invalid_client_metadata"),
        (
            "token_endpoint_auth_method",
            json!("client_secret_post"),
            "invalid_client_metadata",
        ),
        (
            "client_name",
            json!("x".repeat(40_000)),
            "invalid_client_metadata",
        ),
    ] {
        let mut said = metadata("App");
        said[name] = value;
        refused(&register(&place.listening.api, said).await, 400, error);
    }
}

async fn what_is_wrong_is_told_where_it_can_be(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let mut browser = place.browser();
    let plain = application.verifier.clone();
    for (changes, error) in [
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_mode", "form_post")], "invalid_request"),
        (vec![("code_challenge", "")], "invalid_request"),
        (
            vec![("code_challenge_method", "plain"), ("code_challenge", &*plain)],
            "invalid_request",
        ),
        (vec![("code_challenge_method", "")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
        (vec![("scope", "")], "invalid_request"),
        (vec![("scope", "openid")], "invalid_scope"),
        (vec![("scope", "urn:matrix:client:api:*")], "invalid_scope"),
        (vec![("prompt", "none")], "interaction_required"),
    ] {
        let path = application.request("ABCDEFGHIJ", &changes);
        let told = browser.get(&path).await;
        assert_eq!(told.sent_to().0, application.redirect_uri, "{changes:?}");
        assert_eq!(told.answered("error"), error, "{changes:?}");
        assert_eq!(told.answered("state"), "a state & more");
        assert!(browser.cookie.is_none());
    }
}

async fn a_form_is_sent_by_who_was_shown_it(engine: Engine) {
    let place = Place::on(engine).await;
    let application = place.application().await;
    let path = application.request("ABCDEFGHIJ", &[]);
    let (mut browser, consent) = place.before_consent(&application, "ABCDEFGHIJ").await;
    let seal = consent.seal();
    let mut stranger = place.browser();
    let strange = stranger.get(&path).await.seal();
    let allow = |seal: &'static str| [("step", "allow"), ("seal", seal)];
    let strange: &'static str = strange.leak();
    let seal: &'static str = seal.leak();
    let cross_site = [("sec-fetch-site", "cross-site")];
    for (fields, headers) in [
        (&allow(strange)[..], &[][..]),
        (&allow("")[..], &[]),
        (&allow("nonsense")[..], &[]),
        (&[("step", "allow")][..], &[]),
        (&allow(seal)[..], &cross_site[..]),
    ] {
        let answer = browser.post(&path, fields, headers).await;
        assert_eq!(answer.status, 403, "{fields:?} {}", answer.text);
    }
    let mut without = Browser::new(&place.listening.api);
    assert_eq!(without.post(&path, &allow(seal), &[]).await.status, 403);
    assert_eq!(stranger.post(&path, &allow(seal), &[]).await.status, 403);
    // Who has no session is asked to sign in, whatever the form says.
    let asked = stranger.post(&path, &allow(strange), &[]).await;
    assert!(
        asked.status == 200 && asked.says("value=\"sign_in\""),
        "{}",
        asked.text
    );
    for path in ["/account", "/oauth/device"] {
        assert_eq!(browser.post(path, &[("step", "sign_out")], &[]).await.status, 403);
    }
    let same_origin = [("sec-fetch-site", "same-origin")];
    browser
        .post(&path, &allow(seal), &same_origin)
        .await
        .answered("code");
    // A cookie that somebody planted before is none afterwards.
    let mut victim = place.browser();
    let page = victim.get(&path).await;
    let planted = victim.clone();
    victim
        .sign_in(&path, &page, "alice", &place.alice.password)
        .await
        .sent_to();
    let mut planted = planted;
    let shown = planted.get(&path).await;
    assert!(shown.says("value=\"sign_in\""), "{}", shown.text);
}

async fn what_applications_say_is_shown_as_text(engine: Engine) {
    let place = Place::on(engine).await;
    let evil = "<script>alert('x')</script>\"'><img src=x onerror=y>{{ seal }}";
    let application = Application::register(&place.listening.api, evil).await;
    let (mut browser, consent) = place.before_consent(&application, "ABCDEFGHIJ").await;
    let hint = ("login_hint", "\"><script>alert(2)</script>");
    let prompts = [("prompt", "login"), ("prompt", "create")];
    let mut shown = vec![consent];
    for prompt in prompts {
        let state = ("state", "\"><script>alert(3)</script>");
        shown.push(
            browser
                .get(&application.request("ABCDEFGHIJ", &[hint, prompt, state]))
                .await,
        );
    }
    let strange = application.request("ABCDEFGHIJ", &[("client_id", "<script>alert(4)</script>")]);
    shown.push(browser.get(&strange).await);
    let view = "/account?action=%3Cscript%3E&device_id=%22%3E%3Cscript%3E&done=%3Cscript%3E";
    shown.push(browser.get(view).await);
    for page in shown {
        for never in ["<script", "<img", "alert('"] {
            assert!(!page.text.contains(never), "{never} in {}", page.text);
        }
    }
    let mut odd = metadata("App");
    odd["tos_uri"] = json!("https://app.example.com/\"onclick=x");
    refused(
        &register(&place.listening.api, odd).await,
        400,
        "invalid_client_metadata",
    );
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

/// Nothing that is sent makes the server fail.
async fn whatever_is_sent_is_answered(engine: Engine) {
    let place = Place::on(engine).await;
    let api = &place.listening.api;
    let long = "a=b&".repeat(100);
    let large = format!("a={}", "x".repeat(3 << 20));
    let bodies: [&[u8]; 11] = [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"a=%00",
        b"a=1&a=2",
        b"%FF=%C3%28",
        b"=&&=&%",
        long.as_bytes(),
        large.as_bytes(),
    ];
    let kinds = [
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/json",
        "text/plain",
    ];
    for path in [
        "/oauth/register",
        "/oauth/token",
        "/oauth/revoke",
        "/oauth/device_authorization",
        "/oauth/authorize",
        "/oauth/device",
        "/account",
    ] {
        for body in bodies {
            for kind in kinds {
                let reply = send(api, path, kind, body).await;
                assert!(reply.is_client_error(), "{path} {kind} {}: {reply}", body.len());
            }
        }
    }
    let long = "x".repeat(10_000);
    for path in ["/oauth/authorize", "/oauth/device", "/account"] {
        for query in ["a=%00", "a=1&a=2", "%FF", "user_code=%F0%9F%A6%8A", "&&&", &*long] {
            let reply = api
                .request(Method::GET, &format!("{path}?{query}"), None, None)
                .await;
            let is_page = reply.headers["content-type"] == "text/html; charset=utf-8";
            assert!(
                reply.status.as_u16() < 500 && is_page,
                "{path}?{query}: {}",
                reply.status
            );
        }
    }
    let unknown: Value = api.request(Method::PUT, "/oauth/token", None, None).await.json;
    assert_eq!(unknown["errcode"], "M_UNRECOGNIZED");
}

async fn send(api: &Api, path: &str, kind: &str, body: &[u8]) -> http::StatusCode {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, kind)
        .body(Bytes::copy_from_slice(body))
        .unwrap();
    api.send(request).await.unwrap().status
}
