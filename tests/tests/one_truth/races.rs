//! Syncs while something changes: what a database keeps only the newest of must not be passed over.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    a_first_sync_has_the_rooms_whose_member_changes_the_name,
    a_new_name_leaves_unread_counts_as_they_are,
    who_speaks_has_read_the_thread,
    unread_counts_outlive_the_schema_that_did_not_know_who_joined_when,
);

/// A first sync that ends where the user's memberships were others than the database has now: the device is still being
/// answered what it sent before they changed.
async fn a_first_sync_has_the_rooms_whose_member_changes_the_name(server: TestServer) {
    let alice = server.user("alice").await;
    let rooms = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let other = alice.second_device().await;
    let sent = format!("rooms/{}/send/m.room.message/one", encode(&rooms[0]));
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let answer = alice.put_and_keep(&sent, text).await;
    let path = format!("profile/{}/displayname", encode(&alice.id));
    other.put(&path, json!({ "displayname": "Alice" })).await.ok();
    let synced = alice.sync(None).await;
    drop(answer);
    for room in rooms {
        let shown = synced.room(&room);
        assert!(shown["timeline"]["events"].is_array(), "{:#}", synced.0);
    }
}

/// Bob's unread notifications of a room in a first sync.
async fn unread(bob: &User, room: &str) -> Value {
    bob.sync(None).await.room(room)["unread_notifications"]["notification_count"].clone()
}

/// A room in which Bob, who has been away from it, has three unread messages and a new name.
async fn with_unread(server: &TestServer) -> (User, String) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    alice.send(&room, "before").await;
    bob.leave(&room).await;
    bob.join(&room).await;
    for text in ["one", "two", "three"] {
        alice.send(&room, text).await;
    }
    let path = format!("profile/{}/displayname", encode(&bob.id));
    bob.put(&path, json!({ "displayname": "Bob" })).await.ok();
    (bob, room)
}

async fn a_new_name_leaves_unread_counts_as_they_are(server: TestServer) {
    let (bob, room) = with_unread(&server).await;
    assert_eq!(unread(&bob, &room).await, 3);
    let server = server.restart().await;
    assert_eq!(unread(&bob.on(server.api()), &room).await, 3);
}

async fn who_speaks_has_read_the_thread(server: TestServer) {
    let (bob, room) = with_unread(&server).await;
    let root = bob.sync(None).await.events(&room).pop().unwrap();
    let in_thread = json!({
        "msgtype": "m.text",
        "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root["event_id"] },
    });
    let alice = server.user("alicia").await;
    alice.join(&room).await;
    alice.send_event(&room, "m.room.message", in_thread.clone()).await;
    assert_eq!(unread(&bob, &room).await, 4);
    let sent = bob.send(&room, "four").await;
    assert_eq!(unread(&bob, &room).await, 1, "that of the thread");
    alice.send(&room, "five").await;
    bob.redact(&room, &sent).await;
    assert_eq!(unread(&bob, &room).await, 1, "a redaction is sent as well");
    alice.send(&room, "six").await;
    let server = server.restart().await;
    let [alice, bob] = [alice.on(server.api()), bob.on(server.api())];
    assert_eq!(unread(&bob, &room).await, 2);
    bob.send_event(&room, "m.room.message", in_thread).await;
    assert_eq!(unread(&bob, &room).await, 1);
    // The same with a receipt for a thread.
    let path = format!("rooms/{}/receipt/m.read/{}", encode(&room), encode(&sent));
    bob.post(&path, json!({ "thread_id": "main" })).await.ok();
    assert_eq!(unread(&bob, &room).await, 1);
    bob.send(&room, "seven").await;
    alice.send(&room, "eight").await;
    let path = format!("rooms/{}/receipt/m.read.private/{}", encode(&room), encode(&sent));
    bob.post(&path, json!({ "thread_id": "main" })).await.ok();
    assert_eq!(unread(&bob, &room).await, 1);
}

async fn unread_counts_outlive_the_schema_that_did_not_know_who_joined_when(server: TestServer) {
    let (bob, room) = with_unread(&server).await;
    let data = server.data();
    data.run("ALTER TABLE memberships DROP COLUMN joined_at").await;
    let int = match data.engine() {
        Engine::Sqlite => "INTEGER",
        Engine::Postgres => "BIGINT",
    };
    let migration = include_str!("../../../server/migrations/0005_joined_at.sql");
    data.run(&migration.replace("{int}", int)).await;
    let server = server.restart().await;
    assert_eq!(unread(&bob.on(server.api()), &room).await, 3);
}
