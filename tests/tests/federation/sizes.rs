//! The size of events is a rule of their room.

use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_hangul_characters_cross_intact() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    let long: String = "가나다라마바사아자차".repeat(10_000);
    assert_eq!(long.chars().count(), 100_000);
    alice.send(&room, &long).await;
    bob.hears(&room, &long).await;
    bob.send(&room, &long).await;
    alice.hears_last(&room, &long).await;
    // Beyond the room's limit nothing is signed.
    let content = json!({ "msgtype": "m.text", "body": "x", "more": "y".repeat(1_048_576) });
    let reply = alice.send_as(&room, "m.room.message", "large", content).await;
    reply.refused(413, "M_TOO_LARGE");
}
