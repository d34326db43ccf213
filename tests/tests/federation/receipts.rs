//! Receipts across servers.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, federate};
use serde_json::{Value, json};

use super::{room_across, until};

/// The receipt of a user for an event in what a sync says of a room.
fn receipt<'s>(synced: &'s Value, room: &str, event: &str, whose: &User) -> &'s Value {
    let events = synced["rooms"]["join"][room]["ephemeral"]["events"].as_array();
    let receipts = events
        .into_iter()
        .flatten()
        .find(|event| event["type"] == "m.receipt");
    receipts.map_or(&Value::Null, |receipts| {
        &receipts["content"][event]["m.read"][&whose.id]
    })
}

async fn read(user: &User, room: &str, kind: &str, event: &str, thread: Option<&str>) {
    let path = format!("rooms/{}/receipt/{kind}/{}", encode(room), encode(event));
    let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
    user.post(&path, body).await.ok();
}

async fn receipts_cross(engine: Engine) {
    let (a, b) = (
        TestServer::start_on(engine).await,
        TestServer::start_on(engine).await,
    );
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = room_across(&alice, &a, &[&bob]).await;
    let since = alice.sync(None).await.next();
    let (first, second) = (bob.send(&room, "one").await, bob.send(&room, "two").await);
    read(&bob, &room, "m.read.private", &second, None).await;
    read(&bob, &room, "m.read", &first, Some("main")).await;
    let since = until(&alice, &since, |synced| {
        assert!(
            receipt(synced, &room, &second, &bob).is_null(),
            "private receipts stay at home"
        );
        receipt(synced, &room, &first, &bob)["thread_id"] == "main"
    })
    .await;
    read(&bob, &room, "m.read", &second, None).await;
    until(&alice, &since, |synced| {
        let receipt = receipt(synced, &room, &second, &bob);
        receipt["ts"].is_u64() && receipt["thread_id"].is_null()
    })
    .await;
    let stored = a
        .data()
        .number("SELECT COUNT(*) FROM receipts WHERE own = 0")
        .await;
    assert_eq!(stored, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_cross_on_sqlite() {
    Box::pin(receipts_cross(Engine::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_cross_on_postgres() {
    Box::pin(receipts_cross(Engine::Postgres)).await;
}
