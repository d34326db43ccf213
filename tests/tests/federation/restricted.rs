//! Rooms that open to members of others, and those that are asked for an invitation.

use maru_tests::{TestServer, User, federate};
use serde_json::{Value, json};

async fn room_with_rule(user: &User, version: &str, rule: Value) -> String {
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    user.create_room(json!({ "room_version": version, "initial_state": state }))
        .await
}

fn open_to(rule: &str, room: &str) -> Value {
    json!({ "join_rule": rule, "allow": [{ "type": "m.room_membership", "room_id": room }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resident_server_vouches_for_members_of_the_other_room() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, b.user("carol").await);
    for version in ["10", "11", "12"] {
        let lobby = alice
            .create_room(json!({ "preset": "public_chat", "room_version": version }))
            .await;
        let inner = room_with_rule(&alice, version, open_to("restricted", &lobby)).await;
        bob.join_via(&inner, a.name()).await.refused(403, "M_FORBIDDEN");
        bob.join_via(&lobby, a.name()).await.ok();
        alice.sees_member(&lobby, &bob, "join").await;
        bob.join_via(&inner, a.name()).await.ok();
        let path = format!("rooms/{inner}/state/m.room.member/{}", bob.id);
        let member = alice.get(&path).await.ok();
        assert_eq!(member["join_authorised_via_users_server"], alice.id.as_str());
        // Bob's server is in both rooms now, and still has nobody with the power to let Carol in.
        carol.join_via(&lobby, a.name()).await.ok();
        alice.sees_member(&lobby, &carol, "join").await;
        carol.join_via(&inner, a.name()).await.ok();
        alice.sees_member(&inner, &carol, "join").await;
        carol.send(&inner, "inside").await;
        alice.hears(&inner, "inside").await;
        bob.hears(&inner, "inside").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_knock_crosses_is_answered_and_can_be_taken_back() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, b.user("carol").await);
    for rule in ["knock", "knock_restricted"] {
        let lobby = alice.create_room(json!({ "preset": "public_chat" })).await;
        let room = match rule {
            "knock" => room_with_rule(&alice, "12", json!({ "join_rule": rule })).await,
            _ => room_with_rule(&alice, "12", open_to(rule, &lobby)).await,
        };
        alice
            .set_state(&room, "m.room.name", "", json!({ "name": "Inner" }))
            .await;
        let knock = format!("knock/{room}?via={}", a.name());
        bob.post(&knock, json!({ "reason": "please" })).await.ok();
        alice.sees_member(&room, &bob, "knock").await;
        let shown = bob
            .until("the knock", |synced| {
                synced.0["rooms"]["knock"][&room]["knock_state"]["events"]
                    .as_array()
                    .cloned()
            })
            .await;
        assert!(shown.iter().any(|event| event["content"]["name"] == "Inner"));
        alice.invite(&room, &bob).await;
        bob.is_invited(&room).await;
        bob.join(&room).await;
        alice.sees_member(&room, &bob, "join").await;

        carol.post(&format!("knock/{room}"), json!({})).await.ok();
        alice.sees_member(&room, &carol, "knock").await;
        carol.leave(&room).await;
        alice.sees_member(&room, &carol, "leave").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_knock_from_outside_is_taken_back_or_turned_down() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = room_with_rule(&alice, "12", json!({ "join_rule": "knock" })).await;
    let knock = format!("knock/{room}?via={}", a.name());
    bob.post(&knock, json!({})).await.ok();
    alice.sees_member(&room, &bob, "knock").await;
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    bob.post(&knock, json!({})).await.ok();
    alice.sees_member(&room, &bob, "knock").await;
    let kick = format!("rooms/{room}/kick");
    alice.post(&kick, json!({ "user_id": bob.id })).await.ok();
    bob.until("the end of the knock", |synced| {
        synced.0["rooms"]["knock"][&room].is_null().then_some(())
    })
    .await;
    bob.join_via(&room, a.name()).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_takes_no_knocks_says_so() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let knock = format!("knock/{room}?via={}", a.name());
    bob.post(&knock, json!({})).await.refused(403, "M_FORBIDDEN");
    bob.join_via(&room, a.name()).await.refused(403, "M_FORBIDDEN");
}
