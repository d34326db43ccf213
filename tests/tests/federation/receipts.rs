//! Receipts across servers.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, federate, for_both_engines, reunite};
use serde_json::{Value, json};

use super::{room_across, until};

for_both_engines!(receipts_cross);

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

/// Carol's server is not reached from Alice's, so Bob has read what Alice's server does not have yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_an_event_that_is_not_here_waits_for_it() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    let c = TestServer::start().await;
    let addresses = federate(&[&a, &b]).await;
    reunite(&c, &b, addresses[1]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room = room_across(&alice, &a, &[&bob]).await;
    let path = format!("/_matrix/client/v3/join/{room}?via={}", b.name());
    carol.post(&path, json!({})).await.ok();
    let (since, his) = (alice.sync(None).await.next(), bob.sync(None).await.next());
    let event = carol.send(&room, "far").await;
    until(&bob, &his, |synced| {
        let timeline = synced["rooms"]["join"][&room]["timeline"]["events"].as_array();
        let mut events = timeline.into_iter().flatten();
        events.any(|known| known["event_id"] == event.as_str())
    })
    .await;
    read(&bob, &room, "m.read", &event, None).await;
    let (known, waiting) = (
        "SELECT COUNT(*) FROM receipts",
        "SELECT COUNT(*) FROM waiting_receipts",
    );
    a.data().comes_to(1, waiting).await;
    assert_eq!(a.data().number(known).await, 0);
    // What Bob says next names Carol's event, which is fetched then.
    bob.send(&room, "near").await;
    until(&alice, &since, |synced| {
        receipt(synced, &room, &event, &bob)["ts"].is_u64()
    })
    .await;
    assert_eq!(a.data().number(waiting).await, 0);
}
