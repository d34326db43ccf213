//! What browsers are sent to and send: forms that somebody else has made, addresses that lead elsewhere, text that is no text.

use bytes::Bytes;
use http::{Method, Request, header};
use maru_tests::{Api, Engine, for_both_engines};
use serde_json::{Value, json};

use super::Place;
use super::browser::{Application, Browser, metadata, refused, register};

for_both_engines!(
    nobody_is_sent_anywhere_but_to_what_was_registered,
    what_is_wrong_is_told_where_it_can_be,
    a_form_is_sent_by_who_was_shown_it,
    what_applications_say_is_shown_as_text,
    whatever_is_sent_is_answered,
);

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
            json!("x".repeat(20_000)),
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

/// Nothing that is sent makes the server fail.
async fn whatever_is_sent_is_answered(engine: Engine) {
    let place = Place::on(engine).await;
    let api = &place.listening.api;
    let long = "a=b&".repeat(100);
    let large = format!("a={}", "x".repeat(100_000));
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
                // Of what is too large not all is read before the answer, which the client may not come to read, and the
                // connection is closed.
                let is_large = body.len() > 32 * 1024;
                let own = Api::http(&place.listening.base);
                let through = if is_large { &own } else { api };
                let reply = send(through, path, kind, body).await;
                let is_refused = reply.map_or(is_large, |status| status.is_client_error());
                assert!(is_refused, "{path} {kind} {}: {reply:?}", body.len());
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

async fn send(api: &Api, path: &str, kind: &str, body: &[u8]) -> Option<http::StatusCode> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, kind)
        .body(Bytes::copy_from_slice(body))
        .unwrap();
    api.send(request).await.ok().map(|reply| reply.status)
}
