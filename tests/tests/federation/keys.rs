//! End-to-end encryption across servers: keys are found and claimed, messages to devices arrive once.

use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestServer, User, federate, for_both_engines, reunite};
use serde_json::{Value, json};

use super::{room_across, until};

for_both_engines!(keys_cross, messages_arrive_once);

fn device_keys(user: &User, key: &str) -> Value {
    let name = |kind: &str| format!("{kind}:{}", user.device);
    json!({
        "user_id": user.id, "device_id": user.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { name("ed25519"): key, name("curve25519"): "curve" },
        "signatures": { user.id.clone(): { name("ed25519"): "signature" } },
    })
}

async fn upload(user: &User, key: &str) {
    user.post("keys/upload", json!({ "device_keys": device_keys(user, key) }))
        .await
        .ok();
}

async fn query(asker: &User, about: &User) -> Value {
    let asked = json!({ "device_keys": { about.id.clone(): [] } });
    asker.post("keys/query", asked).await.ok()
}

fn devices_of(user: &User, found: &Value) -> usize {
    let devices = found["device_keys"][&user.id].as_object();
    devices.map_or(0, serde_json::Map::len)
}

async fn claim(asker: &User, of: &User) -> Value {
    let claim = json!({ "one_time_keys": { of.id.clone(): { of.device.clone(): "signed_curve25519" } } });
    asker.post("keys/claim", claim).await.ok()
}

/// Waits until a sync of the user says that somebody's devices changed; the token after it.
async fn hears_of_devices(user: &User, since: &str, whose: &User) -> String {
    until(user, since, |synced| {
        let changed = synced["device_lists"]["changed"].as_array();
        changed.is_some_and(|changed| changed.contains(&json!(whose.id)))
    })
    .await
}

/// Messages to the user's device since a token, until there are as many as expected and the log has nothing more.
async fn messages(user: &User, since: &str, expected: usize) -> Vec<Value> {
    let (mut since, mut heard) = (since.to_owned(), Vec::new());
    for _ in 0..30 {
        let synced = match heard.len() {
            enough if enough >= expected => user.sync(Some(&since)).await,
            _ => user.wait(&since).await,
        };
        let events = synced.0["to_device"]["events"].as_array().cloned();
        since = synced.next();
        match events {
            Some(events) => heard.extend(events),
            None if heard.len() >= expected => return heard,
            None => {}
        }
    }
    panic!("only {} messages came: {heard:?}", heard.len());
}

async fn send(from: &User, to: &User, device: &str, n: u64) {
    let path = format!("sendToDevice/org.example.hello/{}", from.transaction());
    let messages = json!({ "messages": { to.id.clone(): { device: { "n": n } } } });
    from.put(&path, messages).await.ok();
}

async fn keys_cross(engine: Engine) {
    let (a, b) = (
        TestServer::start_on(engine).await,
        TestServer::start_on(engine).await,
    );
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mallory = b.user("mallory").await;
    upload(&alice, "first").await;
    let room = room_across(&alice, &a, &[&bob]).await;
    let found = query(&bob, &alice).await;
    assert_eq!(
        found["device_keys"][&alice.id][&alice.device]["keys"],
        device_keys(&alice, "first")["keys"]
    );
    assert_eq!(found["failures"], Value::Null);
    assert_eq!(query(&mallory, &alice).await["device_keys"][&alice.id], json!({}));

    // The other way round as well: the server of the guest knows whom it shares the room with.
    upload(&bob, "guest").await;
    let found = query(&alice, &bob).await;
    assert_eq!(
        found["device_keys"][&bob.id][&bob.device]["keys"],
        device_keys(&bob, "guest")["keys"]
    );

    // A second device is told of, and is there when it is asked for.
    let since = bob.sync(None).await.next();
    let phone = alice.second_device().await;
    upload(&phone, "second").await;
    let since = hears_of_devices(&bob, &since, &alice).await;
    let found = query(&bob, &alice).await;
    assert_eq!(found["device_keys"][&alice.id].as_object().unwrap().len(), 2);

    // Each one-time key goes out once.
    let key = |text: &str| json!({ "key": text, "signatures": {} });
    let keys = json!({ "one_time_keys": {
        "signed_curve25519:AAAAAQ": key("one"), "signed_curve25519:AAAAAg": key("two"),
    } });
    alice.post("keys/upload", keys.clone()).await.ok();
    let mut given = Vec::new();
    for _ in 0..2 {
        let claimed = claim(&bob, &alice).await;
        assert_eq!(claimed["failures"], Value::Null);
        given.push(claimed["one_time_keys"][&alice.id][&alice.device].clone());
    }
    assert_ne!(given[0], given[1]);
    for key in &given {
        let (id, key) = key.as_object().unwrap().iter().next().unwrap();
        assert_eq!(&keys["one_time_keys"][id], key);
    }
    assert_eq!(claim(&bob, &alice).await["one_time_keys"], json!({}));
    assert_eq!(claim(&mallory, &alice).await["one_time_keys"], json!({}));

    // Who shares no room any more is told so, and knows nothing of new devices.
    alice.leave(&room).await;
    let to = until(&bob, &since, |synced| {
        synced["device_lists"]["left"] == json!([alice.id])
    })
    .await;
    let changes = format!("keys/changes?from={}&to={}", encode(&since), encode(&to));
    assert_eq!(bob.get(&changes).await.ok()["left"], json!([alice.id]));
    assert_eq!(query(&bob, &alice).await["device_keys"][&alice.id], json!({}));
}

fn cross_signing(user: &User) -> Value {
    let master = format!("{}master", user.name);
    let key = |usage: &str, key: &str| {
        json!({
            "user_id": user.id, "usage": [usage], "keys": { format!("ed25519:{key}"): key },
            "signatures": { user.id.clone(): { format!("ed25519:{master}"): "signature" } },
        })
    };
    json!({
        "master_key": key("master", &master), "self_signing_key": key("self_signing", "self"),
        "user_signing_key": key("user_signing", "user"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_signing_keys_and_signatures_cross() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    upload(&alice, "key").await;
    room_across(&alice, &a, &[&bob]).await;
    query(&bob, &alice).await;
    let since = bob.sync(None).await.next();
    for user in [&alice, &bob] {
        let path = "keys/device_signing/upload";
        user.post(path, cross_signing(user)).await.ok();
    }
    let since = hears_of_devices(&bob, &since, &alice).await;
    let master = query(&bob, &alice).await["master_keys"][&alice.id].clone();
    assert_eq!(master["keys"], json!({ "ed25519:alicemaster": "alicemaster" }));

    // Alice signs her device: Bob is told and sees it.
    let mut device = device_keys(&alice, "key");
    device["signatures"] = json!({ alice.id.clone(): { "ed25519:self": "mine" } });
    let signed = json!({ alice.id.clone(): { alice.device.clone(): device } });
    assert_eq!(alice.post("keys/signatures/upload", signed).await.ok(), json!({}));
    hears_of_devices(&bob, &since, &alice).await;
    let found = query(&bob, &alice).await;
    let signatures = &found["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
    assert_eq!(signatures["ed25519:self"], "mine");
    assert_eq!(
        found["user_signing_keys"],
        Value::Null,
        "that key is nobody else's business"
    );

    // Bob trusts Alice: he sees his signature, and she does not.
    let mut trusted = master;
    trusted["signatures"] = json!({ bob.id.clone(): { "ed25519:user": "trust" } });
    let signed = json!({ alice.id.clone(): { "alicemaster": trusted } });
    assert_eq!(bob.post("keys/signatures/upload", signed).await.ok(), json!({}));
    let trust = |found: &Value| found["master_keys"][&alice.id]["signatures"][&bob.id].clone();
    assert_eq!(trust(&query(&bob, &alice).await)["ed25519:user"], "trust");
    assert_eq!(trust(&query(&alice, &alice).await), Value::Null);
}

async fn messages_arrive_once(engine: Engine) {
    let (a, b) = (
        TestServer::start_on(engine).await,
        TestServer::start_on(engine).await,
    );
    let addresses = federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let phone = bob.second_device().await;
    room_across(&alice, &a, &[&bob]).await;
    let (since, since_phone) = (bob.sync(None).await.next(), phone.sync(None).await.next());
    send(&alice, &bob, &bob.device, 1).await;
    send(&alice, &bob, "*", 2).await;
    send(&alice, &bob, "NONE", 3).await;
    let message = |n: u64| json!({ "type": "org.example.hello", "sender": alice.id, "content": { "n": n } });
    assert_eq!(messages(&bob, &since, 2).await, [message(1), message(2)]);
    assert_eq!(messages(&phone, &since_phone, 1).await, [message(2)]);

    // While the other server is down, messages wait; and a key query says that it could not be asked.
    let since = bob.sync(Some(&since)).await.next();
    let b = b.restart().await;
    for n in 4..7 {
        send(&alice, &bob, &bob.device, n).await;
    }
    let kept = a.data().number("SELECT COUNT(*) FROM peer_messages").await;
    assert!(kept >= 3, "{kept} messages are kept");
    reunite(&b, &a, addresses[0]).await;
    let bob = bob.on(b.api());
    assert_eq!(
        messages(&bob, &since, 3).await,
        [message(4), message(5), message(6)]
    );

    // What has arrived is kept no longer.
    a.data().comes_to(0, "SELECT COUNT(*) FROM peer_messages").await;
    let queued = "SELECT CAST(COALESCE(SUM(messages), 0) AS BIGINT) FROM peer_waiting";
    assert_eq!(a.data().number(queued).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_no_room_was_shared_is_not_missed() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    upload(&alice, "first").await;
    let room = room_across(&alice, &a, &[&bob]).await;
    assert_eq!(devices_of(&alice, &query(&bob, &alice).await), 1);
    let since = alice.sync(None).await.next();
    bob.leave(&room).await;
    until(&alice, &since, |synced| {
        synced["device_lists"]["left"] == json!([bob.id])
    })
    .await;
    let phone = alice.second_device().await;
    upload(&phone, "second").await;
    bob.join(&room).await;
    // Until the other server has seen the join, it says nothing of Alice, and that is not taken for an answer.
    look_for("the second device", async || {
        let found = query(&bob, &alice).await;
        let is_there = devices_of(&alice, &found) == 2;
        is_there.then_some(()).ok_or(found.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_a_failure_and_its_keys_are_still_known() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    upload(&alice, "key").await;
    room_across(&alice, &a, &[&bob]).await;
    query(&bob, &alice).await;
    // Bob's server hears that something changed, and then cannot ask what.
    let since = bob.sync(None).await.next();
    let phone = alice.second_device().await;
    upload(&phone, "second").await;
    hears_of_devices(&bob, &since, &alice).await;
    let name = a.name().to_owned();
    a.parts().peers.stop().await;
    let found = query(&bob, &alice).await;
    assert_eq!(found["failures"], json!({ name.clone(): {} }));
    assert_eq!(
        found["device_keys"][&alice.id].as_object().unwrap().len(),
        1,
        "what it said last"
    );
    assert_eq!(claim(&bob, &alice).await["failures"], json!({ name: {} }));
}
