//! How a device learns that its user is out of a room.

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, federate, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    an_invitation_that_ends_is_told,
    a_knock_that_is_turned_down_is_told,
    an_invitation_from_another_server_that_ends_is_told,
    a_room_that_was_forgotten_meanwhile_is_told_once,
    a_room_joined_and_left_meanwhile_comes_with_its_state,
    who_was_never_in_is_not_told_who_is,
);

/// A room that the user is out of, in an answer.
fn left<'s>(synced: &'s Synced, room: &str) -> &'s Value {
    &synced.0["rooms"]["leave"][room]
}

/// How the user is out of a room, by the last event that is told of it.
fn last_membership(synced: &Synced, room: &str) -> Option<String> {
    let events = left(synced, room)["timeline"]["events"].as_array()?;
    events.last()?["content"]["membership"]
        .as_str()
        .map(str::to_owned)
}

async fn act(user: &User, room: &str, what: &str, whom: &User) {
    let path = format!("rooms/{}/{what}", encode(room));
    user.post(&path, json!({ "user_id": whom.id })).await.ok();
}

async fn an_invitation_that_ends_is_told(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for how in ["declined", "withdrawn"] {
        let room = alice.create_room(json!({})).await;
        alice.invite(&room, &bob).await;
        let invited = bob.sync(None).await;
        assert!(invited.0["rooms"]["invite"][&room].is_object());
        let mut poll = {
            let (bob, since) = (bob.clone(), invited.next());
            tokio::spawn(async move { bob.wait(&since).await })
        };
        match how {
            "declined" => bob.leave(&room).await,
            _ => act(&alice, &room, "kick", &bob).await,
        }
        loop {
            let synced = poll.await.unwrap();
            if last_membership(&synced, &room).as_deref() == Some("leave") {
                break;
            }
            let (bob, since) = (bob.clone(), synced.next());
            poll = tokio::spawn(async move { bob.wait(&since).await });
        }
        let synced = bob.sync(Some(&invited.next())).await;
        assert_eq!(last_membership(&synced, &room).as_deref(), Some("leave"), "{how}");
        assert!(left(&bob.sync(Some(&synced.next())).await, &room).is_null());
    }
}

async fn a_knock_that_is_turned_down_is_told(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let rule = json!({ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } });
    let room = alice.create_room(json!({ "initial_state": [rule] })).await;
    bob.post(&format!("knock/{}", encode(&room)), json!({}))
        .await
        .ok();
    let waiting = bob.sync(None).await;
    assert!(waiting.0["rooms"]["knock"][&room].is_object());
    act(&alice, &room, "kick", &bob).await;
    let synced = bob.sync(Some(&waiting.next())).await;
    assert_eq!(last_membership(&synced, &room).as_deref(), Some("leave"));
}

async fn an_invitation_from_another_server_that_ends_is_told(server: TestServer) {
    let elsewhere = TestServer::start().await;
    federate(&[&elsewhere, &server]).await;
    let (alice, bob) = (elsewhere.user("alice").await, server.user("bob").await);
    // A room that bob's server has never been in, and one that it has been in.
    let [strange, known] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({ "preset": "public_chat" })).await,
    ];
    bob.join_via(&known, elsewhere.name()).await.ok();
    bob.leave(&known).await;
    alice.sees_member(&known, &bob, "leave").await;
    for room in [strange, known] {
        for how in ["declined", "withdrawn"] {
            let before = bob.sync(None).await.next();
            alice.invite(&room, &bob).await;
            // Whoever listens hears of it without starting over.
            let mut invited = bob.wait(&before).await;
            while invited.0["rooms"]["invite"][&room].is_null() {
                invited = bob.wait(&invited.next()).await;
            }
            match how {
                "declined" => bob.leave(&room).await,
                _ => act(&alice, &room, "kick", &bob).await,
            }
            let mut synced = bob.wait(&invited.next()).await;
            while left(&synced, &room).is_null() {
                synced = bob.wait(&synced.next()).await;
            }
            assert_eq!(last_membership(&synced, &room).as_deref(), Some("leave"), "{how}");
            alice.sees_member(&room, &bob, "leave").await;
        }
    }
}

async fn a_room_that_was_forgotten_meanwhile_is_told_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let away = bob.sync(None).await.next();
    bob.leave(&room).await;
    bob.post(&format!("rooms/{}/forget", encode(&room)), json!({}))
        .await
        .ok();
    let synced = bob.sync(Some(&away)).await;
    assert_eq!(last_membership(&synced, &room).as_deref(), Some("leave"));
    assert!(left(&bob.sync(Some(&synced.next())).await, &room).is_null());
    let filter = encode(&json!({ "room": { "include_leave": true } }).to_string());
    let anew = bob.sync_with(&format!("timeout=0&filter={filter}")).await;
    assert!(
        left(&anew, &room).is_null(),
        "a device that starts over has never known it"
    );
}

async fn a_room_joined_and_left_meanwhile_comes_with_its_state(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for visibility in ["shared", "joined"] {
        let rule = json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": visibility },
        });
        let request = json!({ "preset": "public_chat", "name": "hall", "initial_state": [rule] });
        let room = alice.create_room(request).await;
        let before = bob.sync(None).await.next();
        bob.join(&room).await;
        bob.leave(&room).await;
        alice
            .set_state(&room, "m.room.name", "", json!({ "name": "not for bob" }))
            .await;
        let synced = bob.sync(Some(&before)).await;
        assert_eq!(last_membership(&synced, &room).as_deref(), Some("leave"));
        let room = left(&synced, &room);
        let events = room["state"]["events"].as_array().unwrap().iter();
        let events = events.chain(room["timeline"]["events"].as_array().unwrap());
        let names = events.filter(|event| event["type"] == "m.room.name");
        let names: Vec<_> = names.map(|event| &event["content"]["name"]).collect();
        assert_eq!(names, ["hall"], "{visibility}");
    }
}

async fn who_was_never_in_is_not_told_who_is(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "name": "secret" })).await;
    for n in 0..4 {
        alice.send(&room, &n.to_string()).await;
    }
    let before = bob.sync(None).await.next();
    alice.invite(&room, &bob).await;
    bob.leave(&room).await;
    let synced = bob.sync(Some(&before)).await;
    assert!(
        synced.0["device_lists"]["left"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    let filter = json!({ "room": { "include_leave": true, "timeline": { "limit": 1 } } });
    let filter = encode(&filter.to_string());
    let anew = bob.sync_with(&format!("timeout=0&filter={filter}")).await;
    assert_eq!(last_membership(&anew, &room).as_deref(), Some("leave"));
    assert_eq!(left(&anew, &room)["state"]["events"], json!([]));
}
