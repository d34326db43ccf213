//! What one node does for all: of several, one speaks with other homeservers, and another takes over when it is gone.

use maru_tests::process::{TestProcess, binary};
use maru_tests::user::{User, encode};
use maru_tests::{Engine, TestServer};
use serde_json::json;
use tokio::process::Command;

use super::next_texts;

const FEDERATES: [&str; 2] = ["--federation-listen", "127.0.0.1:0"];

/// Adds a peer as an admin does, on the machine of a node.
pub(super) async fn add_peer(node: &TestProcess, peer: &TestServer) {
    let address = peer.open_federation().await.to_string();
    let name = peer.parts().identity.server_name.to_string();
    let mut command = Command::new(binary());
    command.args(["peer", "add", &name, &address, "--data"]);
    let added = command.arg(node.data().folder()).output().await;
    let added = added.unwrap();
    assert!(added.status.success(), "{added:?}");
}

/// Sends a message; whoever waits after a token hears it.
pub(super) async fn say(sender: &User, room: &str, hearer: &User, text: &str) {
    let since = hearer.sync(None).await.next();
    sender.send(room, text).await;
    assert_eq!(next_texts(hearer, room, since).await, [text]);
}

#[tokio::test]
async fn another_node_speaks_with_other_homeservers_when_the_one_that_did_is_gone() {
    let elsewhere = TestServer::start().await;
    let mut one = TestProcess::start(Engine::Postgres, &FEDERATES).await;
    add_peer(&one, &elsewhere).await;
    let flags = [&FEDERATES[..], &["--node-name", "two"]].concat();
    let two = TestProcess::start_on(one.data().beside(), &flags).await;
    assert!(
        !two.log().contains("federation listening"),
        "one at a time: {}",
        two.log()
    );

    let bob = elsewhere.user("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let alice = one.user("alice").await;
    let via = elsewhere.parts().identity.server_name.to_string();
    let join = format!("join/{}?server_name={}", encode(&room), encode(&via));
    alice.post(&join, json!({})).await.ok();
    let alice = alice.on(two.api());
    say(
        &bob,
        &room,
        &alice,
        "by the node that leads, to one that does not",
    )
    .await;
    say(&alice, &room, &bob, "and back").await;

    one.kill().await;
    two.logged("this node speaks with other homeservers now").await;
    say(&bob, &room, &alice, "by the node that took over").await;
    say(&alice, &room, &bob, "and back again").await;
}
