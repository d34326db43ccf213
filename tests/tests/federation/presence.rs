//! Typing and presence across servers.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, federate, reunite};
use serde_json::{Value, json};

use super::{room_across, until};

async fn types(user: &User, room: &str, typing: bool) {
    let path = format!("rooms/{}/typing/{}", encode(room), encode(&user.id));
    user.put(&path, json!({ "typing": typing, "timeout": 60_000 }))
        .await
        .ok();
}

/// Who types in a room by what a sync says, if it says anything of that.
fn typing<'s>(synced: &'s Value, room: &str) -> Option<&'s Value> {
    let events = synced["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    let typing = events.iter().find(|event| event["type"] == "m.typing")?;
    Some(&typing["content"]["user_ids"])
}

/// The newest presence of somebody in a sync.
fn presence<'s>(synced: &'s Value, whose: &User) -> Option<&'s Value> {
    let events = synced["presence"]["events"].as_array()?;
    let event = events
        .iter()
        .rfind(|event| event["sender"] == whose.id.as_str())?;
    Some(&event["content"])
}

fn is(synced: &Value, whose: &User, state: &str) -> bool {
    presence(synced, whose).is_some_and(|content| content["presence"] == state)
}

/// A server on which nobody goes offline for want of a poll, however slow the machine is.
async fn patient() -> TestServer {
    TestServer::start_with(Engine::Sqlite, |config| {
        config.presence.offline_after_seconds = 600
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_crosses_and_ends_with_the_connection() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = room_across(&alice, &a, &[&bob]).await;
    let since = bob.sync(None).await.next();
    types(&alice, &room, true).await;
    let since = until(&bob, &since, |synced| {
        typing(synced, &room) == Some(&json!([alice.id]))
    })
    .await;
    types(&alice, &room, false).await;
    let since = until(&bob, &since, |synced| typing(synced, &room) == Some(&json!([]))).await;
    types(&alice, &room, true).await;
    let since = until(&bob, &since, |synced| {
        typing(synced, &room) == Some(&json!([alice.id]))
    })
    .await;
    a.parts().peers.stop().await;
    until(&bob, &since, |synced| typing(synced, &room) == Some(&json!([]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_crosses_to_those_who_share_a_room() {
    let (a, b) = (patient().await, patient().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mallory = b.user("mallory").await;
    room_across(&alice, &a, &[&bob]).await;
    let (since, hers) = (bob.sync(None).await.next(), mallory.sync(None).await.next());
    let path = format!("presence/{}/status", encode(&alice.id));
    let away = json!({ "presence": "unavailable", "status_msg": "at lunch" });
    alice.put(&path, away).await.ok();
    let since = until(&bob, &since, |synced| is(synced, &alice, "unavailable")).await;
    let asked = bob.get(&path).await.ok();
    assert_eq!(asked["presence"], "unavailable");
    assert_eq!(asked["status_msg"], "at lunch");
    mallory.get(&path).await.refused(403, "M_FORBIDDEN");
    assert!(presence(&mallory.sync(Some(&hers)).await.0, &alice).is_none());
    alice.put(&path, json!({ "presence": "online" })).await.ok();
    let since = until(&bob, &since, |synced| is(synced, &alice, "online")).await;
    a.parts().peers.stop().await;
    until(&bob, &since, |synced| is(synced, &alice, "offline")).await;
}

/// Whoever was there before the servers met is told of when they do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_just_been_connected_hears_of_everybody() {
    let (a, b) = (patient().await, patient().await);
    let addresses = federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    room_across(&alice, &a, &[&bob]).await;
    let b = b.restart().await;
    let bob = bob.on(b.api());
    let path = format!("presence/{}/status", encode(&alice.id));
    alice.put(&path, json!({ "presence": "online" })).await.ok();
    let since = bob.sync(None).await.next();
    reunite(&b, &a, addresses[0]).await;
    until(&bob, &since, |synced| is(synced, &alice, "online")).await;
}
