//! Rooms across servers: coming in, talking, going.

use maru_tests::{TestServer, User, federate};
use serde_json::json;

/// Reads a user's sync until a room shows a text.
async fn hears(user: &User, room: &str, text: &str) {
    let mut since: Option<String> = None;
    for _ in 0..40 {
        let synced = match &since {
            None => user.sync(None).await,
            Some(since) => user.wait(since).await,
        };
        if synced.texts(room).iter().any(|heard| heard == text) {
            return;
        }
        since = Some(synced.next());
    }
    panic!("{text} was never heard");
}

/// Waits until a user's sync shows an invitation to a room.
async fn is_invited(user: &User, room: &str) -> serde_json::Value {
    let mut since: Option<String> = None;
    for _ in 0..20 {
        let synced = match &since {
            None => user.sync(None).await,
            Some(since) => user.wait(since).await,
        };
        let invited = &synced.0["rooms"]["invite"][room];
        if !invited.is_null() {
            return invited.clone();
        }
        since = Some(synced.next());
    }
    panic!("no invitation came");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_talk_in_a_public_room() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "name": "Hall" }))
        .await;
    alice.send(&room, "before").await;
    let joined = bob
        .post(
            &format!("/_matrix/client/v3/join/{room}?via={}", a.name()),
            json!({}),
        )
        .await
        .ok();
    assert_eq!(joined["room_id"], room.as_str());
    bob.send(&room, "hello from b").await;
    hears(&alice, &room, "hello from b").await;
    alice.send(&room, "hello from a").await;
    hears(&bob, &room, "hello from a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_crosses_and_can_be_taken_or_declined() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, b.user("carol").await);
    let room = alice.create_room(json!({ "name": "Hall" })).await;
    alice.invite(&room, &bob).await;
    let invited = is_invited(&bob, &room).await;
    let shown = invited["invite_state"]["events"].as_array().unwrap();
    assert!(shown.iter().any(|event| event["content"]["name"] == "Hall"));
    bob.join(&room).await;
    alice.send(&room, "welcome").await;
    hears(&bob, &room, "welcome").await;
    alice.invite(&room, &carol).await;
    is_invited(&carol, &room).await;
    carol.leave(&room).await;
    bob.leave(&room).await;
}
