//! Messages to the device, device lists, account data, receipts and typing.

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

use super::{Connection, list, rooms};

on_both_engines!(
    messages_to_the_device_come_until_they_are_acknowledged,
    a_connection_without_rooms_is_told_whose_devices_change,
    account_data_comes_with_its_rooms,
    receipts_come_of_what_is_shown,
    who_types_is_told,
    extensions_may_be_wanted_of_some_rooms,
);

fn extension(name: &str, mut wanted: Value) -> Value {
    wanted["enabled"] = json!(true);
    json!({ "extensions": { name: wanted } })
}

async fn message(from: &User, to: &User, body: &str) {
    let path = format!("sendToDevice/org.example.note/{}", from.transaction());
    let messages = json!({ "messages": { to.id.as_str(): { to.device.as_str(): { "body": body } } } });
    from.put(&path, messages).await.ok();
}

fn notes(answer: &Value) -> Vec<&str> {
    let events = answer["extensions"]["to_device"]["events"].as_array();
    let bodies = events
        .into_iter()
        .flatten()
        .map(|event| event["content"]["body"].as_str().unwrap());
    bodies.collect()
}

async fn messages_to_the_device_come_until_they_are_acknowledged(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut phone = Connection::new(&alice, extension("to_device", json!({ "limit": 2 })));
    assert_eq!(notes(&phone.ask().await), Vec::<&str>::new());
    let waiting = tokio::spawn(async move {
        let answer = phone.wait().await;
        (phone, answer)
    });
    message(&bob, &alice, "1").await;
    let (mut phone, answer) = waiting.await.unwrap();
    assert_eq!(notes(&answer), ["1"]);
    // What is not acknowledged comes again; so does what came on another connection.
    assert_eq!(notes(&phone.ask().await), ["1"]);
    message(&bob, &alice, "2").await;
    message(&bob, &alice, "3").await;
    let first = phone.ask().await;
    assert_eq!(notes(&first), ["1", "2"]);
    let since = &first["extensions"]["to_device"]["next_batch"];
    phone.body = extension("to_device", json!({ "limit": 2, "since": since }));
    let second = phone.wait().await;
    assert_eq!(notes(&second), ["3"]);
    let since = &second["extensions"]["to_device"]["next_batch"];
    phone.body = extension("to_device", json!({ "since": since }));
    assert_eq!(notes(&phone.ask().await), Vec::<&str>::new());
    let kept = server.data().number("SELECT COUNT(*) FROM to_device").await;
    assert_eq!(kept, 0, "all are acknowledged");
    // What comes after everything was acknowledged, whether the device waits then or not, and when it comes back with an
    // older `pos`.
    let mut away = phone.clone();
    message(&bob, &alice, "4").await;
    let fourth = phone.wait().await;
    assert_eq!(notes(&fourth), ["4"]);
    assert_eq!(notes(&away.ask().await), ["4"]);
    let since = &fourth["extensions"]["to_device"]["next_batch"];
    phone.body = extension("to_device", json!({ "since": since }));
    assert_eq!(notes(&phone.ask().await), Vec::<&str>::new());
    let waiting = tokio::spawn(async move {
        let answer = phone.wait().await;
        (phone, answer)
    });
    message(&bob, &alice, "5").await;
    let (mut phone, fifth) = waiting.await.unwrap();
    assert_eq!(notes(&fifth), ["5"]);
    let since = &fifth["extensions"]["to_device"]["next_batch"];
    phone.body = extension("to_device", json!({ "since": since }));
    phone.ask().await;
    phone.body = extension("to_device", json!({ "since": "of another server" }));
    assert_eq!(notes(&phone.ask().await), Vec::<&str>::new());
}

async fn a_connection_without_rooms_is_told_whose_devices_change(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let mut keys = Connection::new(&alice, extension("e2ee", json!({})));
    let first = keys.ask().await;
    let e2ee = &first["extensions"]["e2ee"];
    assert_eq!(e2ee["device_one_time_keys_count"]["signed_curve25519"], 0);
    assert_eq!(e2ee["device_unused_fallback_key_types"], json!([]));
    assert!(e2ee.get("device_lists").is_none());
    bob.join(&room).await;
    let joined = keys.wait().await;
    assert_eq!(
        joined["extensions"]["e2ee"]["device_lists"]["changed"],
        json!([bob.id])
    );
    assert!(rooms(&joined).is_empty());
    // Also to one that was away for longer than the server remembers.
    let mut away = keys.clone();
    bob.leave(&room).await;
    let left = keys.wait().await;
    assert_eq!(
        left["extensions"]["e2ee"]["device_lists"]["left"],
        json!([bob.id])
    );
    let server = server.restart().await;
    away.user = alice.on(server.api());
    let left = away.ask().await;
    assert_eq!(
        left["extensions"]["e2ee"]["device_lists"]["left"],
        json!([bob.id])
    );
}

async fn account_data_comes_with_its_rooms(server: TestServer) {
    let alice = server.user("alice").await;
    let [one, two] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let path = |room: Option<&str>, data_type: &str| match room {
        None => format!("user/{}/account_data/{data_type}", encode(&alice.id)),
        Some(room) => {
            format!(
                "user/{}/rooms/{}/account_data/{data_type}",
                encode(&alice.id),
                encode(room)
            )
        }
    };
    alice
        .put(&path(None, "org.example.a"), json!({ "n": 1 }))
        .await
        .ok();
    alice
        .put(&path(Some(&one), "org.example.b"), json!({ "n": 1 }))
        .await
        .ok();
    let mut body = list(0, 0);
    body["extensions"] = json!({ "account_data": { "enabled": true } });
    let mut phone = Connection::new(&alice, body);
    let first = phone.ask().await;
    let data = &first["extensions"]["account_data"];
    let global: Vec<&str> = data["global"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert!(
        global.contains(&"org.example.a") && global.contains(&"m.push_rules"),
        "{global:?}"
    );
    assert_eq!(rooms(&first), [two.as_str()]);
    assert!(data.get("rooms").is_none(), "the other room is not in the window");
    alice
        .put(&path(Some(&one), "org.example.b"), json!({ "n": 2 }))
        .await
        .ok();
    phone.ask().await;
    // With the room comes all that was set before.
    alice.send(&one, "up").await;
    let moved = phone.ask().await;
    let events = &moved["extensions"]["account_data"]["rooms"][&one];
    assert_eq!(events[0]["content"]["n"], 2, "{moved:#}");
    alice
        .put(&path(None, "org.example.a"), json!({ "n": 2 }))
        .await
        .ok();
    alice
        .put(&path(Some(&one), "org.example.b"), json!({ "n": 3 }))
        .await
        .ok();
    let mut changed = phone.wait().await["extensions"]["account_data"].clone();
    if changed.get("rooms").is_none() {
        changed["rooms"] = phone.wait().await["extensions"]["account_data"]["rooms"].clone();
    }
    assert_eq!(changed["global"][0]["content"]["n"], 2);
    assert_eq!(changed["rooms"][&one][0]["content"]["n"], 3);
    // A room that fell behind has missed what was set meanwhile.
    alice.send(&two, "up").await;
    phone.ask().await;
    alice
        .put(&path(Some(&one), "org.example.b"), json!({ "n": 4 }))
        .await
        .ok();
    phone.ask().await;
    alice.send(&one, "up again").await;
    let back = phone.ask().await;
    assert_eq!(
        back["extensions"]["account_data"]["rooms"][&one][0]["content"]["n"],
        4
    );
}

async fn receipts_come_of_what_is_shown(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let old = alice.send(&room, "old").await;
    let read = async |user: &User, event: &str| {
        let path = format!("rooms/{}/receipt/m.read/{}", encode(&room), encode(event));
        user.post(&path, json!({})).await.ok();
    };
    read(&bob, &old).await;
    for _ in 0..12 {
        alice.send(&room, "new").await;
    }
    let mut body = list(0, 9);
    body["extensions"] = json!({ "receipts": { "enabled": true } });
    let mut phone = Connection::new(&alice, body);
    let first = phone.ask().await;
    assert!(
        first["extensions"].get("receipts").is_none(),
        "nobody has read what is shown: {first:#}"
    );
    let newest = alice.send(&room, "newest").await;
    phone.wait().await;
    read(&bob, &newest).await;
    let told = phone.wait().await;
    let receipt = &told["extensions"]["receipts"]["rooms"][&room];
    assert_eq!(receipt["type"], "m.receipt");
    assert!(
        receipt["content"][&newest]["m.read"][&bob.id].is_object(),
        "{told:#}"
    );
    assert!(rooms(&told).is_empty());
}

async fn who_types_is_told(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut body = list(0, 9);
    body["extensions"] = json!({ "typing": { "enabled": true } });
    let mut phone = Connection::new(&alice, body);
    assert!(phone.ask().await["extensions"].get("typing").is_none());
    let typing = async |typing: bool| {
        let path = format!("rooms/{}/typing/{}", encode(&room), encode(&bob.id));
        bob.put(&path, json!({ "typing": typing, "timeout": 60_000 }))
            .await
            .ok();
    };
    typing(true).await;
    let told = phone.wait().await;
    let users =
        |answer: &Value| answer["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"].clone();
    assert_eq!(users(&told), json!([bob.id]));
    // Whoever comes new is told too.
    let mut other = Connection::new(&alice, phone.body.clone());
    other.body["conn_id"] = json!("other");
    assert_eq!(users(&other.ask().await), json!([bob.id]));
    typing(false).await;
    assert_eq!(users(&phone.wait().await), json!([]));
}

async fn extensions_may_be_wanted_of_some_rooms(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut all = Vec::new();
    for _ in 0..3 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let path = format!("rooms/{}/typing/{}", encode(&room), encode(&bob.id));
        bob.put(&path, json!({ "typing": true, "timeout": 60_000 }))
            .await
            .ok();
        all.push(room);
    }
    // The newest room is in one list, all are in another, and the first is asked for by itself too.
    let details = |range: Value| json!({ "ranges": [range], "timeline_limit": 1, "required_state": [] });
    let body = |typing: Value| {
        json!({
            "lists": { "newest": details(json!([0, 0])), "rest": details(json!([1, 1])) },
            "room_subscriptions": { all[0].as_str(): { "timeline_limit": 1, "required_state": [] } },
            "extensions": { "typing": typing },
        })
    };
    let typed_in = async |typing: Value| {
        let answer = Connection::new(&alice, body(typing)).ask().await;
        let rooms = answer["extensions"]["typing"]["rooms"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let mut rooms: Vec<usize> = rooms
            .keys()
            .map(|room| all.iter().position(|one| one == room).unwrap())
            .collect();
        rooms.sort_unstable();
        rooms
    };
    assert_eq!(typed_in(json!({ "enabled": true })).await, [0, 1, 2]);
    assert_eq!(
        typed_in(json!({ "enabled": true, "lists": ["newest"], "rooms": [] })).await,
        [2]
    );
    assert_eq!(
        typed_in(json!({ "enabled": true, "lists": [], "rooms": ["*"] })).await,
        [0]
    );
    assert_eq!(
        typed_in(json!({ "enabled": true, "lists": [], "rooms": [all[0]] })).await,
        [0]
    );
    assert_eq!(
        typed_in(json!({ "enabled": true, "lists": [], "rooms": [all[1]] })).await,
        Vec::<usize>::new()
    );
    assert_eq!(typed_in(json!({ "enabled": false })).await, Vec::<usize>::new());
}
