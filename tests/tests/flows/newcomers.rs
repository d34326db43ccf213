//! What somebody is told who comes into a room, or comes back to it.

use std::collections::BTreeMap;

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    a_newcomer_knows_a_room_whose_past_is_hidden,
    who_comes_back_knows_what_changed_meanwhile,
    presence_is_told_to_newcomers_and_of_them,
);

type State = BTreeMap<(String, String), Value>;

/// The state of a room as a client knows it that has been told no more than one answer.
fn known(synced: &Synced, room: &str) -> State {
    let state = synced.room(room)["state"]["events"].as_array().cloned();
    let events = state.into_iter().flatten().chain(synced.events(room));
    state_of(events)
}

fn state_of(events: impl IntoIterator<Item = Value>) -> State {
    let entry = |event: Value| {
        let key = event["state_key"].as_str()?.to_owned();
        let event_type = event["type"].as_str()?.to_owned();
        Some(((event_type, key), event["content"].clone()))
    };
    events.into_iter().filter_map(entry).collect()
}

/// The state of a room as the server has it.
async fn state(user: &User, room: &str) -> State {
    let events = user.get(&format!("rooms/{}/state", encode(room))).await.ok();
    state_of(events.as_array().unwrap().iter().cloned())
}

async fn a_newcomer_knows_a_room_whose_past_is_hidden(server: TestServer) {
    for visibility in ["joined", "invited"] {
        let names = ["alice", "bob", "carol"].map(|name| format!("{name}-{visibility}"));
        let [alice, bob, carol] = [
            server.user(&names[0]).await,
            server.user(&names[1]).await,
            server.user(&names[2]).await,
        ];
        let request = json!({
            "preset": "public_chat",
            "initial_state": [
                { "type": "m.room.history_visibility", "state_key": "",
                  "content": { "history_visibility": visibility } },
                { "type": "m.room.encryption", "state_key": "",
                  "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            ],
        });
        let room = alice.create_room(request).await;
        bob.join(&room).await;
        let hidden = bob.send(&room, "between us").await;
        let before = carol.sync(None).await.next();
        carol.join(&room).await;
        let expected = state(&carol, &room).await;
        for since in [None, Some(&*before)] {
            let synced = carol.sync(since).await;
            assert_eq!(known(&synced, &room), expected, "{visibility}");
            assert_eq!(synced.room(&room)["timeline"]["limited"], true);
            assert!(!synced.timeline(&room).contains(&hidden));
        }
    }
}

async fn who_comes_back_knows_what_changed_meanwhile(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let visibility = json!({
        "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "joined" },
    });
    let request = json!({ "preset": "public_chat", "topic": "old", "initial_state": [visibility] });
    let room = alice.create_room(request).await;
    bob.join(&room).await;
    bob.leave(&room).await;
    let away = bob.sync(None).await.next();
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "new" }))
        .await;
    carol.join(&room).await;
    bob.join(&room).await;
    let expected = state(&bob, &room).await;
    for since in [None, Some(&*away)] {
        let synced = bob.sync(since).await;
        assert_eq!(known(&synced, &room), expected, "since {since:?}");
    }
}

/// Whether somebody's presence is part of an answer.
fn presents(synced: &Synced, whom: &User) -> bool {
    let events = synced.0["presence"]["events"].as_array();
    events.is_some_and(|events| events.iter().any(|event| event["sender"] == whom.id.as_str()))
}

async fn presence_is_told_to_newcomers_and_of_them(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    // Both are there before they meet.
    let [his, hers] = [bob.sync(None).await.next(), alice.sync(None).await.next()];
    let hers = alice.sync(Some(&hers)).await.next();
    let his = bob.sync(Some(&his)).await.next();
    bob.join(&room).await;
    assert!(presents(&alice.sync(Some(&hers)).await, &bob));
    assert!(presents(&bob.sync(Some(&his)).await, &alice));
}
