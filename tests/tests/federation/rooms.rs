//! Rooms across servers: coming in, talking, going.

use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_talk_in_a_public_room_of_every_version() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    for version in ["10", "11", "12"] {
        let room = alice
            .create_room(json!({ "preset": "public_chat", "name": "Hall", "room_version": version }))
            .await;
        alice.send(&room, "before").await;
        let joined = bob.join_via(&room, a.name()).await.ok();
        assert_eq!(joined["room_id"], room.as_str());
        bob.send(&room, "hello from b").await;
        alice.hears(&room, "hello from b").await;
        alice.send(&room, "hello from a").await;
        bob.hears(&room, "hello from a").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_crosses_and_can_be_taken_or_declined() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, b.user("carol").await);
    let room = alice.create_room(json!({ "name": "Hall" })).await;
    alice.invite(&room, &bob).await;
    let shown = bob.is_invited(&room).await;
    assert!(shown.iter().any(|event| event["content"]["name"] == "Hall"));
    bob.join(&room).await;
    alice.send(&room, "welcome").await;
    bob.hears(&room, "welcome").await;
    alice.invite(&room, &carol).await;
    carol.is_invited(&room).await;
    carol.leave(&room).await;
    alice.sees_member(&room, &carol, "leave").await;
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_invited_with_the_making_of_a_room_hear_of_it() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let request = json!({ "preset": "trusted_private_chat", "is_direct": true, "invite": [bob.id] });
    let room = alice.create_room(request).await;
    let shown = bob.is_invited(&room).await;
    assert!(!shown.is_empty());
    bob.join(&room).await;
    bob.send(&room, "hello").await;
    alice.hears(&room, "hello").await;
    // A trusted private chat gives both the same power.
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Ours" }))
        .await;
}
