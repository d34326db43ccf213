//! What is redacted is gone: for those who read, and from the disk.

use std::path::Path;

use maru_tests::user::encode;
use maru_tests::{TestServer, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(a_redaction_is_told_with_state_and_members);

async fn a_redaction_is_told_with_state_and_members(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let topic = alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "to be forgotten" }))
        .await;
    let path = |rest: &str| format!("rooms/{}/{rest}", encode(&room));
    let members = alice.get(&path("members")).await.ok();
    let is_bob = |event: &&Value| event["state_key"] == *bob.id;
    let bobs = members["chunk"].as_array().unwrap().iter().find(is_bob).unwrap();
    let bobs = bobs["event_id"].as_str().unwrap().to_owned();
    let mut redactions = Vec::new();
    for target in [&topic, &bobs] {
        redactions.push(alice.redact(&room, target).await);
    }
    let state = alice.get(&path("state")).await.ok();
    let members = alice.get(&path("members")).await.ok();
    let mut lists = [&state, &members["chunk"]].into_iter();
    let (state, members) = (lists.next().unwrap(), lists.next().unwrap());
    for (list, target, by) in [
        (state, &topic, &redactions[0]),
        (state, &bobs, &redactions[1]),
        (members, &bobs, &redactions[1]),
    ] {
        let found = list
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["event_id"] == **target);
        let told = &found.unwrap()["unsigned"]["redacted_because"];
        assert_eq!(told["event_id"], **by, "{found:?}");
    }
}

/// Whether a text stands in any file of a folder.
fn is_on_disk(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn what_is_redacted_is_gone_from_the_files() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let (short, long) = ("a-short-secret-of-alice", "a-long-secret-of-alice ".repeat(2_000));
    let kept = "a-text-that-stays";
    let secrets = [alice.send(&room, short).await, alice.send(&room, &long).await];
    alice.send(&room, kept).await;
    // Closed, so that the log that writes go to first is merged into the file.
    let server = server.restart().await;
    let folder = server.data().folder().to_owned();
    assert!(is_on_disk(&folder, short) && is_on_disk(&folder, &long[..40]));
    let alice = alice.on(server.api());
    for secret in &secrets {
        alice.redact(&room, secret).await;
    }
    let server = server.restart().await;
    assert!(!is_on_disk(&folder, short));
    assert!(!is_on_disk(&folder, &long[..40]));
    assert!(is_on_disk(&folder, kept), "what was not redacted is there");
    drop(server);
}
