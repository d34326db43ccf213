//! Two people and a room: the thinnest thread through everything.

use maru_tests::{TestServer, on_both_engines};
use serde_json::json;

on_both_engines!(
    a_retry_makes_no_second_message,
    a_retry_after_a_restart_makes_no_second_message
);

async fn a_retry_makes_no_second_message(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    let send = || alice.send_as(&room, "m.room.message", "one", content.clone());
    let (first, second) = tokio::join!(send(), send());
    let third = send().await.ok();
    assert_eq!(first.ok(), third);
    assert_eq!(second.ok(), third);
    let other = alice
        .send_as(&room, "m.room.message", "two", content.clone())
        .await;
    assert_ne!(other.ok(), third);
}

async fn a_retry_after_a_restart_makes_no_second_message(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    let before = alice
        .send_as(&room, "m.room.message", "one", content.clone())
        .await
        .ok();
    let server = server.restart().await;
    let alice = alice.on(server.api());
    let after = alice.send_as(&room, "m.room.message", "one", content).await.ok();
    assert_eq!(before, after);
}
