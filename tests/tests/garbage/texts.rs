//! Every value in every request that clients really make, replaced by what no client should send: NUL in every kind of
//! text, over-long texts, wrong types, huge numbers, deep nesting. The requests are the seeds of the fuzzer.

use std::path::Path;

use maru_tests::fuzz::Known;
use maru_tests::{TestServer, on_both_engines};
use serde_json::{Value, json};

use super::none;

on_both_engines!(
    no_value_of_any_request_makes_the_server_fail,
    a_nul_is_refused_or_kept_whole,
    a_body_is_text_in_utf_8,
    what_is_kept_as_it_came_obeys_the_rules_of_events,
);

/// Where a replacement goes.
const HERE: &str = "@here@";

/// The seeds of the fuzzer for whole requests.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/requests");
    let mut seeds: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    seeds.sort_unstable();
    seeds
}

/// The JSON with one of its values, or the name of a member, marked to be replaced: all such variants.
fn marked(json: &Value) -> Vec<String> {
    fn pointers(json: &Value, at: &str, found: &mut Vec<String>) {
        let mut inside = |name: &str, value: &Value| {
            let name = name.replace('~', "~0").replace('/', "~1");
            pointers(value, &format!("{at}/{name}"), found);
        };
        match json {
            Value::Object(members) => members.iter().for_each(|(name, value)| inside(name, value)),
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    inside(&index.to_string(), value);
                }
            }
            _ => {}
        }
        found.push(at.to_owned());
    }
    let mut all = Vec::new();
    pointers(json, "", &mut all);
    let mut variants = Vec::new();
    for pointer in all.iter().filter(|pointer| !pointer.is_empty()) {
        let mut variant = json.clone();
        *variant.pointer_mut(pointer).unwrap() = json!(HERE);
        variants.push(variant.to_string());
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut variant = json.clone();
        if let Some(members) = variant.pointer_mut(parent).unwrap().as_object_mut() {
            let name = name.replace("~1", "/").replace("~0", "~");
            let value = members.remove(&name).unwrap();
            members.insert(HERE.to_owned(), value);
            variants.push(variant.to_string());
        }
    }
    variants
}

async fn no_value_of_any_request_makes_the_server_fail(server: TestServer) {
    let known = Known::on(&server).await;
    let (long, deep) = (
        "x".repeat(70_000),
        format!("{}{}", "[".repeat(500), "]".repeat(500)),
    );
    let texts = ["\\u0000", "a\\u0000b", "", "@a\\u0000:x", "!\\u0000:x", &long];
    let others = [
        "null",
        "[]",
        "{}",
        "true",
        "-1",
        "1e999",
        "0.5",
        "9223372036854775808",
        &deep,
    ];
    let mut findings = Vec::new();
    for (name, seed) in seeds() {
        let seed = String::from_utf8(seed).unwrap();
        let Some((line, body)) = seed.split_once('\n') else {
            continue;
        };
        let Ok(json) = serde_json::from_str::<Value>(body) else {
            continue;
        };
        for variant in marked(&json) {
            let quoted = format!("\"{HERE}\"");
            let as_text = texts.map(|text| variant.replace(HERE, text));
            let as_value = others.map(|other| variant.replace(&quoted, other));
            for body in as_text.into_iter().chain(as_value) {
                let input = format!("{line}\n{body}");
                let Some(request) = known.request(input.as_bytes()) else {
                    continue;
                };
                let reply = known.alice.api.send(request).await.unwrap();
                let shown = || body.chars().take(200).collect::<String>();
                findings.extend(super::complaint(&reply).map(|what| format!("{name}: {}: {what}", shown())));
            }
        }
    }
    none(&findings);
    // Other people's sessions are as they were, whatever became of this one's password and rooms.
    let eve = server.user("eve").await;
    let room = eve.create_room(json!({})).await;
    eve.send(&room, "still here").await;
}

async fn a_body_is_text_in_utf_8(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let send = format!("rooms/{}/send/m.room.message/1", maru_tests::user::encode(&room));
    let typing = format!("rooms/{}/typing/{}", maru_tests::user::encode(&room), alice.id);
    for (method, path) in [
        (http::Method::PUT, &*send),
        (http::Method::PUT, &*typing),
        (http::Method::POST, "login"),
        (http::Method::POST, "register"),
        (http::Method::POST, "createRoom"),
        (http::Method::POST, "keys/device_signing/upload"),
    ] {
        let body: &[u8] = b"{\"body\":\"\xff\xfe\",\"type\":\"m.login.password\",\"typing\":true}";
        let sent = alice
            .api
            .try_request(method, path, Some(&alice.token), Some(body.into()));
        sent.await.unwrap().refused(400, "M_NOT_JSON");
    }
}

async fn what_is_kept_as_it_came_obeys_the_rules_of_events(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let (id, device) = (&alice.id, &alice.device);
    let keeping = [
        (
            "PUT",
            format!("user/{id}/account_data/a"),
            "{\"a\":@here@}".to_owned(),
        ),
        (
            "PUT",
            format!("user/{id}/rooms/{room}/account_data/a"),
            "{\"a\":@here@}".to_owned(),
        ),
        (
            "PUT",
            format!("user/{id}/rooms/{room}/tags/a"),
            "{\"order\":0.5,\"a\":@here@}".to_owned(),
        ),
        (
            "PUT",
            "sendToDevice/a/1".to_owned(),
            format!("{{\"messages\":{{\"{id}\":{{\"{device}\":{{\"a\":@here@}}}}}}}}"),
        ),
        (
            "PUT",
            format!("profile/{id}/org.example.a"),
            "{\"org.example.a\":@here@}".to_owned(),
        ),
        ("POST", format!("user/{id}/filter"), "{\"a\":@here@}".to_owned()),
        (
            "PUT",
            "pushrules/global/override/a".to_owned(),
            "{\"actions\":[{\"set_tweak\":\"a\",\"value\":@here@}],\"conditions\":[]}".to_owned(),
        ),
        (
            "POST",
            "keys/upload".to_owned(),
            "{\"one_time_keys\":{\"signed_curve25519:a\":{\"key\":\"a\",\"a\":@here@}}}".to_owned(),
        ),
        (
            "POST",
            "keys/device_signing/upload".to_owned(),
            "{\"master_key\":{\"a\":@here@}}".to_owned(),
        ),
        (
            "POST",
            "keys/signatures/upload".to_owned(),
            format!("{{\"{id}\":{{\"a\":@here@}}}}"),
        ),
        (
            "POST",
            format!("rooms/{room}/receipt/m.read/$a"),
            "{\"a\":@here@}".to_owned(),
        ),
        (
            "PUT",
            format!("devices/{device}"),
            "{\"display_name\":\"a\",\"a\":@here@}".to_owned(),
        ),
        (
            "POST",
            "createRoom".to_owned(),
            "{\"initial_state\":[],\"a\":@here@}".to_owned(),
        ),
    ];
    let deep = "[".repeat(50_000) + &"]".repeat(50_000);
    let odd = [
        (&*deep, "M_BAD_JSON"),
        ("{\"b\":1,\"b\":2}", "M_BAD_JSON"),
        ("{\"b\":1,\"\\u0062\":2}", "M_BAD_JSON"),
        ("9007199254740992", "M_BAD_JSON"),
        ("1e999", "M_NOT_JSON"),
        ("\"\\ud800\"", "M_NOT_JSON"),
    ];
    for (method, path, body) in &keeping {
        for (value, errcode) in odd {
            let body = body.replace(HERE, value).into();
            let method = method.parse().unwrap();
            let reply = alice
                .api
                .try_request(method, path, Some(&alice.token), Some(body));
            reply.await.unwrap().refused(400, errcode);
        }
    }
    let path = format!("user/{id}/account_data/a");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    let kept = json!({ "order": 0.25, "nul": "a\u{0}b", "pair": "\u{1f600}" });
    alice.put(&path, kept.clone()).await.ok();
    assert_eq!(alice.get(&path).await.ok(), kept);
}

async fn a_nul_is_refused_or_kept_whole(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "name": "a\0b" })).await;
    let event = alice.send(&room, "a\0b").await;
    let kept = alice
        .get(&format!(
            "rooms/{room}/event/{}",
            maru_tests::user::encode(&event)
        ))
        .await
        .ok();
    assert_eq!(kept["content"]["body"], "a\0b");
    let register =
        json!({ "username": "a\0b", "password": "long enough", "auth": { "type": "m.login.dummy" } });
    server
        .request(http::Method::POST, "register", Some(register))
        .await
        .refused(400, "M_INVALID_USERNAME");
    for (path, body) in [
        ("createRoom", json!({ "room_alias_name": "a\0b" })),
        (
            "createRoom",
            json!({ "initial_state": [{ "type": "a\0b", "content": {} }] }),
        ),
        (
            "createRoom",
            json!({ "initial_state": [{ "type": "a.b", "state_key": "\0", "content": {} }] }),
        ),
        ("keys/query", json!({ "device_keys": { (&*alice.id): ["a\0b"] } })),
    ] {
        let reply = alice.post(path, body.clone()).await;
        let errcode = reply.json["errcode"].as_str().unwrap_or_default().to_owned();
        let is_refused = reply.status == 400 && ["M_INVALID_PARAM", "M_BAD_JSON"].contains(&&*errcode);
        let is_passed_over = path == "keys/query" && reply.status == 200;
        assert!(
            is_refused || is_passed_over,
            "{path} {body}: {} {}",
            reply.status,
            reply.json
        );
    }
}
