//! Several servers, and several nodes of one.

use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestServer, federate};
use serde_json::json;

use super::{caught_up, found};

#[tokio::test(flavor = "multi_thread")]
async fn what_people_of_other_servers_say_is_found_here() {
    let servers = TestServer::start_several().await;
    let [a, b] = &servers;
    federate(&[a, b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let before = alice.send(&room, "약속 전에").await;
    bob.join_via(&room, a.name()).await.ok();
    let said = alice.send(&room, "약속 시간").await;
    bob.hears(&room, "약속 시간").await;
    let answer = bob.send(&room, "약속 장소").await;
    alice.hears(&room, "약속 장소").await;
    // What is fetched of the time before is found by when it was said.
    bob.history(&room).await;
    caught_up(a).await;
    caught_up(b).await;
    assert_eq!(found(&alice, "약속").await, [&*answer, &said, &before]);
    assert_eq!(found(&bob, "약속").await, [&*answer, &said, &before]);
    alice.redact(&room, &said).await;
    look_for("the redaction", async || {
        let found = found(&bob, "약속").await;
        (found == [&*answer, &before])
            .then_some(())
            .ok_or(format!("{found:?}"))
    })
    .await;
    caught_up(b).await;
    assert_eq!(found(&bob, "시간").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_finds_what_was_said_at_another() {
    let first = TestServer::start_on(Engine::Postgres).await;
    let second = first.start_node("second").await;
    let alice = first.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let there = alice.on(second.api());
    let mut sent = vec![
        alice.send(&room, "said here").await,
        there.send(&room, "said there").await,
    ];
    sent.reverse();
    caught_up(&second).await;
    caught_up(&first).await;
    assert_eq!(found(&alice, "said").await, sent);
    assert_eq!(found(&there, "said").await, sent);
}
