//! Reading rooms: history in both directions, single events and their surroundings, state, relations, threads.
//!
//! Over 500 lines, because each story of a reader is told whole.

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

use maru_tests::user::{encode, texts};
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    history_is_read_in_both_directions,
    a_filter_that_matches_little_still_comes_to_the_end,
    an_event_is_shown_with_its_surroundings,
    senders_come_with_lazily_loaded_pages,
    own_transaction_ids_come_back_to_their_device,
    redacted_events_say_why,
    state_events_say_what_they_replaced,
    state_is_read_whole_and_by_key,
    members_are_listed,
    relations_are_bundled_and_listed,
    threads_are_listed_by_their_latest_event,
    redacted_answers_leave_their_thread,
    events_are_found_by_time,
    strangers_are_told_nothing,
    ignored_users_are_left_out,
    a_thread_is_counted_without_ignored_users,
    relations_across_rooms_do_not_count,
);

fn room_path(room: &str, rest: &str) -> String {
    format!("rooms/{}/{rest}", encode(room))
}

fn v1(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v1/rooms/{}/{rest}", encode(room))
}

async fn pages(user: &User, room: &str, direction: &str, limit: usize, filter: Option<Value>) -> Vec<Value> {
    let mut from = String::new();
    let filter = filter.map_or(String::new(), |filter| {
        format!("&filter={}", encode(&filter.to_string()))
    });
    let mut events = Vec::new();
    for _ in 0..1000 {
        let path = room_path(
            room,
            &format!("messages?dir={direction}&limit={limit}{from}{filter}"),
        );
        let page = user.get(&path).await.ok();
        events.extend(page["chunk"].as_array().unwrap().iter().cloned());
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", encode(end)),
            None => return events,
        }
    }
    panic!("history has no end");
}

fn ids(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn relate(user: &User, room: &str, event_type: &str, kind: &str, to: &str, body: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": body, "m.new_content": { "msgtype": "m.text", "body": body },
        "m.relates_to": { "rel_type": kind, "event_id": to, "key": "x" },
    });
    user.send_event(room, event_type, content).await
}

async fn history_is_read_in_both_directions(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    for n in 0..57 {
        alice.send(&room, &format!("message {n}")).await;
    }
    let expected: Vec<_> = (0..57).map(|n| format!("message {n}")).collect();
    let forward = pages(&alice, &room, "f", 10, None).await;
    assert_eq!(texts(&forward), expected);
    assert_eq!(forward[0]["type"], "m.room.create");
    for limit in [1, 7, 1000] {
        let mut backward = pages(&alice, &room, "b", limit, None).await;
        backward.reverse();
        assert_eq!(ids(&backward), ids(&forward), "pages of {limit}");
    }
    let default = alice.get(&room_path(&room, "messages?dir=b")).await.ok();
    assert_eq!(default["chunk"].as_array().unwrap().len(), 10);
    let first = &default["chunk"][0];
    assert_eq!(first["room_id"], room.as_str());
    assert_eq!(first["unsigned"]["membership"], "join");
    assert!(first["unsigned"]["age"].is_u64());

    // One token serves both directions, and `to` stops.
    let end = default["end"].as_str().unwrap();
    let onward = room_path(&room, &format!("messages?dir=f&limit=100&from={}", encode(end)));
    let onward = alice.get(&onward).await.ok();
    assert_eq!(
        ids(onward["chunk"].as_array().unwrap()),
        ids(&forward[forward.len() - 10..])
    );
    let to = room_path(&room, &format!("messages?dir=b&limit=100&to={}", encode(end)));
    assert_eq!(alice.get(&to).await.ok()["chunk"].as_array().unwrap().len(), 10);
    alice
        .get(&room_path(&room, "messages?dir=b&from=rubbish"))
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn a_filter_that_matches_little_still_comes_to_the_end(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "name": "a name" })).await;
    for n in 0..30 {
        alice.send(&room, &format!("message {n}")).await;
    }
    let file = json!({ "msgtype": "m.file", "body": "file", "url": "mxc://example.org/a" });
    alice.send_event(&room, "m.room.message", file).await;
    for (filter, count) in [
        (json!({ "types": ["m.room.name"] }), 1),
        (json!({ "types": ["m.room.na*"] }), 1),
        (json!({ "types": ["nothing"] }), 0),
        (json!({ "contains_url": true }), 1),
        (json!({ "types": ["m.room.message"], "contains_url": false }), 30),
        (json!({ "senders": ["@nobody:example.org"] }), 0),
        (json!({ "not_senders": [alice.id] }), 0),
    ] {
        for direction in ["b", "f"] {
            let found = pages(&alice, &room, direction, 3, Some(filter.clone())).await;
            assert_eq!(found.len(), count, "{filter} {direction}");
        }
    }
}

async fn an_event_is_shown_with_its_surroundings(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(alice.send(&room, &format!("message {n}")).await);
    }
    let path = room_path(&room, &format!("context/{}?limit=6", encode(&sent[10])));
    let context = alice.get(&path).await.ok();
    assert_eq!(context["event"]["event_id"], sent[10].as_str());
    assert_eq!(
        ids(context["events_before"].as_array().unwrap()),
        [9, 8, 7].map(|n: usize| sent[n].clone())
    );
    assert_eq!(
        ids(context["events_after"].as_array().unwrap()),
        [11, 12, 13].map(|n: usize| sent[n].clone())
    );
    assert!(
        context["state"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["type"] == "m.room.create")
    );
    let next = |token: &str, direction: &str| {
        room_path(
            &room,
            &format!("messages?dir={direction}&limit=2&from={}", encode(token)),
        )
    };
    let older = alice
        .get(&next(context["start"].as_str().unwrap(), "b"))
        .await
        .ok();
    assert_eq!(
        ids(older["chunk"].as_array().unwrap()),
        [6, 5].map(|n: usize| sent[n].clone())
    );
    let newer = alice.get(&next(context["end"].as_str().unwrap(), "f")).await.ok();
    assert_eq!(
        ids(newer["chunk"].as_array().unwrap()),
        [14, 15].map(|n: usize| sent[n].clone())
    );
    let alone = alice
        .get(&room_path(
            &room,
            &format!("context/{}?limit=0", encode(&sent[10])),
        ))
        .await
        .ok();
    assert_eq!(alone["event"]["event_id"], sent[10].as_str());
    assert_eq!(alone["events_before"], json!([]));
    alice
        .get(&room_path(&room, "context/$nothing"))
        .await
        .refused(404, "M_NOT_FOUND");
    let event = alice
        .get(&room_path(&room, &format!("event/{}", encode(&sent[3]))))
        .await
        .ok();
    assert_eq!(event["content"]["body"], "message 3");
    alice
        .get(&room_path(&room, "event/$nothing"))
        .await
        .refused(404, "M_NOT_FOUND");
}

async fn senders_come_with_lazily_loaded_pages(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    bob.send(&room, "from bob").await;
    let filter = encode(&json!({ "lazy_load_members": true }).to_string());
    let page = alice
        .get(&room_path(
            &room,
            &format!("messages?dir=b&limit=1&filter={filter}"),
        ))
        .await
        .ok();
    let state = page["state"].as_array().unwrap();
    assert_eq!(state.len(), 1);
    assert_eq!(
        (&state[0]["type"], &state[0]["state_key"]),
        (&json!("m.room.member"), &json!(bob.id))
    );
}

async fn own_transaction_ids_come_back_to_their_device(server: TestServer) {
    let alice = server.user("alice").await;
    let other = alice.second_device().await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    alice.send_as(&room, "m.room.message", "mine", content).await.ok();
    let path = room_path(&room, "messages?dir=b&limit=1");
    let shown = |page: &Value| page["chunk"][0]["unsigned"]["transaction_id"].clone();
    assert_eq!(shown(&alice.get(&path).await.ok()), "mine");
    assert_eq!(shown(&other.get(&path).await.ok()), Value::Null);
}

async fn redacted_events_say_why(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let secret = alice.send(&room, "a secret").await;
    let redaction = alice.redact(&room, &secret).await;
    let event = alice
        .get(&room_path(&room, &format!("event/{}", encode(&secret))))
        .await
        .ok();
    assert_eq!(event["content"], json!({}));
    assert_eq!(
        event["unsigned"]["redacted_because"]["event_id"],
        redaction.as_str()
    );
    assert!(
        !pages(&alice, &room, "b", 100, None)
            .await
            .iter()
            .any(|event| event.to_string().contains("a secret"))
    );
}

async fn state_events_say_what_they_replaced(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "name": "first" })).await;
    let first = alice
        .get(&room_path(&room, "state/m.room.name?format=event"))
        .await
        .ok();
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "second" }))
        .await;
    let page = alice.get(&room_path(&room, "messages?dir=b&limit=1")).await.ok();
    let unsigned = &page["chunk"][0]["unsigned"];
    assert_eq!(unsigned["prev_content"], json!({ "name": "first" }));
    assert_eq!(unsigned["replaces_state"], first["event_id"]);
    assert_eq!(unsigned["prev_sender"], alice.id.as_str());
}

async fn state_is_read_whole_and_by_key(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice
        .create_room(json!({ "preset": "public_chat", "name": "before" }))
        .await;
    bob.join(&room).await;
    for path in ["state/m.room.name", "state/m.room.name/"] {
        assert_eq!(
            bob.get(&room_path(&room, path)).await.ok(),
            json!({ "name": "before" })
        );
    }
    let member = room_path(&room, &format!("state/m.room.member/{}", encode(&bob.id)));
    assert_eq!(alice.get(&member).await.ok()["membership"], "join");
    let event = alice.get(&format!("{member}?format=event")).await.ok();
    assert_eq!(
        (&event["type"], &event["state_key"]),
        (&json!("m.room.member"), &json!(bob.id))
    );
    bob.get(&room_path(&room, "state/m.room.topic"))
        .await
        .refused(404, "M_NOT_FOUND");
    let name_of = |state: &Value| {
        let events = state.as_array().unwrap().iter();
        events
            .filter(|event| event["type"] == "m.room.name")
            .map(|event| event["content"]["name"].clone())
            .collect::<Vec<_>>()
    };
    bob.leave(&room).await;
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "after" }))
        .await;
    let state = room_path(&room, "state");
    assert_eq!(name_of(&alice.get(&state).await.ok()), ["after"]);
    assert_eq!(name_of(&bob.get(&state).await.ok()), ["before"]);
    let own = bob.get(&member).await.ok();
    assert_eq!(own["membership"], "leave");
}

async fn members_are_listed(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let before = alice.get(&room_path(&room, "messages?dir=b&limit=1")).await.ok();
    carol.join(&room).await;
    bob.leave(&room).await;
    let at = encode(before["start"].as_str().unwrap());
    for (query, expected) in [
        ("", vec![&alice.id, &bob.id, &carol.id]),
        ("?membership=join", vec![&alice.id, &carol.id]),
        ("?not_membership=join", vec![&bob.id]),
        (&format!("?at={at}"), vec![&alice.id, &bob.id]),
    ] {
        let members = alice
            .get(&room_path(&room, &format!("members{query}")))
            .await
            .ok();
        let mut keys: Vec<_> = members["chunk"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["state_key"].as_str().unwrap())
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, expected, "{query}");
    }
    let joined = alice.get(&room_path(&room, "joined_members")).await.ok();
    let mut keys: Vec<_> = joined["joined"].as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, [&alice.id, &carol.id]);
    bob.get(&room_path(&room, "joined_members"))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn relations_are_bundled_and_listed(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    relate(&bob, &room, "m.room.message", "m.replace", &root, "forged").await;
    relate(&alice, &room, "m.room.message", "m.replace", &root, "edited once").await;
    let edit = relate(
        &alice,
        &room,
        "m.room.message",
        "m.replace",
        &root,
        "edited twice",
    )
    .await;
    let reaction = relate(&bob, &room, "m.reaction", "m.annotation", &root, "").await;
    let reference = relate(&bob, &room, "m.room.message", "m.reference", &root, "see above").await;
    let first = relate(&bob, &room, "m.room.message", "m.thread", &root, "first reply").await;
    let second = relate(&bob, &room, "m.room.message", "m.thread", &root, "second reply").await;
    let second_edit = relate(
        &bob,
        &room,
        "m.room.message",
        "m.replace",
        &second,
        "second reply, edited",
    )
    .await;

    let event = room_path(&room, &format!("event/{}", encode(&root)));
    let shown = alice.get(&event).await.ok();
    let bundles = &shown["unsigned"]["m.relations"];
    assert_eq!(bundles["m.replace"]["event_id"], edit.as_str());
    assert_eq!(
        bundles["m.reference"]["chunk"],
        json!([{ "event_id": reference }])
    );
    let thread = &bundles["m.thread"];
    assert_eq!(
        (&thread["count"], &thread["current_user_participated"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(thread["latest_event"]["event_id"], second.as_str());
    let latest = &thread["latest_event"]["unsigned"]["m.relations"];
    assert_eq!(latest["m.replace"]["event_id"], second_edit.as_str());
    let page = pages(&alice, &room, "b", 100, None).await;
    let in_page = page
        .iter()
        .find(|event| event["event_id"] == root.as_str())
        .unwrap();
    assert_eq!(in_page["unsigned"]["m.relations"]["m.thread"]["count"], 2);

    let list = |rest: String| {
        let alice = alice.clone();
        let path = v1(&room, &format!("relations/{}{rest}", encode(&root)));
        async move { ids(alice.get(&path).await.ok()["chunk"].as_array().unwrap()) }
    };
    let all = list("?limit=100".into()).await;
    assert_eq!(all.len(), 7);
    assert_eq!(all[0], second);
    let forward = list("?limit=100&dir=f".into()).await;
    assert_eq!(forward, all.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(
        list("/m.annotation".into()).await,
        std::slice::from_ref(&reaction)
    );
    assert_eq!(list("/m.annotation/m.reaction".into()).await, [reaction]);
    assert_eq!(list("/m.annotation/m.room.message".into()).await, [""; 0]);
    assert_eq!(list("/m.thread?dir=f".into()).await, [first, second]);
    assert!(
        list("?limit=100&recurse=true".into())
            .await
            .contains(&second_edit)
    );
    let (mut paged, mut from) = (Vec::new(), String::new());
    loop {
        let path = v1(&room, &format!("relations/{}?limit=2{from}", encode(&root)));
        let page = alice.get(&path).await.ok();
        paged.extend(ids(page["chunk"].as_array().unwrap()));
        match page["next_batch"].as_str() {
            Some(next) => from = format!("&from={}", encode(next)),
            None => break,
        }
    }
    assert_eq!(paged, all);

    alice.redact(&room, &edit).await;
    let shown = alice.get(&event).await.ok();
    assert_eq!(
        shown["unsigned"]["m.relations"]["m.replace"]["content"]["body"],
        "edited once"
    );
}

async fn threads_are_listed_by_their_latest_event(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut roots = Vec::new();
    for n in 0..4 {
        roots.push(alice.send(&room, &format!("root {n}")).await);
    }
    for n in [0, 1, 2, 3, 0] {
        relate(&alice, &room, "m.room.message", "m.thread", &roots[n], "reply").await;
    }
    relate(
        &bob,
        &room,
        "m.room.message",
        "m.thread",
        &roots[2],
        "bob's reply",
    )
    .await;
    let (mut listed, mut from) = (Vec::new(), String::new());
    loop {
        let page = alice
            .get(&v1(&room, &format!("threads?limit=3{from}")))
            .await
            .ok();
        listed.extend(ids(page["chunk"].as_array().unwrap()));
        match page["next_batch"].as_str() {
            Some(next) => from = format!("&from={}", encode(next)),
            None => break,
        }
    }
    assert_eq!(listed, [2, 0, 3, 1].map(|n: usize| roots[n].clone()));
    let own = bob.get(&v1(&room, "threads?include=participated")).await.ok();
    assert_eq!(ids(own["chunk"].as_array().unwrap()), [roots[2].clone()]);
    assert_eq!(own["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 2);
}

async fn redacted_answers_leave_their_thread(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let answer =
        async |user: &User, body: &str| relate(user, &room, "m.room.message", "m.thread", &root, body).await;
    let first = answer(&alice, "first").await;
    let second = answer(&bob, "second").await;
    let third = answer(&alice, "third").await;
    let event = room_path(&room, &format!("event/{}", encode(&root)));
    let thread =
        async |user: &User| user.get(&event).await.ok()["unsigned"]["m.relations"]["m.thread"].clone();
    for (gone, count, latest) in [(&third, 2, &second), (&first, 1, &second)] {
        alice.redact(&room, gone).await;
        let shown = thread(&alice).await;
        assert_eq!(shown["count"], count);
        assert_eq!(shown["latest_event"]["event_id"], latest.as_str());
    }
    assert_eq!(thread(&bob).await["current_user_participated"], true);
    // Counted anew, as when the table was made.
    let counted = "SELECT COUNT(*) FROM (SELECT relates_to, room, COUNT(*) AS answers, MAX(place) AS latest FROM events \
                   WHERE relation = 'm.thread' AND outcome = 0 AND place IS NOT NULL GROUP BY relates_to, room) AS counted \
                   JOIN threads ON threads.root = relates_to AND threads.room = counted.room \
                   AND threads.answers = counted.answers AND threads.latest = counted.latest";
    assert_eq!(server.data().number(counted).await, 1);
    bob.redact(&room, &second).await;
    assert_eq!(thread(&alice).await, Value::Null);
    let listed = alice.get(&v1(&room, "threads")).await.ok();
    assert_eq!(listed["chunk"], json!([]));
    assert_eq!(server.data().number("SELECT COUNT(*) FROM threads").await, 0);
}

async fn events_are_found_by_time(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let history = pages(&alice, &room, "f", 100, None).await;
    let time = |event: &Value| event["origin_server_ts"].as_u64().unwrap();
    let last = history.last().unwrap();
    let (first_time, last_time) = (time(&history[0]), time(last));
    let find = |ts: u64, direction: &str| {
        let (alice, path) = (
            alice.clone(),
            v1(&room, &format!("timestamp_to_event?ts={ts}&dir={direction}")),
        );
        async move { alice.get(&path).await }
    };
    let found = find(0, "f").await.ok();
    assert_eq!(
        (found["event_id"].clone(), found["origin_server_ts"].as_u64()),
        (history[0]["event_id"].clone(), Some(first_time))
    );
    let found = find(last_time + 1000, "b").await.ok();
    assert_eq!(found["event_id"], last["event_id"]);
    find(last_time + 1000, "f").await.refused(404, "M_NOT_FOUND");
    find(first_time - 1, "b").await.refused(404, "M_NOT_FOUND");
}

async fn strangers_are_told_nothing(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "private").await;
    for room in [room.as_str(), "!nowhere:example.org"] {
        for path in [
            "messages?dir=b",
            "state",
            "state/m.room.name",
            "members",
            "joined_members",
        ] {
            bob.get(&room_path(room, path)).await.refused(403, "M_FORBIDDEN");
        }
        bob.get(&v1(room, "threads")).await.refused(403, "M_FORBIDDEN");
        bob.get(&v1(room, "timestamp_to_event?ts=1&dir=f"))
            .await
            .refused(403, "M_FORBIDDEN");
        let path = room_path(room, &format!("event/{}", encode(&event)));
        bob.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    for path in [
        room_path(&room, &format!("context/{}", encode(&event))),
        v1(&room, &format!("relations/{}", encode(&event))),
    ] {
        bob.get(&path).await.refused(404, "M_NOT_FOUND");
    }
}

async fn ignored_users_are_left_out(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.send(&room, "noise").await;
    alice.send(&room, "music").await;
    let path = format!("user/{}/account_data/m.ignored_user_list", encode(&alice.id));
    alice
        .put(&path, json!({ "ignored_users": { &bob.id: {}, "no user": {} } }))
        .await
        .ok();
    let events = pages(&alice, &room, "b", 100, None).await;
    assert_eq!(texts(&events), ["music"]);
    let is_join = |event: &Value| event["state_key"] == bob.id.as_str();
    assert!(events.iter().any(is_join), "state stays");
}

async fn a_thread_is_counted_without_ignored_users(server: TestServer) {
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let [root, quiet] = [alice.send(&room, "root").await, alice.send(&room, "quiet").await];
    let answer = relate(&carol, &room, "m.room.message", "m.thread", &root, "music").await;
    let reference = relate(&carol, &room, "m.room.message", "m.reference", &root, "see").await;
    for to in [&root, &root, &quiet] {
        relate(&bob, &room, "m.room.message", "m.thread", to, "noise").await;
    }
    relate(&bob, &room, "m.room.message", "m.reference", &root, "noise").await;
    let path = format!("user/{}/account_data/m.ignored_user_list", encode(&alice.id));
    let list = json!({ "ignored_users": { &bob.id: {} } });
    alice.put(&path, list).await.ok();
    let bundle = async |reader: &User, event: &str| {
        let path = room_path(&room, &format!("event/{}", encode(event)));
        reader.get(&path).await.ok()["unsigned"]["m.relations"].clone()
    };
    let shown = bundle(&alice, &root).await;
    assert_eq!(shown["m.thread"]["count"], 1);
    assert_eq!(shown["m.thread"]["latest_event"]["event_id"], answer);
    assert_eq!(shown["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    assert_eq!(bundle(&alice, &quiet).await, Value::Null);
    let shown = bundle(&carol, &root).await;
    assert_eq!(shown["m.thread"]["count"], 3);
    assert_eq!(shown["m.reference"]["chunk"].as_array().unwrap().len(), 2);
    assert_eq!(bundle(&carol, &quiet).await["m.thread"]["count"], 1);
}

async fn relations_across_rooms_do_not_count(server: TestServer) {
    let alice = server.user("alice").await;
    let [room, other] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let root = alice.send(&room, "root").await;
    for kind in ["m.replace", "m.thread", "m.reference"] {
        relate(&alice, &other, "m.room.message", kind, &root, "from elsewhere").await;
    }
    let shown = alice
        .get(&room_path(&room, &format!("event/{}", encode(&root))))
        .await
        .ok();
    assert_eq!(shown["unsigned"].get("m.relations"), None);
    let listed = alice
        .get(&v1(&room, &format!("relations/{}", encode(&root))))
        .await
        .ok();
    assert_eq!(listed["chunk"], json!([]));
}
