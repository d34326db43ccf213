//! What one node commits, the clients of another hear of, in the same order, and build upon.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use maru_tests::user::User;
use maru_tests::{Engine, TestServer};
use serde_json::json;

use super::{next_texts, two_nodes};

#[tokio::test]
async fn a_message_on_one_node_reaches_who_waits_on_another() {
    let [one, two] = two_nodes().await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = bob.sync(None).await.next();
    let waiting = {
        let (bob, room) = (bob.clone(), room.clone());
        tokio::spawn(async move { next_texts(&bob, &room, since).await })
    };
    alice.send(&room, "안녕").await;
    assert_eq!(waiting.await.unwrap(), ["안녕"]);
    // And back, on what the other has built.
    let since = alice.sync(None).await.next();
    bob.send(&room, "네").await;
    assert_eq!(next_texts(&alice, &room, since).await, ["네"]);
}

#[tokio::test]
async fn both_nodes_write_into_one_room_at_once() {
    const MESSAGES: usize = 60;
    let [one, two] = two_nodes().await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = [alice.sync(None).await.next(), bob.sync(None).await.next()];
    let talk = |user: User| {
        let room = room.clone();
        async move {
            for n in 0..MESSAGES {
                user.send(&room, &format!("{} {n}", user.name)).await;
            }
        }
    };
    join_all([alice.clone(), bob.clone(), alice.clone(), bob.clone()].map(talk)).await;
    let mut orders = Vec::new();
    for (user, mut since) in [&alice, &bob].into_iter().zip(since) {
        let mut seen = Vec::new();
        while seen.len() < 4 * MESSAGES {
            user.wait(&since).await;
            let (news, next) = user.news(&room, &since).await;
            // The joining may come before or after the token of who is on the other node.
            let messages = news.iter().filter(|event| event["type"] == "m.room.message");
            seen.extend(messages.map(|event| event["event_id"].as_str().unwrap().to_owned()));
            since = next;
        }
        assert_eq!(
            seen.len(),
            seen.iter().collect::<BTreeSet<_>>().len(),
            "none twice"
        );
        orders.push(seen);
    }
    assert_eq!(orders[0], orders[1], "one order on both nodes");
    let history = alice.history(&room).await;
    assert_eq!(history.len(), bob.history(&room).await.len());
}

/// Every commit of one node moves the head on which all that waits at the other was built.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_where_many_write_into_one_room_at_both_nodes_without_pause() {
    const SENDERS: usize = 32;
    const MESSAGES: usize = 12;
    let [one, two] = two_nodes().await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let talk = |user: &User| {
        let (user, room) = (user.clone(), room.clone());
        tokio::spawn(async move {
            for n in 0..MESSAGES {
                user.send(&room, &n.to_string()).await;
            }
        })
    };
    let talking = (0..SENDERS).flat_map(|_| [talk(&alice), talk(&bob)]);
    for talked in join_all(talking).await {
        talked.expect("a message was refused");
    }
    let sent = 2 * SENDERS * MESSAGES;
    let since = alice.sync(None).await.next();
    // Whoever comes with the other's cursor is shown all that the other has seen.
    bob.sync(Some(&since)).await;
    for user in [&alice, &bob] {
        let history = user.history(&room).await;
        let messages = history.iter().filter(|event| event["type"] == "m.room.message");
        assert_eq!(messages.count(), sent);
    }
}

#[tokio::test]
async fn a_second_node_of_one_name_is_refused() {
    let one = TestServer::start_on(Engine::Postgres).await;
    let refused = one.try_start_node("main").await.unwrap_err();
    assert!(refused.to_string().contains("`main`"), "{refused}");
}
