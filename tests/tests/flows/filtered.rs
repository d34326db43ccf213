//! What a device wants to hear of, and whom it does not (client-server API, "Filtering" and "Ignoring Users").

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    whole_states_come_also_with_a_cursor,
    state_after_the_timeline_stands_where_the_client_looks_for_it,
    a_filtered_timeline_loses_no_state,
    as_many_as_the_limit_are_found_of_what_is_wanted,
    nothing_is_said_where_nothing_is_wanted,
    of_ignored_users_nothing_is_heard,
);

async fn filtered(user: &User, since: Option<&str>, room: Value) -> Synced {
    let filter = encode(&json!({ "room": room, "presence": { "not_types": ["*"] } }).to_string());
    let since = since
        .map(|since| format!("&since={}", encode(since)))
        .unwrap_or_default();
    user.sync_with(&format!("timeout=0&filter={filter}{since}")).await
}

/// The topics that a room's state names.
fn topics(synced: &Synced, room: &str, part: &str) -> Vec<String> {
    let events = synced.room(room)[part]["events"].as_array().cloned();
    let topics = events
        .into_iter()
        .flatten()
        .filter(|event| event["type"] == "m.room.topic");
    topics
        .map(|event| event["content"]["topic"].as_str().unwrap().to_owned())
        .collect()
}

async fn set_topic(user: &User, room: &str, topic: &str) {
    user.set_state(room, "m.room.topic", "", json!({ "topic": topic }))
        .await;
}

async fn whole_states_come_also_with_a_cursor(server: TestServer) {
    let alice = server.user("alice").await;
    let quiet = alice.create_room(json!({ "topic": "quiet" })).await;
    let loud = alice.create_room(json!({ "topic": "loud" })).await;
    let since = alice.sync(None).await.next();
    let event = alice.send(&loud, "boo").await;
    let query = format!("timeout=0&full_state=true&since={}", encode(&since));
    let synced = alice.sync_with(&query).await;
    assert_eq!(topics(&synced, &quiet, "state"), ["quiet"]);
    assert_eq!(topics(&synced, &loud, "state"), ["loud"]);
    assert_eq!(synced.timeline(&loud), [event]);
    assert!(synced.timeline(&quiet).is_empty());
}

async fn state_after_the_timeline_stands_where_the_client_looks_for_it(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice
        .create_room(json!({ "preset": "public_chat", "topic": "old" }))
        .await;
    let parts = ["state", "state_after", "org.matrix.msc4222.state_after"];
    let asked = [
        "",
        "&use_state_after=true",
        "&org.matrix.msc4222.use_state_after=true",
    ];
    let present = |of: &Value| parts.map(|part| of.get(part).is_some());
    let wanted = |at: usize| [0, 1, 2].map(|part| part == at);
    let since = alice.sync(None).await.next();
    bob.join(&room).await;
    let mut left = Vec::new();
    for (at, asked) in asked.iter().enumerate() {
        let first = alice.sync_with(&format!("timeout=0{asked}")).await;
        assert_eq!(present(first.room(&room)), wanted(at), "a first sync");
        left.push(bob.sync_with(&format!("timeout=0{asked}")).await.next());
        set_topic(&alice, &room, asked).await;
        let query = format!("timeout=0&since={}{asked}", encode(&since));
        let next = alice.sync_with(&query).await;
        let told = topics(&next, &room, parts[at]);
        // Before the timeline there is nothing to say: the timeline says it all.
        let after = if at == 0 {
            Vec::new()
        } else {
            vec![(*asked).to_owned()]
        };
        assert_eq!(told, after, "{asked}");
    }
    bob.leave(&room).await;
    for (at, (asked, since)) in asked.iter().zip(left).enumerate() {
        let query = format!("timeout=0&since={}{asked}", encode(&since));
        let synced = bob.sync_with(&query).await;
        let left = &synced.0["rooms"]["leave"][&room];
        assert_eq!(present(left), wanted(at), "a room that was left");
    }
    // An invitation that was declined: the client takes the user's membership from that part alone.
    let secret = alice.create_room(json!({ "invite": [bob.id] })).await;
    let invited = bob.sync(None).await.next();
    bob.leave(&secret).await;
    for (part, asked) in parts.iter().zip(asked).skip(1) {
        let query = format!("timeout=0&since={}{asked}", encode(&invited));
        let synced = bob.sync_with(&query).await;
        let state = &synced.0["rooms"]["leave"][&secret][*part]["events"];
        assert_eq!(state[0]["content"]["membership"], "leave", "{part}");
    }
}

async fn a_filtered_timeline_loses_no_state(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice
        .create_room(json!({ "preset": "public_chat", "topic": "old" }))
        .await;
    bob.join(&room).await;
    let messages = [
        json!({ "timeline": { "types": ["m.room.message"] } }),
        json!({ "timeline": { "not_types": ["m.room.topic"] } }),
    ];
    for (n, filter) in messages.into_iter().enumerate() {
        let since = filtered(&bob, None, filter.clone()).await.next();
        let old = topics(&bob.sync(None).await, &room, "state");
        set_topic(&alice, &room, "between").await;
        let event = alice.send(&room, "message").await;
        let new = format!("new {n}");
        set_topic(&alice, &room, &new).await;
        for since in [None, Some(&*since)] {
            let synced = filtered(&bob, since, filter.clone()).await;
            assert_eq!(synced.timeline(&room).last(), Some(&event), "{filter}");
            assert_eq!(
                topics(&synced, &room, "state"),
                [&*new],
                "{filter}, after {old:?}"
            );
            // A gathered answer says the same as one from memory.
            let other = bob.second_device().await;
            let synced = filtered(&other, since, filter.clone()).await;
            assert_eq!(
                topics(&synced, &room, "state"),
                [&*new],
                "{filter}, another device"
            );
        }
    }
}

async fn as_many_as_the_limit_are_found_of_what_is_wanted(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.sync(None).await.next();
    let mut wanted = Vec::new();
    for n in 0..3 {
        wanted.push(
            alice
                .send_event(&room, "org.example.wanted", json!({ "n": n }))
                .await,
        );
        for _ in 0..3 {
            alice.send(&room, "not wanted").await;
        }
    }
    for (limit, limited) in [(1, true), (2, true), (3, false)] {
        let filter = json!({ "timeline": { "limit": limit, "types": ["org.example.wanted"] } });
        let synced = filtered(&alice, Some(&start), filter.clone()).await;
        assert_eq!(synced.timeline(&room), wanted[3 - limit..], "from memory");
        assert_eq!(synced.room(&room)["timeline"]["limited"], limited);
        let synced = filtered(&alice, None, filter).await;
        assert_eq!(synced.timeline(&room), wanted[3 - limit..], "from the beginning");
    }
    let server = server.restart().await;
    let alice = alice.on(server.api());
    let filter = json!({ "timeline": { "limit": 2, "types": ["org.example.wanted"] } });
    let synced = filtered(&alice, Some(&start), filter).await;
    assert_eq!(synced.timeline(&room), wanted[1..], "from the database");
    assert_eq!(synced.room(&room)["timeline"]["limited"], true);
}

async fn nothing_is_said_where_nothing_is_wanted(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let nothing = json!({
        "timeline": { "types": [] }, "state": { "types": [] },
        "ephemeral": { "types": [] }, "account_data": { "types": [] },
    });
    let since = filtered(&alice, None, nothing.clone()).await.next();
    bob.send(&room, "hello").await;
    let topic = json!({ "typing": true, "timeout": 30_000 });
    let path = format!("rooms/{}/typing/{}", encode(&room), encode(&bob.id));
    bob.put(&path, topic).await.ok();
    let synced = filtered(&alice, Some(&since), nothing).await;
    assert!(synced.0["rooms"].is_null(), "{}", synced.0);
}

async fn of_ignored_users_nothing_is_heard(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("mallory").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let path = format!("user/{}/account_data/m.ignored_user_list", encode(&alice.id));
    let list = json!({ "ignored_users": { bob.id.clone(): {}, "no user": {} } });
    alice.put(&path, list).await.ok();
    let since = alice.sync(None).await.next();
    let since = alice.sync(Some(&since)).await.next();
    bob.send(&room, "spam").await;
    bob.send(&room, &format!("spam for {}", alice.id)).await;
    let invitation = bob.create_room(json!({ "invite": [alice.id] })).await;
    let news = alice.sync(Some(&since)).await;
    assert!(news.room(&room).is_null(), "{}", news.0);
    assert!(news.0["rooms"]["invite"].is_null(), "{}", news.0);
    let anew = alice.sync(None).await;
    assert!(anew.texts(&room).is_empty());
    assert!(anew.0["rooms"]["invite"][&invitation].is_null());
    let counts = &anew.room(&room)["unread_notifications"];
    assert_eq!(counts["notification_count"], 0, "{counts}");
    // What an ignored user makes of the room is shown.
    bob.leave(&room).await;
    let news = alice.sync(Some(&since)).await;
    assert_eq!(news.events(&room).len(), 1, "{}", news.0);
    // Who is forgiven is heard.
    alice.put(&path, json!({ "ignored_users": {} })).await.ok();
    let news = alice.sync(Some(&since)).await;
    assert!(news.0["rooms"]["invite"][&invitation].is_object());
}
