//! Rooms over the client API: making them, coming and going, state, redaction, names, the directory.
//!
//! Over 500 lines, because each story of a room is told whole.

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

use maru::clock::Clock;
use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    a_room_begins_as_its_preset_says,
    creation_takes_what_the_client_gives,
    impossible_rooms_are_refused,
    people_come_and_go,
    restricted_rooms_open_to_members_of_another,
    a_knock_asks_to_be_invited,
    state_is_set_and_checked,
    a_transaction_happens_once,
    redaction_removes_content,
    an_upgrade_replaces_a_room,
    rooms_show_themselves_to_those_who_may_join,
    aliases_name_rooms,
    the_directory_lists_and_searches,
    no_two_events_are_made_at_one_time,
    no_event_is_made_before_an_older_one,
);

/// The content of one piece of state, as a member's client learns of it.
async fn content(user: &User, room: &str, event_type: &str, key: &str) -> Value {
    let synced = user.sync(None).await;
    let joined = synced.room(room);
    let events = [&joined["state"]["events"], &joined["timeline"]["events"]];
    let events = events.into_iter().filter_map(Value::as_array).flatten();
    let mut set = events.filter(|event| event["type"] == event_type && event["state_key"] == key);
    set.next_back()
        .map_or(Value::Null, |event| event["content"].clone())
}

async fn a_room_begins_as_its_preset_says(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for version in ["10", "11", "12"] {
        for (preset, join_rule) in [
            ("private_chat", "invite"),
            ("trusted_private_chat", "invite"),
            ("public_chat", "public"),
        ] {
            let request =
                json!({ "preset": preset, "room_version": version, "invite": [bob.id], "is_direct": true });
            let room = alice.create_room(request).await;
            let create = content(&alice, &room, "m.room.create", "").await;
            assert_eq!(create["room_version"], version);
            assert_eq!(
                create["creator"],
                if version == "10" {
                    json!(alice.id)
                } else {
                    Value::Null
                }
            );
            assert_eq!(
                content(&alice, &room, "m.room.join_rules", "").await["join_rule"],
                join_rule
            );
            let invite = content(&alice, &room, "m.room.member", &bob.id).await;
            assert_eq!(
                (&invite["membership"], &invite["is_direct"]),
                (&json!("invite"), &json!(true))
            );
            let users = &content(&alice, &room, "m.room.power_levels", "").await["users"];
            let trusted = preset == "trusted_private_chat";
            if version == "12" {
                assert_eq!(*users, json!({}));
                assert_eq!(
                    create["additional_creators"],
                    if trusted { json!([bob.id]) } else { Value::Null }
                );
            } else {
                assert_eq!(users[&alice.id], 100);
                assert_eq!(users[&bob.id], if trusted { json!(100) } else { Value::Null });
            }
            bob.join(&room).await;
            bob.send(&room, "here").await;
            alice.send(&room, "welcome").await;
        }
    }
}

async fn creation_takes_what_the_client_gives(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({
            "name": "Tea",
            "topic": "leaves",
            "room_alias_name": "tea",
            "visibility": "public",
            "creation_content": { "m.federate": false, "type": "m.space", "room_version": "1", "creator": "@x:y" },
            "power_level_content_override": { "events_default": 7 },
            "initial_state": [
                { "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } },
                { "type": "org.example.a", "state_key": "k", "content": { "b": 1 } },
            ],
        }))
        .await;
    let create = content(&alice, &room, "m.room.create", "").await;
    assert_eq!(
        (&create["m.federate"], &create["type"]),
        (&json!(false), &json!("m.space"))
    );
    assert_eq!(
        (&create["room_version"], &create["creator"]),
        (&json!("12"), &Value::Null)
    );
    assert_eq!(
        content(&alice, &room, "m.room.power_levels", "").await["events_default"],
        7
    );
    assert_eq!(content(&alice, &room, "m.room.name", "").await["name"], "Tea");
    assert_eq!(
        content(&alice, &room, "org.example.a", "k").await,
        json!({ "b": 1 })
    );
    assert_eq!(
        content(&alice, &room, "m.room.history_visibility", "").await["history_visibility"],
        "joined"
    );
    let alias = format!("#tea:{}", server.name());
    assert_eq!(
        content(&alice, &room, "m.room.canonical_alias", "").await["alias"],
        alias
    );
    let found = alice
        .get(&format!("directory/room/{}", encode(&alias)))
        .await
        .ok();
    assert_eq!(found["room_id"], room);
    let again = alice
        .post("createRoom", json!({ "room_alias_name": "tea" }))
        .await;
    again.refused(400, "M_ROOM_IN_USE");
}

async fn impossible_rooms_are_refused(server: TestServer) {
    let alice = server.user("alice").await;
    for (request, status, errcode) in [
        (json!({ "room_version": "99" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (
            json!({ "room_version": "11", "power_level_content_override": { "users": {} }, "name": "n" }),
            400,
            "M_INVALID_ROOM_STATE",
        ),
        (
            json!({ "initial_state": [{ "type": "m.room.create", "content": {} }] }),
            400,
            "M_INVALID_ROOM_STATE",
        ),
        (
            json!({ "initial_state": [{ "type": "a", "content": { "x": 1.5 } }] }),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({ "initial_state": [{ "type": "a", "content": [] }] }),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({ "initial_state": [{ "type": "a\u{0}", "content": {} }] }),
            400,
            "M_INVALID_PARAM",
        ),
        (json!({ "preset": "strange" }), 400, "M_BAD_JSON"),
        (json!({ "creation_content": 7 }), 400, "M_BAD_JSON"),
        (
            json!({ "creation_content": { "additional_creators": ["bob"] } }),
            400,
            "M_BAD_JSON",
        ),
        (json!({ "room_alias_name": "a b" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM"),
        (
            json!({ "invite": [format!("@nobody:{}", server.name())] }),
            404,
            "M_NOT_FOUND",
        ),
        (
            json!({ "invite": ["@bob:elsewhere.example"] }),
            403,
            "M_FORBIDDEN",
        ),
        (json!({ "invite": ["bob"] }), 400, "M_BAD_JSON"),
    ] {
        let reply = alice.post("createRoom", request.clone()).await;
        assert_eq!(reply.json["errcode"], errcode, "{request}: {}", reply.json);
        reply.refused(status, errcode);
    }
    assert_eq!(alice.get("joined_rooms").await.ok()["joined_rooms"], json!([]));
}

async fn people_come_and_go(server: TestServer) {
    let [alice, bob, eve] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("eve").await,
    ];
    let room = alice.create_room(json!({})).await;
    let act = |action: &str| format!("rooms/{}/{action}", encode(&room));
    eve.post(&act("join"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    eve.post(&act("leave"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob).await;
    // An invitation is declined, made again and taken, the last by the room's id in the path, twice.
    bob.leave(&room).await;
    alice.invite(&room, &bob).await;
    bob.post(&format!("join/{}", encode(&room)), json!({})).await.ok();
    bob.post(&format!("join/{}", encode(&room)), json!({})).await.ok();
    assert_eq!(bob.get("joined_rooms").await.ok()["joined_rooms"], json!([room]));
    bob.post(&act("forget"), json!({}))
        .await
        .refused(400, "M_BAD_STATE");
    bob.post(&act("kick"), json!({ "user_id": alice.id }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .post(&act("kick"), json!({ "user_id": eve.id }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .post(&act("kick"), json!({ "user_id": bob.id, "reason": "noise" }))
        .await
        .ok();
    let kicked = content(&alice, &room, "m.room.member", &bob.id).await;
    assert_eq!(kicked, json!({ "membership": "leave", "reason": "noise" }));
    bob.leave(&room).await;
    bob.post(&act("forget"), json!({})).await.ok();
    alice.post(&act("ban"), json!({ "user_id": bob.id })).await.ok();
    alice
        .post(&act("invite"), json!({ "user_id": bob.id }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.post(&act("join"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .post(&act("kick"), json!({ "user_id": bob.id }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.post(&act("unban"), json!({ "user_id": bob.id })).await.ok();
    alice
        .post(&act("unban"), json!({ "user_id": bob.id }))
        .await
        .refused(400, "M_BAD_STATE");
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    let away = json!({ "user_id": "@bob:elsewhere.example" });
    alice.post(&act("invite"), away).await.refused(403, "M_FORBIDDEN");
    let nowhere = format!("join/{}", encode("!nowhere:elsewhere.example"));
    // This server does not federate, and says so.
    bob.post(&nowhere, json!({})).await.refused(403, "M_FORBIDDEN");
}

async fn restricted_rooms_open_to_members_of_another(server: TestServer) {
    let [alice, bob, eve] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("eve").await,
    ];
    let hall = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&hall).await;
    let rule = |room: &str| json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": room }] });
    let state = |room: &str| json!([{ "type": "m.room.join_rules", "content": rule(room) }]);
    let room = alice.create_room(json!({ "initial_state": state(&hall) })).await;
    bob.join(&room).await;
    let member = content(&bob, &room, "m.room.member", &bob.id).await;
    assert_eq!(member["join_authorised_via_users_server"], alice.id);
    let join = |room: &str| format!("rooms/{}/join", encode(room));
    eve.post(&join(&room), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.invite(&room, &eve).await;
    eve.join(&room).await;
    let unknown = alice
        .create_room(json!({ "initial_state": state("!x:elsewhere.example") }))
        .await;
    bob.post(&join(&unknown), json!({}))
        .await
        .refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
}

async fn a_knock_asks_to_be_invited(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({})).await;
    let knock = format!("knock/{}", encode(&room));
    bob.post(&knock, json!({})).await.refused(403, "M_FORBIDDEN");
    alice
        .set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" }))
        .await;
    bob.post(&knock, json!({ "reason": "please" })).await.ok();
    let knocked = content(&alice, &room, "m.room.member", &bob.id).await;
    assert_eq!(
        (&knocked["membership"], &knocked["reason"]),
        (&json!("knock"), &json!("please"))
    );
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
}

async fn state_is_set_and_checked(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({ "room_alias_name": "other" })).await;
    bob.join(&room).await;
    let path =
        |event_type: &str, key: &str| format!("rooms/{}/state/{}{key}", encode(&room), encode(event_type));
    let topic = json!({ "topic": "one" });
    let first = alice.put(&path("m.room.topic", ""), topic.clone()).await.ok();
    let again = alice.put(&path("m.room.topic", "/"), topic.clone()).await.ok();
    assert_eq!(first, again, "what is set already is not set again");
    bob.put(&path("m.room.topic", ""), topic)
        .await
        .refused(403, "M_FORBIDDEN");
    bob.set_state(
        &room,
        "m.room.member",
        &bob.id,
        json!({ "membership": "join", "displayname": "Robert" }),
    )
    .await;
    assert_eq!(
        content(&alice, &room, "m.room.member", &bob.id).await["displayname"],
        "Robert"
    );

    let long = "x".repeat(256);
    let other_alias = format!("#other:{}", server.name());
    for (slot, body, status, errcode) in [
        (
            path("m.room.create", ""),
            json!({ "room_version": "12" }),
            403,
            "M_FORBIDDEN",
        ),
        (
            path("m.room.canonical_alias", ""),
            json!({ "alias": other_alias }),
            400,
            "M_BAD_ALIAS",
        ),
        (
            path("m.room.canonical_alias", ""),
            json!({ "alias": "#none:x.example" }),
            400,
            "M_BAD_ALIAS",
        ),
        (
            path("m.room.canonical_alias", ""),
            json!({ "alias": "none" }),
            400,
            "M_INVALID_PARAM",
        ),
        (
            path("m.room.power_levels", ""),
            json!({ "users": { (&alice.id): "100" } }),
            400,
            "M_BAD_JSON",
        ),
        (
            path("m.room.member", "/bob"),
            json!({ "membership": "invite" }),
            400,
            "M_BAD_JSON",
        ),
        (
            path("m.room.member", &format!("/{}", encode(&bob.id))),
            json!({ "membership": "x" }),
            400,
            "M_BAD_JSON",
        ),
        (
            path("m.room.member", &format!("/{}", encode(&bob.id))),
            json!({ "membership": "join" }),
            403,
            "M_FORBIDDEN",
        ),
        (path("a", "/b%00c"), json!({}), 400, "M_INVALID_PARAM"),
        (path("a", &format!("/{long}")), json!({}), 413, "M_TOO_LARGE"),
        (path(&long, ""), json!({}), 413, "M_TOO_LARGE"),
        (path("a", ""), json!({ "x": 1.5 }), 400, "M_BAD_JSON"),
        (path("a", ""), json!([]), 400, "M_BAD_JSON"),
    ] {
        let reply = alice.put(&slot, body.clone()).await;
        assert_eq!(reply.json["errcode"], errcode, "{slot} {body}: {}", reply.json);
        reply.refused(status, errcode);
    }
    alice
        .send_as(&room, "m.room.create", "t", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.leave(&other).await;
    alice
        .send_as(&other, "m.room.message", "t2", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn a_transaction_happens_once(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.create_room(json!({})).await;
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let once = alice
        .send_as(&room, "m.room.message", "one", text("a"))
        .await
        .ok();
    assert_eq!(
        alice
            .send_as(&room, "m.room.message", "one", text("a"))
            .await
            .ok(),
        once
    );
    let (left, right) = tokio::join!(
        alice.send_as(&room, "m.room.message", "two", text("b")),
        alice.send_as(&room, "m.room.message", "two", text("b")),
    );
    assert_eq!(left.ok(), right.ok());
    // The same id in another room is another request.
    assert_ne!(
        alice
            .send_as(&other, "m.room.message", "one", text("a"))
            .await
            .ok(),
        once
    );
    let redact = |transaction: &str| {
        let event = once["event_id"].as_str().unwrap();
        format!("rooms/{}/redact/{}/{transaction}", encode(&room), encode(event))
    };
    let redacted = alice.put(&redact("r"), json!({})).await.ok();
    assert_eq!(alice.put(&redact("r"), json!({})).await.ok(), redacted);

    let server = server.restart().await;
    let alice = alice.on(server.api());
    assert_eq!(
        alice
            .send_as(&room, "m.room.message", "one", text("a"))
            .await
            .ok(),
        once
    );
    assert_eq!(alice.put(&redact("r"), json!({})).await.ok(), redacted);
    assert_ne!(
        alice
            .send_as(&room, "m.room.message", "three", text("c"))
            .await
            .ok(),
        once
    );
    let strange = alice.send_as(&room, "m.room.message", "a\u{0}b", text("d")).await;
    strange.refused(400, "M_INVALID_PARAM");
}

async fn redaction_removes_content(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for version in ["10", "11", "12"] {
        let request = json!({ "preset": "public_chat", "room_version": version });
        let room = alice.create_room(request).await;
        bob.join(&room).await;
        let said = bob.send(&room, "a secret").await;
        let own = alice.send(&room, "mine").await;
        let path = |event: &str, n: u8| format!("rooms/{}/redact/{}/r{n}", encode(&room), encode(event));
        bob.put(&path(&own, 1), json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        bob.put(&path("$nothing", 2), json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        let redaction = alice.put(&path(&said, 3), json!({ "reason": "hush" })).await.ok();
        let read = |event: &str| format!("rooms/{}/event/{}", encode(&room), encode(event));
        let after = bob.get(&read(&said)).await.ok();
        assert_eq!(after["content"], json!({}));
        assert_eq!(
            after["unsigned"]["redacted_because"]["event_id"],
            redaction["event_id"]
        );
        let event = bob.get(&read(redaction["event_id"].as_str().unwrap())).await.ok();
        assert_eq!(event["content"]["reason"], "hush");
        assert_eq!(
            if version == "10" {
                &event["redacts"]
            } else {
                &event["content"]["redacts"]
            },
            &json!(said)
        );
        // State is emptied in place: it stays the room's state.
        let topic = alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": "a secret" }))
            .await;
        alice.redact(&room, &topic).await;
        assert_eq!(content(&bob, &room, "m.room.topic", "").await, json!({}));
        let sent = alice
            .send_as(&room, "m.room.redaction", "s", json!({ "redacts": own }))
            .await;
        if version == "10" {
            sent.refused(400, "M_INVALID_PARAM");
        } else {
            sent.ok();
            assert_eq!(alice.get(&read(&own)).await.ok()["content"], json!({}));
        }
    }
}

async fn aliases_name_rooms(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let alias = format!("#pot:{}", server.name());
    let path = format!("directory/room/{}", encode(&alias));
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    bob.put(&path, json!({ "room_id": room }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.put(&path, json!({ "room_id": room })).await.ok();
    alice
        .put(&path, json!({ "room_id": room }))
        .await
        .refused(409, "M_UNKNOWN");
    let foreign = format!("directory/room/{}", encode("#pot:elsewhere.example"));
    alice
        .put(&foreign, json!({ "room_id": room }))
        .await
        .refused(400, "M_INVALID_PARAM");
    alice
        .set_state(&room, "m.room.canonical_alias", "", json!({ "alias": alias }))
        .await;
    bob.post(&format!("join/{}", encode(&alias)), json!({}))
        .await
        .ok();
    let names = bob.get(&format!("rooms/{}/aliases", encode(&room))).await.ok();
    assert_eq!(names["aliases"], json!([alias]));
    bob.delete(&path).await.refused(403, "M_FORBIDDEN");
    alice.delete(&path).await.ok();
    alice.delete(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(
        content(&alice, &room, "m.room.canonical_alias", "").await,
        json!({})
    );
}

async fn the_directory_lists_and_searches(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let listed = |name: &str| json!({ "visibility": "public", "name": name });
    let tea = alice.create_room(listed("Tea")).await;
    let coffee = alice.create_room(listed("Coffee")).await;
    let hidden = alice.create_room(json!({ "name": "Hidden tea" })).await;
    bob.join(&coffee).await;
    let all = bob.get("publicRooms").await.ok();
    let ids = |page: &Value| -> Vec<Value> {
        page["chunk"]
            .as_array()
            .unwrap()
            .iter()
            .map(|room| room["room_id"].clone())
            .collect()
    };
    assert_eq!(ids(&all), [json!(coffee), json!(tea)], "larger rooms first");
    assert_eq!(all["chunk"][0]["num_joined_members"], 2);
    assert_eq!(
        all["chunk"][0]["join_rule"].as_str().unwrap_or("public"),
        "public"
    );
    let first = bob.get("publicRooms?limit=1").await.ok();
    assert_eq!(ids(&first), [json!(coffee)]);
    let next = encode(first["next_batch"].as_str().unwrap());
    let second = bob.get(&format!("publicRooms?limit=1&since={next}")).await.ok();
    assert_eq!(ids(&second), [json!(tea)]);
    // Back by pages of any length, no room comes twice.
    let third = alice.create_room(listed("Cocoa")).await;
    let page = async |limit: u8, token: &str| {
        let path = format!("publicRooms?limit={limit}&since={}", encode(token));
        bob.get(&path).await.ok()
    };
    let last = page(
        2,
        bob.get("publicRooms?limit=2").await.ok()["next_batch"]
            .as_str()
            .unwrap(),
    )
    .await;
    assert_eq!(ids(&last), [json!(third)]);
    let before = page(2, last["prev_batch"].as_str().unwrap()).await;
    assert_eq!(ids(&before), [json!(coffee), json!(tea)]);
    assert!(before.get("prev_batch").is_none(), "{before}");
    let before = page(1, last["prev_batch"].as_str().unwrap()).await;
    assert_eq!(ids(&before), [json!(tea)]);
    let before = page(5, before["prev_batch"].as_str().unwrap()).await;
    assert_eq!(ids(&before), [json!(coffee)]);
    let path = format!("directory/list/room/{}", encode(&third));
    alice.put(&path, json!({ "visibility": "private" })).await.ok();
    let search = json!({ "filter": { "generic_search_term": "TEA" } });
    assert_eq!(
        ids(&bob.post("publicRooms", search.clone()).await.ok()),
        [json!(tea)]
    );
    let path = format!("directory/list/room/{}", encode(&hidden));
    assert_eq!(alice.get(&path).await.ok()["visibility"], "private");
    bob.put(&path, json!({ "visibility": "public" }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.put(&path, json!({ "visibility": "public" })).await.ok();
    let server = server.restart().await;
    let found = bob.on(server.api()).post("publicRooms", search).await.ok();
    assert_eq!(ids(&found), [json!(tea), json!(hidden)]);
    server
        .request(http::Method::GET, "publicRooms?since=x", None)
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn an_upgrade_replaces_a_room(server: TestServer) {
    let [alice, bob, eve] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("eve").await,
    ];
    for (from, to) in [("10", "11"), ("11", "12"), ("12", "12"), ("12", "10")] {
        let name = format!("from-{from}-to-{to}");
        let old = alice
            .create_room(json!({
                "room_version": from,
                "preset": "public_chat",
                "name": name,
                "room_alias_name": name,
                "visibility": "public",
                "creation_content": { "type": "org.example.shop" },
            }))
            .await;
        bob.join(&old).await;
        alice
            .post(
                &format!("rooms/{}/ban", encode(&old)),
                json!({ "user_id": eve.id }),
            )
            .await
            .ok();
        let path = format!("rooms/{}/upgrade", encode(&old));
        bob.post(&path, json!({ "new_version": to }))
            .await
            .refused(403, "M_FORBIDDEN");
        let unknown = alice.post(&path, json!({ "new_version": "99" })).await;
        unknown.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
        let done = alice.post(&path, json!({ "new_version": to })).await.ok();
        let new = done["replacement_room"].as_str().unwrap();

        let create = content(&alice, new, "m.room.create", "").await;
        assert_eq!(
            (&create["room_version"], &create["type"]),
            (&json!(to), &json!("org.example.shop"))
        );
        assert_eq!(create["predecessor"]["room_id"], old);
        assert_eq!(content(&alice, new, "m.room.name", "").await["name"], name);
        assert_eq!(
            content(&alice, new, "m.room.member", &eve.id).await["membership"],
            "ban"
        );
        let users = content(&alice, new, "m.room.power_levels", "").await["users"].clone();
        assert_eq!(users.get(&alice.id).is_some(), to != "12", "{users}");
        let tombstone = content(&alice, &old, "m.room.tombstone", "").await;
        assert_eq!(tombstone["replacement_room"], new);
        let alias = format!("#{name}:{}", server.name());
        let named = alice
            .get(&format!("directory/room/{}", encode(&alias)))
            .await
            .ok();
        assert_eq!(named["room_id"], new);
        assert_eq!(
            content(&alice, new, "m.room.canonical_alias", "").await["alias"],
            alias
        );
        let listing = |room: &str| format!("directory/list/room/{}", encode(room));
        assert_eq!(alice.get(&listing(new)).await.ok()["visibility"], "public");
        assert_eq!(alice.get(&listing(&old)).await.ok()["visibility"], "private");
        let late = bob
            .send_as(&old, "m.room.message", &name, json!({ "body": "late" }))
            .await;
        late.refused(403, "M_FORBIDDEN");
        bob.join(new).await;
        bob.send(new, "on time").await;
    }
}

async fn rooms_show_themselves_to_those_who_may_join(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let open = alice
        .create_room(json!({ "preset": "public_chat", "name": "Open", "topic": "all" }))
        .await;
    let closed = alice.create_room(json!({ "name": "Closed" })).await;
    let space = alice
        .create_room(json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } }))
        .await;
    let members = alice
        .create_room(json!({ "name": "Members", "initial_state": [{
            "type": "m.room.join_rules",
            "content": { "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }] },
        }] }))
        .await;
    for (room, order) in [(&closed, "a"), (&members, "b"), (&open, "c")] {
        let child = json!({ "via": [server.name()], "order": order });
        alice.set_state(&space, "m.space.child", room, child).await;
    }
    alice
        .set_state(&open, "m.space.child", &space, json!({ "via": [server.name()] }))
        .await;

    let summary = |room: &str| format!("/_matrix/client/v1/room_summary/{}", encode(room));
    let seen = bob.get(&summary(&open)).await.ok();
    assert_eq!(
        (&seen["name"], &seen["topic"], &seen["membership"]),
        (&json!("Open"), &json!("all"), &json!("leave"))
    );
    assert_eq!(
        (&seen["num_joined_members"], &seen["room_version"]),
        (&json!(1), &json!("12"))
    );
    server
        .request(http::Method::GET, &summary(&open), None)
        .await
        .ok();
    bob.get(&summary(&closed)).await.refused(404, "M_NOT_FOUND");
    bob.get(&summary(&members)).await.refused(404, "M_NOT_FOUND");

    let tree = format!("/_matrix/client/v1/rooms/{}/hierarchy", encode(&space));
    let rooms = |page: &Value| -> Vec<String> {
        let rooms = page["rooms"].as_array().unwrap().iter();
        rooms
            .map(|room| room["room_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = bob.get(&tree).await.ok();
    assert_eq!(rooms(&page), [space.clone(), open.clone()]);
    assert_eq!(page["rooms"][0]["children_state"].as_array().unwrap().len(), 3);
    assert_eq!(page["rooms"][0]["children_state"][0]["state_key"], closed);
    bob.join(&space).await;
    assert_eq!(
        rooms(&bob.get(&tree).await.ok()),
        [space.clone(), members.clone(), open.clone()]
    );
    let first = bob.get(&format!("{tree}?limit=2")).await.ok();
    assert_eq!(rooms(&first), [space.clone(), members]);
    let next = format!("{tree}?limit=2&from={}", first["next_batch"].as_str().unwrap());
    assert_eq!(rooms(&bob.get(&next).await.ok()), [open]);
    assert_eq!(
        rooms(&bob.get(&format!("{tree}?max_depth=0")).await.ok()),
        [space]
    );
}

/// Of two events of one server, state resolution may have to tell which is the newer by their times alone.
async fn no_two_events_are_made_at_one_time(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let sets = (0..60).map(|at| {
        let (alice, room) = (&alice, &room);
        async move {
            let topic = json!({ "topic": at.to_string() });
            alice.set_state(room, "m.room.topic", "", topic).await;
        }
    });
    futures_util::future::join_all(sets).await;
    let times: Vec<u64> = alice
        .history(&room)
        .await
        .iter()
        .map(|event| event["origin_server_ts"].as_u64().unwrap())
        .collect();
    assert!(times.len() >= 60);
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
}

/// The clock is set back while the server is down.
async fn no_event_is_made_before_an_older_one(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.send(&room, "now").await;
    let made = |history: Vec<Value>| -> Vec<u64> {
        let times = history
            .iter()
            .map(|event| event["origin_server_ts"].as_u64().unwrap());
        times.collect()
    };
    let before = made(alice.history(&room).await);
    let an_hour_ago = Clock::Manual((before.last().unwrap() - 3_600_000).into());
    let server = server.shut_down().await.start_at(an_hour_ago).await;
    let alice = alice.on(server.api());
    alice.send(&room, "an hour ago").await;
    let after = made(alice.history(&room).await);
    assert_eq!(after.len(), before.len() + 1);
    assert!(after.is_sorted_by(|one, next| one < next), "{after:?}");
}
