//! What is sent of a room: timelines, state, counts.

use std::slice::from_ref;

use maru_tests::user::encode;
use maru_tests::{TestServer, on_both_engines};
use serde_json::{Value, json};

use super::{Connection, V4, assert_nothing, list, required, rooms, texts};

on_both_engines!(
    a_waiting_device_is_told_what_is_said,
    a_room_may_be_asked_for_by_itself,
    more_events_come_when_more_are_asked_for,
    a_long_timeline_is_cut,
    the_state_that_is_required_comes,
    members_come_as_they_speak,
    rooms_without_a_name_have_heroes,
    unread_messages_are_counted,
    the_accepted_form_has_its_own_words,
    what_is_ignored_is_not_shown,
    nobody_sees_what_is_not_theirs,
);

fn subscription(room: &str, timeline_limit: usize, required_state: Value) -> Value {
    json!({ "room_subscriptions": {
        room: { "timeline_limit": timeline_limit, "required_state": required_state }
    } })
}

async fn a_waiting_device_is_told_what_is_said(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut phone = Connection::new(&bob, list(0, 9));
    phone.ask().await;
    let waiting = tokio::spawn(async move {
        let answer = phone.wait().await;
        (phone, answer)
    });
    let sent = alice.send(&room, "안녕").await;
    let (mut phone, answer) = waiting.await.unwrap();
    assert_eq!(texts(&answer, &room), ["안녕"]);
    assert_eq!(answer["rooms"][&room]["num_live"], 1);
    assert_eq!(answer["rooms"][&room]["timeline"][0]["event_id"], sent.as_str());
    assert!(answer["rooms"][&room].get("initial").is_none());
    // The sender's own device knows its transaction.
    let mut own = Connection::new(&alice, list(0, 9));
    own.ask().await;
    alice
        .send_as(
            &room,
            "m.room.message",
            "mine",
            json!({ "msgtype": "m.text", "body": "x" }),
        )
        .await
        .ok();
    let echo = own.wait().await;
    assert_eq!(
        echo["rooms"][&room]["timeline"][0]["unsigned"]["transaction_id"],
        "mine"
    );
    assert_eq!(texts(&phone.wait().await, &room), ["x"]);
}

async fn a_room_may_be_asked_for_by_itself(server: TestServer) {
    let alice = server.user("alice").await;
    let [one, two] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let mut phone = Connection::new(&alice, subscription(&one, 10, json!([])));
    assert_eq!(rooms(&phone.ask().await), [one.as_str()]);
    alice.send(&two, "not asked for").await;
    assert_nothing(&phone.ask().await);
    alice.send(&one, "asked for").await;
    assert_eq!(texts(&phone.ask().await, &one), ["asked for"]);
    // One that nobody may see is not there.
    let bob = server.user("bob").await;
    let mut stranger = Connection::new(&bob, subscription(&one, 10, json!([])));
    assert_nothing(&stranger.ask().await);
}

async fn more_events_come_when_more_are_asked_for(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for text in ["1", "2", "3"] {
        alice.send(&room, text).await;
    }
    let mut body = list(0, 9);
    body["lists"]["all"]["timeline_limit"] = json!(1);
    let mut phone = Connection::new(&alice, body.clone());
    let first = phone.ask().await;
    assert_eq!(texts(&first, &room), ["3"]);
    assert_eq!(first["rooms"][&room]["limited"], true);
    body["room_subscriptions"] = json!({ room.as_str(): { "timeline_limit": 3, "required_state": [] } });
    phone.body = body.clone();
    let more = phone.ask().await;
    assert_eq!(texts(&more, &room), ["1", "2", "3"]);
    assert_eq!(more["rooms"][&room]["unstable_expanded_timeline"], true);
    assert_eq!(more["rooms"][&room]["num_live"], 0);
    assert!(more["rooms"][&room].get("initial").is_none());
    assert_nothing(&phone.ask().await);
    alice.send(&room, "4").await;
    let new = phone.ask().await;
    assert_eq!(texts(&new, &room), ["4"]);
    assert!(new["rooms"][&room].get("unstable_expanded_timeline").is_none());
}

async fn a_long_timeline_is_cut(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut phone = Connection::new(&alice, subscription(&room, 2, json!([["m.room.topic", ""]])));
    phone.ask().await;
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "tea" }))
        .await;
    for text in ["1", "2", "3"] {
        alice.send(&room, text).await;
    }
    let answer = phone.ask().await;
    let shown = &answer["rooms"][&room];
    assert_eq!(texts(&answer, &room), ["2", "3"]);
    assert_eq!(shown["limited"], true);
    assert_eq!(
        shown["required_state"][0]["content"]["topic"], "tea",
        "what the cut leaves out of the state"
    );
    let from = shown["prev_batch"].as_str().unwrap();
    let path = format!(
        "rooms/{}/messages?dir=b&limit=1&from={}",
        encode(&room),
        encode(from)
    );
    assert_eq!(alice.get(&path).await.ok()["chunk"][0]["content"]["body"], "1");
    // Without a timeline, only the state comes.
    phone.body = subscription(&room, 0, json!([["m.room.topic", ""]]));
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "coffee" }))
        .await;
    let answer = phone.ask().await;
    let shown = &answer["rooms"][&room];
    assert_eq!(shown["timeline"].as_array().map_or(0, Vec::len), 0, "{answer:#}");
    assert_eq!(shown["required_state"][0]["content"]["topic"], "coffee");
}

async fn the_state_that_is_required_comes(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({ "name": "Tea", "topic": "leaves" }))
        .await;
    alice.set_state(&room, "org.example.a", "1", json!({})).await;
    alice.set_state(&room, "org.example.a", "2", json!({})).await;
    let slots = async |required_state: Value| {
        let answer = Connection::new(&alice, subscription(&room, 1, required_state))
            .ask()
            .await;
        required(&answer, &room)
    };
    let slot = |event_type: &str, state_key: &str| (event_type.to_owned(), state_key.to_owned());
    assert_eq!(slots(json!([])).await, []);
    assert_eq!(
        slots(json!([
            ["org.example.a", "*"],
            ["m.room.name", ""],
            ["m.room.none", ""]
        ]))
        .await,
        [
            slot("m.room.name", ""),
            slot("org.example.a", "1"),
            slot("org.example.a", "2")
        ]
    );
    assert_eq!(slots(json!([["*", "2"]])).await, [slot("org.example.a", "2")]);
    assert_eq!(
        slots(json!([["m.room.member", "$ME"]])).await,
        [slot("m.room.member", &alice.id)]
    );
    let all = slots(json!([["*", "*"]])).await;
    assert!(
        all.len() >= 9 && all.contains(&slot("m.room.member", &alice.id)),
        "{all:?}"
    );
    assert_eq!(
        slots(json!({ "include": [{}], "exclude": [{ "type": "m.room.topic" }] }))
            .await
            .len(),
        all.len() - 1
    );

    // What is required later comes at once, and what changes comes when it does.
    let mut phone = Connection::new(&alice, subscription(&room, 1, json!([["m.room.name", ""]])));
    phone.ask().await;
    phone.body = subscription(&room, 1, json!([["m.room.name", ""], ["m.room.topic", ""]]));
    let more = phone.ask().await;
    assert_eq!(required(&more, &room), [slot("m.room.topic", "")]);
    assert_nothing(&phone.ask().await);
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Coffee" }))
        .await;
    alice
        .set_state(&room, "org.example.a", "1", json!({ "x": 1 }))
        .await;
    let changed = phone.ask().await;
    assert_eq!(required(&changed, &room), [slot("m.room.name", "")]);
    assert_eq!(changed["rooms"][&room]["name"], "Coffee");
    alice.set_state(&room, "m.room.name", "", json!({})).await;
    let removed = phone.ask().await;
    assert_eq!(removed["rooms"][&room].get("name"), Some(&Value::Null));
}

async fn members_come_as_they_speak(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.send(&room, "1").await;
    let lazily = json!([["m.room.member", "$LAZY"], ["*", "*"]]);
    let mut phone = Connection::new(&alice, subscription(&room, 1, lazily));
    let members = |answer: &Value| {
        let slots = required(answer, &room);
        let members = slots
            .into_iter()
            .filter(|(event_type, _)| event_type == "m.room.member");
        members.map(|(_, user)| user).collect::<Vec<_>>()
    };
    let first = phone.ask().await;
    assert_eq!(members(&first), from_ref(&alice.id));
    assert!(
        required(&first, &room).len() > 4,
        "the rest of the state is there"
    );
    bob.send(&room, "2").await;
    assert_eq!(members(&phone.ask().await), from_ref(&bob.id));
    bob.send(&room, "3").await;
    assert_eq!(
        members(&phone.ask().await),
        Vec::<String>::new(),
        "the device has it"
    );
    // Whose membership changes is told, whether they speak or not.
    carol.leave(&room).await;
    assert!(members(&phone.ask().await).contains(&carol.id));
}

async fn rooms_without_a_name_have_heroes(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let path = format!("profile/{}/displayname", encode(&bob.id));
    bob.put(&path, json!({ "displayname": "Bob the Great" }))
        .await
        .ok();
    let mut phone = Connection::new(&alice, list(0, 9));
    let first = phone.ask().await;
    assert_eq!(first["rooms"][&room]["heroes"], json!([]));
    bob.join(&room).await;
    let joined = phone.ask().await;
    let shown = &joined["rooms"][&room];
    assert_eq!(
        shown["heroes"],
        json!([{ "user_id": bob.id, "displayname": "Bob the Great" }])
    );
    assert_eq!(shown["joined_count"], 2);
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Tea" }))
        .await;
    let named = phone.ask().await;
    assert_eq!(named["rooms"][&room]["name"], "Tea");
    assert!(named["rooms"][&room].get("heroes").is_none());
}

async fn unread_messages_are_counted(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut phone = Connection::new(&bob, list(0, 9));
    let first = phone.ask().await;
    assert_eq!(first["rooms"][&room]["notification_count"], 0);
    let sent = alice.send(&room, "hello").await;
    let told = phone.ask().await;
    assert_eq!(told["rooms"][&room]["notification_count"], 1);
    let path = format!("rooms/{}/receipt/m.read/{}", encode(&room), encode(&sent));
    bob.post(&path, json!({})).await.ok();
    let read = phone.wait().await;
    assert_eq!(read["rooms"][&room]["notification_count"], 0, "{read:#}");
}

async fn the_accepted_form_has_its_own_words(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "1").await;
    alice.send(&room, "2").await;
    let mut body = json!({ "timeout": 0, "lists": { "all": {
        "range": [0, 9],
        "timeline_limit": 1,
        "required_state": { "include": [{ "type": "m.room.create", "state_key": "" }], "lazy_members": true },
    } } });
    let answer = alice.post(V4, body.clone()).await.ok();
    let shown = &answer["rooms"][&room];
    assert_eq!(shown["timeline_events"][0]["content"]["body"], "2");
    assert_eq!(shown["membership"], "join");
    assert_eq!(shown["lists"], json!(["all"]));
    assert_eq!(shown["initial"], true);
    body["pos"] = answer["pos"].clone();
    body["lists"]["all"]["timeline_limit"] = json!(2);
    let answer = alice.post(V4, body.clone()).await.ok();
    let shown = &answer["rooms"][&room];
    assert_eq!(shown["timeline_events"].as_array().unwrap().len(), 2);
    assert_eq!(shown["expanded_timeline"], true);
    // Without a range it is all rooms.
    body["pos"] = answer["pos"].clone();
    body["lists"]["all"].as_object_mut().unwrap().remove("range");
    let other = bob.create_room(json!({ "name": "Other" })).await;
    bob.invite(&other, &alice).await;
    let answer = alice.post(V4, body).await.ok();
    let shown = &answer["rooms"][&other];
    assert_eq!(shown["membership"], "invite");
    assert!(shown["stripped_state"].is_array());
    let features = alice.get("/_matrix/client/versions").await.ok();
    assert_eq!(
        features["unstable_features"]["org.matrix.simplified_msc3575"],
        true
    );
}

async fn what_is_ignored_is_not_shown(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let path = format!("user/{}/account_data/m.ignored_user_list", encode(&alice.id));
    alice
        .put(&path, json!({ "ignored_users": { bob.id.as_str(): {} } }))
        .await
        .ok();
    let mut phone = Connection::new(&alice, list(0, 9));
    bob.send(&room, "before").await;
    assert_eq!(texts(&phone.ask().await, &room), Vec::<String>::new());
    bob.send(&room, "after").await;
    alice.send(&room, "mine").await;
    assert_eq!(texts(&phone.wait().await, &room), ["mine"]);
    let other = bob.create_room(json!({})).await;
    bob.invite(&other, &alice).await;
    assert_nothing(&phone.ask().await);
}

async fn nobody_sees_what_is_not_theirs(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let visibility =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": [visibility] }))
        .await;
    alice.send(&room, "before he came").await;
    bob.join(&room).await;
    alice.send(&room, "while he is here").await;
    let body = subscription(&room, 50, json!([["*", "*"]]));
    let first = Connection::new(&bob, body.clone()).ask().await;
    assert_eq!(texts(&first, &room), ["while he is here"]);
    bob.leave(&room).await;
    alice.send(&room, "after he left").await;
    assert_nothing(&Connection::new(&bob, body).ask().await);
}
