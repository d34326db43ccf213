//! What a device hears of its own events, and when.

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::json;

on_both_engines!(
    a_device_hears_of_its_event_after_the_answer,
    the_answer_comes_first_though_the_sender_s_membership_changes,
    a_device_waits_for_an_answer_that_nobody_takes_no_longer_than_a_moment,
);

/// What is new for a device but presence, waiting for up to ten seconds.
async fn wait(user: &User, since: &str) -> Synced {
    let filter = encode(&json!({ "presence": { "types": [] } }).to_string());
    let since = encode(since);
    user.sync_with(&format!("timeout=10000&filter={filter}&since={since}"))
        .await
}

async fn a_device_hears_of_its_event_after_the_answer(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let other = alice.second_device().await;
    let target = alice.send(&room, "to be removed").await;
    let path = |what: &str| format!("rooms/{}/{what}", encode(&room));
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let requests = [
        (path("send/m.room.message/one"), text),
        (path(&format!("redact/{}/two", encode(&target))), json!({})),
    ];
    for (path, body) in requests {
        let since = alice.sync(None).await.next();
        let others = other.sync(None).await.next();
        let hers = bob.sync(None).await.next();
        let waiting = {
            let (alice, since) = (alice.clone(), since.clone());
            tokio::spawn(async move { wait(&alice, &since).await })
        };
        let answer = alice.put_and_keep(&path, body).await;
        assert_eq!(
            wait(&other, &others).await.timeline(&room).len(),
            1,
            "the other device"
        );
        assert_eq!(wait(&bob, &hers).await.timeline(&room).len(), 1, "everybody else");
        let synced = alice.sync(Some(&since)).await;
        assert!(synced.timeline(&room).is_empty(), "it is being answered");
        assert!(alice.sync(None).await.timeline(&room).len() < bob.sync(None).await.timeline(&room).len());
        assert!(!waiting.is_finished());
        drop(answer);
        let synced = alice.sync(Some(&synced.next())).await;
        assert_eq!(synced.timeline(&room).len(), 1, "it has been answered");
        assert_eq!(waiting.await.unwrap().timeline(&room).len(), 1);
    }
}

async fn the_answer_comes_first_though_the_sender_s_membership_changes(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.second_device().await;
    let path = format!("rooms/{}/send/m.room.message/one", encode(&room));
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let answer = alice.put_and_keep(&path, text).await;
    let path = format!("profile/{}/displayname", encode(&alice.id));
    other.put(&path, json!({ "displayname": "Alice" })).await.ok();
    let first = {
        let alice = alice.clone();
        tokio::spawn(async move { alice.sync(None).await })
    };
    for _ in 0..5 {
        assert_eq!(other.sync(None).await.texts(&room), ["hello"]);
    }
    assert!(!first.is_finished(), "it is being answered");
    drop(answer);
    assert_eq!(first.await.unwrap().texts(&room), ["hello"]);
}

async fn a_device_waits_for_an_answer_that_nobody_takes_no_longer_than_a_moment(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = alice.sync(None).await.next();
    let path = format!("rooms/{}/send/m.room.message/one", encode(&room));
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let answer = alice.put_and_keep(&path, text).await;
    let synced = wait(&alice, &since).await;
    assert_eq!(synced.texts(&room), ["hello"]);
    drop(answer);
}
