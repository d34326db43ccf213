//! Keys of end-to-end encryption and messages to devices.

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

use super::room_of;

on_both_engines!(
    device_keys_are_for_those_who_share_a_room,
    who_shares_no_room_any_more_is_told,
    an_identity_is_for_life,
    a_one_time_key_goes_out_once,
    cross_signing_keys_are_replaced_by_their_user_alone,
    of_first_cross_signing_keys_at_once_one_is_taken,
    signatures_reach_who_may_see_them,
    who_sees_no_change_of_keys_is_not_told_of_one,
    messages_to_devices_arrive_once,
    a_flood_of_messages_is_refused_and_pushes_out_nobody_else,
);

fn device_keys(user: &User, key: &str) -> Value {
    let name = |kind: &str| format!("{kind}:{}", user.device);
    json!({
        "user_id": user.id, "device_id": user.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { name("ed25519"): key, name("curve25519"): "curve" },
        "signatures": { user.id.clone(): { name("ed25519"): "signature" } },
    })
}

async fn upload(user: &User, key: &str) -> Value {
    user.post("keys/upload", json!({ "device_keys": device_keys(user, key) }))
        .await
        .ok()
}

async fn query(asker: &User, about: &User) -> Value {
    let asked = json!({ "device_keys": { about.id.clone(): [] } });
    asker.post("keys/query", asked).await.ok()
}

async fn device_keys_are_for_those_who_share_a_room(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    room_of(&[&alice, &bob]).await;
    let mallory = server.user("mallory").await;
    let since = bob.sync(None).await.next();
    upload(&alice, "key").await;
    let synced = bob.wait(&since).await;
    assert_eq!(synced.0["device_lists"]["changed"], json!([alice.id]));
    let changes = format!(
        "keys/changes?from={}&to={}",
        encode(&since),
        encode(&synced.next())
    );
    assert_eq!(
        bob.get(&changes).await.ok(),
        json!({ "changed": [alice.id], "left": [] })
    );
    for asker in [&alice, &bob] {
        let keys = &query(asker, &alice).await["device_keys"][&alice.id][&alice.device];
        assert_eq!(keys["keys"], device_keys(&alice, "key")["keys"]);
    }
    assert_eq!(query(&mallory, &alice).await["device_keys"][&alice.id], json!({}));
}

async fn who_shares_no_room_any_more_is_told(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = room_of(&[&alice, &bob, &carol]).await;
    room_of(&[&alice, &carol]).await;
    let since = alice.sync(None).await.next();
    let left = async |from: &str, to: &str| {
        let changes = format!("keys/changes?from={}&to={}", encode(from), encode(to));
        alice.get(&changes).await.ok()["left"].clone()
    };
    bob.leave(&room).await;
    let synced = alice.wait(&since).await;
    assert_eq!(synced.0["device_lists"]["left"], json!([bob.id]));
    assert_eq!(left(&since, &synced.next()).await, json!([bob.id]));
    // One's own leaving ends it too, but not with those who are in another room.
    bob.join(&room).await;
    let since = alice.sync(None).await.next();
    alice.leave(&room).await;
    let synced = alice.wait(&since).await;
    assert_eq!(synced.0["device_lists"]["left"], json!([bob.id]));
    assert_eq!(left(&since, &synced.next()).await, json!([bob.id]));
}

async fn an_identity_is_for_life(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    upload(&alice, "key").await;
    upload(&alice, "key").await;
    for keys in [device_keys(&alice, "other"), device_keys(&bob, "key")] {
        let refused = alice.post("keys/upload", json!({ "device_keys": keys })).await;
        refused.refused(400, "M_INVALID_PARAM");
    }
    let unsigned = json!({ "device_keys": {
        "user_id": alice.id, "device_id": alice.device, "algorithms": [],
        "keys": { format!("ed25519:{}", alice.device): "key" }, "signatures": {},
    } });
    alice
        .post("keys/upload", unsigned)
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn claim(asker: &User, of: &User) -> Value {
    let claim = json!({ "one_time_keys": { of.id.clone(): { of.device.clone(): "signed_curve25519" } } });
    let reply = asker.post("keys/claim", claim).await.ok();
    reply["one_time_keys"][&of.id][&of.device].clone()
}

async fn a_one_time_key_goes_out_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    room_of(&[&alice, &bob]).await;
    let key = |text: &str| json!({ "key": text, "signatures": {} });
    let keys = json!({ "signed_curve25519:AAAAAQ": key("one"), "signed_curve25519:AAAAAg": key("two") });
    let fallback =
        json!({ "signed_curve25519:AAAAZZ": { "key": "last", "fallback": true, "signatures": {} } });
    let both = json!({ "one_time_keys": keys, "fallback_keys": fallback });
    let counts = alice.post("keys/upload", both.clone()).await.ok();
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 2);
    let synced = alice.sync(None).await.0;
    assert_eq!(synced["device_one_time_keys_count"]["signed_curve25519"], 2);
    assert_eq!(
        synced["device_unused_fallback_key_types"],
        json!(["signed_curve25519"])
    );
    let (one, two) = tokio::join!(claim(&bob, &alice), claim(&bob, &alice));
    assert_ne!(one, two);
    for claimed in [&one, &two] {
        assert!(
            keys.as_object()
                .unwrap()
                .iter()
                .any(|(id, key)| *claimed == json!({ id.clone(): key }))
        );
    }
    assert_eq!(claim(&bob, &alice).await, fallback);
    assert_eq!(
        claim(&bob, &alice).await,
        fallback,
        "the fallback key goes out again and again"
    );
    let synced = alice.sync(None).await.0;
    assert_eq!(synced["device_one_time_keys_count"]["signed_curve25519"], 0);
    assert_eq!(synced["device_unused_fallback_key_types"], json!([]));
    // A device that never heard that its upload arrived sends it again: the keys are gone nevertheless.
    let counts = alice.post("keys/upload", both).await.ok();
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 0);
    let mallory = server.user("mallory").await;
    assert_eq!(claim(&mallory, &alice).await, Value::Null);
}

fn cross_signing(user: &User, master: &str) -> Value {
    let key = |usage: &str, key: &str| {
        json!({
            "user_id": user.id, "usage": [usage], "keys": { format!("ed25519:{key}"): key },
            "signatures": { user.id.clone(): { format!("ed25519:{master}"): "signature" } },
        })
    };
    json!({
        "master_key": key("master", master), "self_signing_key": key("self_signing", "self"),
        "user_signing_key": key("user_signing", "user"),
    })
}

async fn of_first_cross_signing_keys_at_once_one_is_taken(server: TestServer) {
    let alice = server.user("alice").await;
    let uploads = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| {
        let alice = alice.clone();
        async move {
            let keys = cross_signing(&alice, key);
            (key, alice.post("keys/device_signing/upload", keys).await)
        }
    });
    let replies = futures_util::future::join_all(uploads).await;
    let taken: Vec<_> = replies.iter().filter(|(_, reply)| reply.status == 200).collect();
    assert_eq!(taken.len(), 1, "the others must prove to be there");
    for (_, reply) in replies.iter().filter(|(_, reply)| reply.status != 200) {
        assert!([401, 403].contains(&reply.status.as_u16()), "{reply:?}");
    }
    let known = &query(&alice, &alice).await["master_keys"][&alice.id]["keys"];
    assert_eq!(*known, cross_signing(&alice, taken[0].0)["master_key"]["keys"]);
}

async fn cross_signing_keys_are_replaced_by_their_user_alone(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    room_of(&[&alice, &bob]).await;
    let path = "keys/device_signing/upload";
    alice.post(path, cross_signing(&alice, "first")).await.ok();
    alice.post(path, cross_signing(&alice, "first")).await.ok();
    let mut second = cross_signing(&alice, "second");
    let asked = alice.post(path, second.clone()).await;
    assert_eq!(asked.status, 401);
    second["auth"] = json!({
        "type": "m.login.password", "password": alice.password, "session": asked.json["session"],
        "identifier": { "type": "m.id.user", "user": alice.name },
    });
    alice.post(path, second).await.ok();
    let mut second = cross_signing(&alice, "second");
    second["self_signing_key"]["keys"] = json!({ "ed25519:other": "other" });
    second["auth"] = json!({ "type": "m.login.password", "user": alice.name, "password": alice.password });
    alice.post(path, second).await.ok();
    let seen = query(&bob, &alice).await;
    assert_eq!(
        seen["master_keys"][&alice.id]["keys"],
        json!({ "ed25519:second": "second" })
    );
    assert_eq!(
        seen["user_signing_keys"][&alice.id],
        Value::Null,
        "that key is nobody else's business"
    );
    let own = query(&alice, &alice).await;
    assert_eq!(
        own["user_signing_keys"][&alice.id]["usage"],
        json!(["user_signing"])
    );
    bob.post(path, cross_signing(&alice, "mine"))
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn signatures_reach_who_may_see_them(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let carol = server.user("carol").await;
    room_of(&[&alice, &bob, &carol]).await;
    upload(&alice, "key").await;
    for user in [&alice, &bob] {
        user.post("keys/device_signing/upload", cross_signing(user, &user.name))
            .await
            .ok();
    }
    let mut device = device_keys(&alice, "key");
    device["signatures"] = json!({ alice.id.clone(): { "ed25519:self": "mine" } });
    let signed = json!({ alice.id.clone(): { alice.device.clone(): device } });
    assert_eq!(alice.post("keys/signatures/upload", signed).await.ok(), json!({}));
    let mut master = cross_signing(&alice, &alice.name)["master_key"].clone();
    master["signatures"] = json!({ bob.id.clone(): { "ed25519:user": "trust" } });
    let signed = json!({ alice.id.clone(): { alice.name.clone(): master } });
    assert_eq!(
        bob.post("keys/signatures/upload", signed.clone()).await.ok(),
        json!({})
    );
    for (reader, sees) in [(&bob, true), (&carol, false)] {
        let found = query(reader, &alice).await;
        let device = &found["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
        assert_eq!(device["ed25519:self"], "mine");
        let trust = &found["master_keys"][&alice.id]["signatures"][&bob.id]["ed25519:user"];
        assert_eq!(trust == "trust", sees, "{found}");
    }
    let mut forged = signed;
    forged[&alice.id][&alice.name]["keys"] = json!({ "ed25519:other": "other" });
    let refused = bob.post("keys/signatures/upload", forged).await.ok();
    let failure = &refused["failures"][&alice.id][&alice.name];
    assert_eq!(failure["errcode"], "M_INVALID_SIGNATURE");
}

async fn who_sees_no_change_of_keys_is_not_told_of_one(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    room_of(&[&alice, &bob, &carol]).await;
    let upload = async |user: &User, keys: Value| {
        user.post("keys/device_signing/upload", keys).await.ok();
    };
    let mut keys = cross_signing(&alice, "alice");
    let user_signing = keys.as_object_mut().unwrap().remove("user_signing_key").unwrap();
    upload(&alice, keys.clone()).await;
    upload(&bob, cross_signing(&bob, "bob")).await;
    let phone = alice.second_device().await;
    let readers = [&phone, &bob, &carol];
    let mut since = Vec::new();
    for reader in readers {
        since.push(reader.sync(None).await.next());
    }
    let auth = json!({ "type": "m.login.password", "user": alice.name, "password": alice.password });
    upload(&alice, json!({ "user_signing_key": user_signing, "auth": auth })).await;
    let mut master = keys["master_key"].clone();
    master["signatures"] = json!({ bob.id.clone(): { "ed25519:user": "trust" } });
    let signed = json!({ alice.id.clone(): { "alice": master } });
    let done = bob.post("keys/signatures/upload", signed).await.ok();
    assert_eq!(done, json!({}));
    // From memory, and by the database.
    let server = {
        check_changed(&readers, &since, &alice.id).await;
        server.restart().await
    };
    let readers = readers.map(|reader| reader.on(server.api()));
    check_changed(&readers.each_ref(), &since, &alice.id).await;
}

/// The owner's other device and the signer hear of what they alone see, carol of nothing.
async fn check_changed(readers: &[&User; 3], since: &[String], owner: &str) {
    for (at, reader) in readers.iter().enumerate() {
        let synced = reader.sync(Some(&since[at])).await.0;
        let changed = &synced["device_lists"]["changed"];
        match at {
            2 => assert!(changed.is_null() || *changed == json!([]), "{synced}"),
            _ => assert_eq!(*changed, json!([owner]), "{}: {synced}", reader.name),
        }
    }
}

async fn a_flood_of_messages_is_refused_and_pushes_out_nobody_else(server: TestServer) {
    let [victim, stranger, friend] = [
        server.user("victim").await,
        server.user("stranger").await,
        server.user("friend").await,
    ];
    let send = async |from: &User, messages: Value| {
        let path = format!("sendToDevice/org.example.hello/{}", from.transaction());
        from.put(&path, json!({ "messages": messages })).await
    };
    let to = |user: &User, content: Value| json!({ (&*user.id): { (&*user.device): content } });
    let long = json!({ "text": "x".repeat(60_000) });
    let mut taken = 0;
    let refused = loop {
        let reply = send(&stranger, to(&victim, long.clone())).await;
        if reply.status != 200 {
            break reply;
        }
        assert_eq!(reply.json, json!({}));
        taken += 1;
    };
    assert!(
        (60..80).contains(&taken),
        "{taken} long messages of one sender wait"
    );
    refused.refused(429, "M_LIMIT_EXCEEDED");
    assert!(refused.json["retry_after_ms"].as_u64().unwrap() > 0);

    // Whoever does not read keeps the message from nobody else.
    let mut both = to(&victim, long.clone());
    both[&friend.id] = json!({ "*": long });
    let reply = send(&stranger, both).await.ok();
    assert_eq!(
        reply,
        json!({ "maru.refused": { (&*victim.id): [victim.device] } })
    );
    assert_eq!(
        friend.sync(None).await.0["to_device"]["events"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    assert_eq!(
        send(&friend, to(&victim, json!({ "genuine": true }))).await.ok(),
        json!({})
    );
    let synced = victim.sync(None).await;
    let events = synced.0["to_device"]["events"].as_array().unwrap();
    assert_eq!(events.len(), taken + 1);
    assert_eq!(events[taken]["content"], json!({ "genuine": true }));

    // Once they are taken there is room again.
    victim.sync(Some(&synced.next())).await;
    assert_eq!(send(&stranger, to(&victim, long)).await.ok(), json!({}));
    let counted = "SELECT CAST(SUM(messages) AS BIGINT) FROM to_device_waiting WHERE who = ''";
    assert_eq!(
        server.data().number(counted).await,
        2,
        "one for the victim, one for the friend"
    );
}

async fn messages_to_devices_arrive_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let phone = bob.second_device().await;
    let (since, since_phone) = (bob.sync(None).await.next(), phone.sync(None).await.next());
    let path = "sendToDevice/org.example.hello/t1";
    let to =
        json!({ "messages": { bob.id.clone(): { "*": { "n": 1 } }, "@nobody:example.org": { "*": {} } } });
    alice.put(path, to.clone()).await.ok();
    alice.put(path, to).await.ok();
    let one = json!({ "messages": { bob.id.clone(): { phone.device.clone(): { "n": 2 }, "NONE": {} } } });
    alice.put("sendToDevice/org.example.hello/t2", one).await.ok();
    // Another path is another request, whatever its transaction id.
    let other = json!({ "messages": { bob.id.clone(): { bob.device.clone(): { "n": 3 } } } });
    alice.put("sendToDevice/org.example.bye/t1", other).await.ok();
    let message = |n: u64| json!({ "type": "org.example.hello", "sender": alice.id, "content": { "n": n } });
    let synced = bob.sync(Some(&since)).await;
    let bye = json!({ "type": "org.example.bye", "sender": alice.id, "content": { "n": 3 } });
    assert_eq!(synced.0["to_device"]["events"], json!([message(1), bye]));
    let synced_phone = phone.sync(Some(&since_phone)).await;
    assert_eq!(
        synced_phone.0["to_device"]["events"],
        json!([message(1), message(2)])
    );
    let again = phone.sync(Some(&since_phone)).await;
    assert_eq!(
        again.0["to_device"]["events"],
        json!([message(1), message(2)]),
        "not acknowledged yet"
    );
    let after = phone.sync(Some(&synced_phone.next())).await;
    assert_eq!(after.0["to_device"], Value::Null);
}
