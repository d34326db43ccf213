//! Nobody finds what they may not see.

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

use super::{caught_up, edit, found, searched};

on_both_engines!(
    the_newest_text_is_found,
    what_was_redacted_is_found_by_nobody,
    members_find_what_they_may_see,
    who_has_left_finds_what_was_there,
    nobody_finds_what_ignored_people_say,
    messages_of_erased_users_are_not_for_newcomers,
    nothing_encrypted_is_searched,
);

async fn the_newest_text_is_found(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let said = alice.send(&room, "first thought").await;
    let second = edit(&alice, &room, &said, "second thought").await;
    // Not the sender's.
    edit(&bob, &room, &said, "forged thought").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "second").await, [&*said]);
    assert_eq!(
        found(&alice, "thought").await,
        [&*said],
        "the edit is no result of its own"
    );
    assert!(found(&alice, "first").await.is_empty());
    assert!(found(&bob, "forged").await.is_empty());
    let answer = searched(&bob, json!({ "search_term": "second" })).await;
    let bundled = &answer["results"][0]["result"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(bundled["event_id"], second.as_str());
    let third = edit(&alice, &room, &said, "third thought").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "third").await, [&*said]);
    assert!(found(&alice, "second").await.is_empty());
    // An edit that is taken back leaves what was there before it.
    alice.redact(&room, &third).await;
    assert!(found(&alice, "third").await.is_empty(), "at once");
    caught_up(&server).await;
    assert!(found(&alice, "third").await.is_empty());
    assert_eq!(found(&alice, "second").await, [&*said]);
    alice.redact(&room, &second).await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "first").await, [&*said]);
    alice.redact(&room, &said).await;
    caught_up(&server).await;
    assert!(found(&alice, "first").await.is_empty());
}

async fn what_was_redacted_is_found_by_nobody(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "regretted words").await;
    let kept = alice.send(&room, "kept words").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "words").await, [&*kept, &said]);
    alice.redact(&room, &said).await;
    assert_eq!(found(&alice, "words").await, [&*kept], "before the index knows");
    caught_up(&server).await;
    assert_eq!(found(&alice, "words").await, [&*kept]);
    let in_index = match server.data().engine() {
        maru_tests::Engine::Sqlite => {
            "SELECT COUNT(*) FROM search_index WHERE search_index MATCH '\"regretted\"'"
        }
        maru_tests::Engine::Postgres => {
            "SELECT COUNT(*) FROM search_index WHERE words @@ '''regretted'''::tsquery"
        }
    };
    assert_eq!(server.data().number(in_index).await, 0);
}

/// A room with a visibility of its history.
async fn room_of(owner: &User, visibility: &str) -> String {
    let content = json!({ "history_visibility": visibility });
    let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": content }]);
    owner
        .create_room(json!({ "preset": "public_chat", "initial_state": state }))
        .await
}

async fn members_find_what_they_may_see(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for (visibility, sees_before) in [
        ("joined", false),
        ("invited", false),
        ("shared", true),
        ("world_readable", true),
    ] {
        let room = room_of(&alice, visibility).await;
        let before = alice.send(&room, &format!("before {visibility}")).await;
        caught_up(&server).await;
        assert!(
            found(&bob, visibility).await.is_empty(),
            "{visibility}: not in the room"
        );
        bob.join(&room).await;
        let after = alice.send(&room, &format!("after {visibility}")).await;
        caught_up(&server).await;
        let seen = found(&bob, visibility).await;
        let expected = if sees_before {
            vec![after.clone(), before.clone()]
        } else {
            vec![after.clone()]
        };
        assert_eq!(seen, expected, "{visibility}");
        // What cannot be seen is not counted either.
        let answer = searched(&bob, json!({ "search_term": visibility })).await;
        assert_eq!(answer["count"], expected.len());
        assert_eq!(found(&alice, visibility).await, [&*after, &before]);
    }
}

async fn who_has_left_finds_what_was_there(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = room_of(&alice, "joined").await;
    bob.join(&room).await;
    carol.join(&room).await;
    let during = alice.send(&room, "together here").await;
    bob.leave(&room).await;
    alice
        .post(
            &format!("rooms/{}/ban", encode(&room)),
            json!({ "user_id": carol.id }),
        )
        .await
        .ok();
    let after = alice.send(&room, "alone here").await;
    caught_up(&server).await;
    for gone in [&bob, &carol] {
        assert_eq!(found(gone, "here").await, [&*during], "{}", gone.name);
        let answer = searched(gone, json!({ "search_term": "here", "include_state": true })).await;
        let state = answer["state"][&room].as_array().unwrap();
        let banned = |event: &Value| event["content"]["membership"] == "ban" && gone.name == "bob";
        assert!(!state.iter().any(banned), "the state that was left behind");
        let context = json!({ "before_limit": 5, "after_limit": 5 });
        let answer = searched(
            gone,
            json!({ "search_term": "together", "event_context": context }),
        )
        .await;
        assert!(!answer.to_string().contains("alone"), "{answer}");
    }
    assert_eq!(found(&alice, "here").await, [&*after, &during]);
    bob.post(&format!("rooms/{}/forget", encode(&room)), json!({}))
        .await
        .ok();
    assert!(found(&bob, "here").await.is_empty(), "it is forgotten");
    let open = room_of(&alice, "world_readable").await;
    bob.join(&open).await;
    bob.leave(&open).await;
    let later = alice.send(&open, "for the world").await;
    caught_up(&server).await;
    assert_eq!(found(&bob, "world").await, [&*later], "anybody may read it");
    assert!(
        found(&carol, "world").await.is_empty(),
        "who was never there does not look there"
    );
}

async fn nobody_finds_what_ignored_people_say(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let own = alice.send(&room, "a word").await;
    let other = bob.send(&room, "a word").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "word").await, [&*other, &own]);
    let path = format!("user/{}/account_data/m.ignored_user_list", encode(&alice.id));
    let ignored = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&path, ignored).await.ok();
    assert_eq!(found(&alice, "word").await, [&*own]);
    let context = json!({ "before_limit": 5, "after_limit": 5 });
    let answer = searched(&alice, json!({ "search_term": "word", "event_context": context })).await;
    assert!(!answer.to_string().contains(&other), "{answer}");
    assert_eq!(found(&bob, "word").await, [&*other, &own]);
}

async fn messages_of_erased_users_are_not_for_newcomers(server: TestServer) {
    let [alice, bob, dave] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("dave").await,
    ];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let said = bob.send(&room, "a secret").await;
    let auth = json!({ "type": "m.login.password", "user": bob.name, "password": bob.password });
    bob.post("account/deactivate", json!({ "auth": auth, "erase": true }))
        .await
        .ok();
    dave.join(&room).await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "secret").await, [&*said]);
    assert!(found(&dave, "secret").await.is_empty());
}

async fn nothing_encrypted_is_searched(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "visible", "body": "visible" });
    alice.send_event(&room, "m.room.encrypted", content).await;
    alice
        .send_event(&room, "org.example.other", json!({ "body": "visible" }))
        .await;
    alice
        .send_event(&room, "m.room.message", json!({ "body": { "visible": 1 } }))
        .await;
    caught_up(&server).await;
    assert!(found(&alice, "visible").await.is_empty());
}
