//! Whose devices somebody has to follow.

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(who_is_followed_no_longer_is_told_also_to_those_who_ask);

/// Changes between two tokens of sync: users, who may be there or not, by list.
async fn changes(alice: &User, from: &str, to: &str) -> (Vec<Value>, Vec<Value>) {
    let path = format!("keys/changes?from={}&to={}", encode(from), encode(to));
    let reply = alice.get(&path).await.ok();
    let list = |name: &str| reply[name].as_array().unwrap().clone();
    (list("changed"), list("left"))
}

async fn who_is_followed_no_longer_is_told_also_to_those_who_ask(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let shared = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&shared).await;
    carol.join(&shared).await;
    carol.join(&other).await;
    let before = alice.sync(None).await.next();
    bob.leave(&shared).await;
    carol.leave(&shared).await;
    let after = alice.sync(Some(&before)).await.next();
    let (changed, left) = changes(&alice, &before, &after).await;
    assert_eq!(left, [json!(bob.id)], "carol is still in the other room");
    assert!(!changed.contains(&json!(bob.id)), "{changed:?}");
    let (_, left) = changes(&alice, &after, &after).await;
    assert!(left.is_empty(), "{left:?}");

    bob.join(&shared).await;
    let back = alice.sync(Some(&after)).await.next();
    let (changed, left) = changes(&alice, &after, &back).await;
    assert!(changed.contains(&json!(bob.id)), "{changed:?}");
    assert!(left.is_empty(), "{left:?}");
    alice.leave(&shared).await;
    let gone = alice.sync(Some(&back)).await.next();
    let (_, left) = changes(&alice, &back, &gone).await;
    assert_eq!(left, [json!(bob.id)]);
}
