//! Which rooms are in a list, in which order, and what comes when they change.

use std::slice::from_ref;

use maru_tests::user::encode;
use maru_tests::{TestServer, on_both_engines};
use serde_json::{Value, json};

use super::{Connection, assert_nothing, list, rooms, texts};

on_both_engines!(
    the_most_active_rooms_come_first,
    a_room_that_falls_out_goes_on_from_where_it_was,
    lists_are_filtered_by_what_rooms_are,
    lists_are_filtered_by_tags_and_spaces,
    invitations_are_rooms_of_the_list,
    who_leaves_is_told_so_once,
    who_comes_back_is_sent_the_room_anew,
);

async fn the_most_active_rooms_come_first(server: TestServer) {
    let alice = server.user("alice").await;
    let mut all = Vec::new();
    for number in 0..5 {
        let room = alice
            .create_room(json!({ "name": format!("room {number}") }))
            .await;
        alice.send(&room, "hello").await;
        all.push(room);
    }
    let mut phone = Connection::new(&alice, list(0, 1));
    let first = phone.ask().await;
    assert_eq!(first["lists"]["all"]["count"], 5);
    let mut newest = [all[3].as_str(), &all[4]];
    newest.sort_unstable();
    assert_eq!(rooms(&first), newest);
    let room = &first["rooms"][&all[4]];
    assert_eq!(room["initial"], true);
    assert_eq!(room["name"], "room 4");
    assert_eq!(room["joined_count"], 1);
    assert_eq!(texts(&first, &all[4]), ["hello"]);
    assert!(room["bump_stamp"].as_u64() > first["rooms"][&all[3]]["bump_stamp"].as_u64());
    assert_nothing(&phone.ask().await);

    // What is said in a room that is not asked for moves it into the window.
    alice.send(&all[0], "again").await;
    let moved = phone.wait().await;
    assert_eq!(rooms(&moved), [all[0].as_str()]);
    assert_eq!(moved["rooms"][&all[0]]["initial"], true);
    assert_eq!(moved["rooms"][&all[0]]["num_live"], 1);

    // A larger window holds what was not sent.
    phone.body = list(0, 9);
    let grown = phone.ask().await;
    let mut others = [all[1].as_str(), &all[2]];
    others.sort_unstable();
    assert_eq!(rooms(&grown), others);
}

async fn a_room_that_falls_out_goes_on_from_where_it_was(server: TestServer) {
    let alice = server.user("alice").await;
    let [one, two] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let mut phone = Connection::new(&alice, list(0, 9));
    assert_eq!(rooms(&phone.ask().await).len(), 2);
    phone.body = list(0, 0);
    assert_nothing(&phone.ask().await);
    alice.send(&one, "1").await;
    assert_eq!(texts(&phone.ask().await, &one), ["1"]);
    alice.send(&two, "2").await;
    assert_eq!(texts(&phone.ask().await, &two), ["2"]);
    // The first room is out of the window now; two messages come there and one in the second, which stays on top.
    for text in ["3", "4"] {
        alice.send(&one, text).await;
    }
    alice.send(&two, "5").await;
    let answer = phone.ask().await;
    assert_eq!(rooms(&answer), [two.as_str()]);
    phone.body = list(0, 9);
    let answer = phone.ask().await;
    assert_eq!(rooms(&answer), [one.as_str()]);
    assert_eq!(texts(&answer, &one), ["3", "4"]);
    assert!(
        answer["rooms"][&one].get("initial").is_none(),
        "the device has it"
    );
}

async fn lists_are_filtered_by_what_rooms_are(server: TestServer) {
    let alice = server.user("alice").await;
    let plain = alice.create_room(json!({})).await;
    let encryption =
        json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    let secret = alice.create_room(json!({ "initial_state": [encryption] })).await;
    let space = alice
        .create_room(json!({ "creation_content": { "type": "m.space" } }))
        .await;
    let direct = json!({ "@bob:example.org": [plain] });
    let path = format!("user/{}/account_data/m.direct", encode(&alice.id));
    alice.put(&path, direct).await.ok();
    let filtered = async |filters: Value| {
        let mut body = list(0, 9);
        body["lists"]["all"]["filters"] = filters;
        let answer = Connection::new(&alice, body).ask().await;
        assert_eq!(answer["lists"]["all"]["count"], rooms(&answer).len());
        rooms(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let sorted = |mut rooms: Vec<&String>| {
        rooms.sort();
        rooms.into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(filtered(json!({ "is_dm": true })).await, from_ref(&plain));
    assert_eq!(
        filtered(json!({ "is_dm": false })).await,
        sorted(vec![&secret, &space])
    );
    assert_eq!(filtered(json!({ "is_encrypted": true })).await, from_ref(&secret));
    assert_eq!(
        filtered(json!({ "room_types": ["m.space"] })).await,
        from_ref(&space)
    );
    assert_eq!(
        filtered(json!({ "room_types": [null] })).await,
        sorted(vec![&plain, &secret])
    );
    assert_eq!(
        filtered(json!({ "not_room_types": ["m.space"] })).await,
        sorted(vec![&plain, &secret])
    );
    assert_eq!(
        filtered(json!({ "not_room_types": ["m.space"], "is_encrypted": false })).await,
        from_ref(&plain)
    );

    // A room that becomes a direct chat is told as one.
    let mut phone = Connection::new(&alice, list(0, 9));
    let first = phone.ask().await;
    assert_eq!(first["rooms"][&plain]["is_dm"], true);
    assert!(first["rooms"][&secret].get("is_dm").is_none());
    alice
        .put(&path, json!({ "@bob:example.org": [secret] }))
        .await
        .ok();
    let changed = phone.wait().await;
    assert_eq!(changed["rooms"][&plain]["is_dm"], false, "{changed:#}");
    assert_eq!(changed["rooms"][&secret]["is_dm"], true);
    // Also when the server has started anew since.
    alice.put(&path, json!({})).await.ok();
    let server = server.restart().await;
    phone.user = alice.on(server.api());
    let changed = phone.ask().await;
    assert_eq!(changed["rooms"][&secret]["is_dm"], false, "{changed:#}");
}

async fn lists_are_filtered_by_tags_and_spaces(server: TestServer) {
    let alice = server.user("alice").await;
    let [inside, outside] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let space = alice
        .create_room(json!({ "creation_content": { "type": "m.space" } }))
        .await;
    alice
        .set_state(
            &space,
            "m.space.child",
            &inside,
            json!({ "via": [server.name()] }),
        )
        .await;
    alice
        .set_state(&space, "m.space.child", &outside, json!({}))
        .await;
    let tag = |room: &str, tag: &str| format!("user/{}/rooms/{}/tags/{tag}", encode(&alice.id), encode(room));
    alice.put(&tag(&outside, "m.favourite"), json!({})).await.ok();
    let mut body = list(0, 9);
    let mut filtered = async |filters: Value| {
        body["lists"]["all"]["filters"] = filters;
        let answer = Connection::new(&alice, body.clone()).ask().await;
        rooms(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(filtered(json!({ "spaces": [space] })).await, from_ref(&inside));
    assert_eq!(filtered(json!({ "spaces": [] })).await, Vec::<String>::new());
    assert_eq!(
        filtered(json!({ "tags": ["m.favourite", "u.x"] })).await,
        from_ref(&outside)
    );
    let mut others = [inside.clone(), space.clone()];
    others.sort();
    assert_eq!(filtered(json!({ "not_tags": ["m.favourite"] })).await, others);

    // A tag that is set moves a room into the list of a connection that goes on.
    let mut body = list(0, 9);
    body["lists"]["all"]["filters"] = json!({ "tags": ["m.favourite"] });
    body["extensions"] = json!({ "account_data": { "enabled": true } });
    let mut phone = Connection::new(&alice, body);
    assert_eq!(rooms(&phone.ask().await), [outside.as_str()]);
    alice.put(&tag(&inside, "m.favourite"), json!({})).await.ok();
    let mut answer = phone.ask().await;
    while rooms(&answer).is_empty() {
        answer = phone.wait().await;
    }
    assert_eq!(rooms(&answer), [inside.as_str()]);
    alice.delete(&tag(&outside, "m.favourite")).await.ok();
    assert_eq!(phone.wait().await["lists"]["all"]["count"], 1);
}

async fn invitations_are_rooms_of_the_list(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "name": "Tea" })).await;
    let mut phone = Connection::new(&bob, list(0, 9));
    assert_nothing(&phone.ask().await);
    alice.invite(&room, &bob).await;
    let invited = phone.wait().await;
    let shown = &invited["rooms"][&room];
    assert_eq!(shown["membership"], "invite");
    let stripped = shown["invite_state"].as_array().unwrap();
    assert!(
        stripped.iter().any(|event| event["content"]["name"] == "Tea"),
        "{invited:#}"
    );
    assert!(stripped.iter().all(|event| event.get("event_id").is_none()));
    assert!(shown.get("timeline").is_none() && shown.get("name").is_none());
    assert_nothing(&phone.ask().await);
    let mut joined_only = list(0, 9);
    joined_only["lists"]["all"]["filters"] = json!({ "is_invite": false });
    assert_eq!(
        Connection::new(&bob, joined_only).ask().await["lists"]["all"]["count"],
        0
    );

    bob.join(&room).await;
    let joined = phone.wait().await;
    assert_eq!(joined["rooms"][&room]["initial"], true);
    assert_eq!(joined["rooms"][&room]["name"], "Tea");
}

async fn who_leaves_is_told_so_once(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut phone = Connection::new(&bob, list(0, 9));
    phone.ask().await;
    alice.send(&room, "bye").await;
    let path = format!("rooms/{}/kick", encode(&room));
    alice.post(&path, json!({ "user_id": bob.id })).await.ok();
    alice.send(&room, "is he gone?").await;
    let left = phone.wait().await;
    let shown = &left["rooms"][&room];
    assert_eq!(shown["membership"], "leave");
    assert_eq!(shown["required_state"][0]["content"]["membership"], "leave");
    assert_eq!(texts(&left, &room), ["bye"]);
    assert_eq!(left["lists"]["all"]["count"], 0);
    assert_nothing(&phone.ask().await);
    alice.send(&room, "yes").await;
    assert_nothing(&phone.ask().await);
}

async fn who_comes_back_is_sent_the_room_anew(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut phone = Connection::new(&bob, list(0, 9));
    phone.ask().await;
    bob.leave(&room).await;
    assert_eq!(phone.ask().await["rooms"][&room]["membership"], "leave");
    bob.join(&room).await;
    assert_eq!(phone.ask().await["rooms"][&room]["initial"], true);
    // Also when the device was away for both.
    bob.leave(&room).await;
    bob.join(&room).await;
    assert_eq!(phone.ask().await["rooms"][&room]["initial"], true);
    assert_nothing(&phone.ask().await);
}
