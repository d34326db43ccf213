//! What lives in memory only, told to devices that were away when it changed.

use maru_tests::user::encode;
use maru_tests::{Engine, Synced, TestServer, User, for_both_engines, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    what_passes_while_nobody_listens_is_told,
    what_passes_after_a_restart_is_told_to_old_cursors,
    nobody_types_on_a_server_that_stops,
);

for_both_engines!(who_does_not_come_back_after_a_restart_is_gone);

/// Who types in a room, if a device is told.
fn typing(synced: &Synced, room: &str) -> Option<Value> {
    let events = synced.0["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    let event = events.iter().find(|event| event["type"] == "m.typing")?;
    Some(event["content"]["user_ids"].clone())
}

/// How somebody is, if a device is told.
fn presence(synced: &Synced, user: &User) -> Option<Value> {
    let mut events = synced.0["presence"]["events"].as_array()?.iter();
    let event = events.find(|event| event["sender"] == user.id.as_str())?;
    Some(event["content"]["presence"].clone())
}

async fn set_typing(user: &User, room: &str, typing: bool) {
    let path = format!("rooms/{}/typing/{}", encode(room), encode(&user.id));
    let body = json!({ "typing": typing, "timeout": 60_000 });
    user.put(&path, body).await.ok();
}

/// Sets a user's presence and waits until somebody has been told.
async fn set_presence(user: &User, state: &str, watcher: &User) {
    let mut since = watcher.sync(None).await.next();
    let path = format!("presence/{}/status", encode(&user.id));
    user.put(&path, json!({ "presence": state })).await.ok();
    loop {
        let synced = watcher.wait(&since).await;
        if presence(&synced, user).is_some_and(|told| told == state) {
            return;
        }
        since = synced.next();
    }
}

async fn in_a_room(server: &TestServer) -> ([User; 3], String) {
    let users = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = users[0].create_room(json!({ "preset": "public_chat" })).await;
    users[1].join(&room).await;
    users[2].join(&room).await;
    (users, room)
}

async fn what_passes_while_nobody_listens_is_told(server: TestServer) {
    let ([alice, bob, carol], room) = in_a_room(&server).await;
    let since = bob.sync(None).await.next();
    set_typing(&alice, &room, true).await;
    set_presence(&alice, "online", &carol).await;
    let synced = bob.sync(Some(&since)).await;
    assert_eq!(typing(&synced, &room), Some(json!([alice.id])));
    let since = synced.next();
    server.parts().notifier.sweep(u64::MAX);
    set_typing(&alice, &room, false).await;
    set_presence(&alice, "unavailable", &carol).await;
    let synced = bob.sync(Some(&since)).await;
    assert_eq!(typing(&synced, &room), Some(json!([])));
    assert_eq!(presence(&synced, &alice), Some(json!("unavailable")));
    let synced = bob.sync(Some(&synced.next())).await;
    assert_eq!(typing(&synced, &room), None);
    assert_eq!(presence(&synced, &alice), None);
}

async fn what_passes_after_a_restart_is_told_to_old_cursors(server: TestServer) {
    let ([alice, bob, carol], room) = in_a_room(&server).await;
    for typing in [true, false, true, false] {
        set_typing(&alice, &room, typing).await;
    }
    let since = bob.sync(None).await.next();
    let server = server.restart().await;
    let [alice, bob, carol] = [&alice, &bob, &carol].map(|user| user.on(server.api()));
    set_typing(&alice, &room, true).await;
    set_presence(&alice, "unavailable", &carol).await;
    let synced = bob.sync(Some(&since)).await;
    assert_eq!(typing(&synced, &room), Some(json!([alice.id])));
    assert_eq!(presence(&synced, &alice), Some(json!("unavailable")));
    set_typing(&alice, &room, false).await;
    assert_eq!(typing(&bob.sync(Some(&since)).await, &room), Some(json!([])));
}

/// Syncs until a device has been told who types in a room, and how somebody is; its cursor then.
async fn until_told(reader: &User, since: String, room: &str, user: &User, expected: [Value; 2]) -> String {
    let (mut since, mut told) = (since, [Value::Null, Value::Null]);
    while told != expected {
        let synced = reader.wait(&since).await;
        since = synced.next();
        let [types, is] = told;
        told = [
            typing(&synced, room).unwrap_or(types),
            presence(&synced, user).unwrap_or(is),
        ];
    }
    since
}

async fn who_does_not_come_back_after_a_restart_is_gone(engine: Engine) {
    let server = TestServer::start_with(engine, |config| config.presence.offline_after_seconds = 1).await;
    let ([alice, bob, _], room) = in_a_room(&server).await;
    let since = bob.sync(None).await.next();
    set_typing(&alice, &room, true).await;
    let path = format!("presence/{}/status", encode(&alice.id));
    alice.put(&path, json!({ "presence": "online" })).await.ok();
    let here = [json!([alice.id]), json!("online")];
    let since = until_told(&bob, since, &room, &alice, here).await;
    // Whatever the server says before it stops is lost on its way to a device that does not ask.
    let server = server.restart().await;
    let bob = bob.on(server.api());
    let gone = [json!([]), json!("offline")];
    let since = until_told(&bob, since, &room, &alice, gone).await;
    let after = bob.sync(Some(&since)).await;
    assert_eq!((typing(&after, &room), presence(&after, &alice)), (None, None));
}

async fn nobody_types_on_a_server_that_stops(server: TestServer) {
    let ([alice, bob, _], room) = in_a_room(&server).await;
    let filter = encode(&json!({ "presence": { "types": [] } }).to_string());
    let since = bob.sync(None).await.next();
    set_typing(&alice, &room, true).await;
    let synced = bob
        .sync_with(&format!("filter={filter}&since={}", encode(&since)))
        .await;
    assert_eq!(typing(&synced, &room), Some(json!([alice.id])));
    let query = format!("timeout=10000&filter={filter}&since={}", encode(&synced.next()));
    let waiting = tokio::spawn({
        let bob = bob.clone();
        async move { bob.sync_with(&query).await }
    });
    server.parts().stop();
    assert_eq!(typing(&waiting.await.unwrap(), &room), Some(json!([])));
}
