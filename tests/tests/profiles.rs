//! Profiles and the user directory over the client API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    a_new_name_is_told_to_every_room,
    fields_of_ones_own_are_kept_within_limits,
    people_are_found_by_name_where_they_may_be_known,
    people_in_rooms_that_are_open_to_everybody_are_found,
);

async fn set(user: &User, field: &str, value: Value) -> maru_tests::Reply {
    let path = format!("profile/{}/{}", encode(&user.id), encode(field));
    user.put(&path, json!({ field: value })).await
}

async fn profile(of: &User) -> Value {
    of.get(&format!("profile/{}", encode(&of.id))).await.ok()
}

async fn a_new_name_is_told_to_every_room(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let mut rooms = Vec::new();
    for _ in 0..5 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    let left = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&left).await;
    bob.leave(&left).await;
    let since = alice.sync(None).await.next();
    set(&bob, "displayname", json!("Bob 🦊")).await.ok();
    set(&bob, "avatar_url", json!("mxc://example.org/fox")).await.ok();
    let synced = alice.sync(Some(&since)).await;
    let shown =
        json!({ "membership": "join", "displayname": "Bob 🦊", "avatar_url": "mxc://example.org/fox" });
    for room in &rooms {
        let events = synced.events(room);
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[1]["content"], shown);
    }
    assert!(
        synced.events(&left).is_empty(),
        "a room that was left hears nothing"
    );

    let since = synced.next();
    set(&bob, "displayname", json!("Bob 🦊")).await.ok();
    let nothing = alice.sync(Some(&since)).await;
    assert!(
        nothing.events(&rooms[0]).is_empty(),
        "the same name again is no change"
    );
    set(&bob, "displayname", json!("")).await.ok();
    assert_eq!(
        profile(&bob).await,
        json!({ "avatar_url": "mxc://example.org/fox" })
    );
}

async fn fields_of_ones_own_are_kept_within_limits(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    assert_eq!(profile(&alice).await, json!({}));
    set(&alice, "org.example.zone", json!({ "tz": ["Europe/Berlin", 1] }))
        .await
        .ok();
    set(&alice, "m.tz", json!("Europe/Berlin")).await.ok();
    let path = format!("profile/{}/org.example.zone", encode(&alice.id));
    let field = bob.get(&path).await.ok();
    assert_eq!(
        field,
        json!({ "org.example.zone": { "tz": ["Europe/Berlin", 1] } })
    );
    bob.put(&path, json!({ "org.example.zone": 1 }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.delete(&path).await.refused(403, "M_FORBIDDEN");
    alice.delete(&path).await.ok();
    bob.get(&path).await.refused(404, "M_NOT_FOUND");
    bob.get(&format!("profile/{}", encode("@nobody:elsewhere")))
        .await
        .refused(404, "M_NOT_FOUND");

    set(&alice, "Not.A.Name", json!(1))
        .await
        .refused(400, "M_INVALID_PARAM");
    set(&alice, &"k".repeat(256), json!(1))
        .await
        .refused(400, "M_KEY_TOO_LARGE");
    let large = json!("x".repeat(40_000));
    set(&alice, "org.example.one", large.clone()).await.ok();
    set(&alice, "org.example.two", large)
        .await
        .refused(400, "M_PROFILE_TOO_LARGE");
    set(&alice, "displayname", json!("x".repeat(300)))
        .await
        .refused(400, "M_INVALID_PARAM");
    set(&alice, "displayname", json!("a\0b"))
        .await
        .refused(400, "M_INVALID_PARAM");
    set(&alice, "displayname", json!(5))
        .await
        .refused(400, "M_BAD_JSON");
    set(&alice, "org.example.odd", json!("a\0b")).await.ok();
    assert_eq!(profile(&alice).await["org.example.odd"], "a\0b");
    alice.get("profile/%00").await.refused(400, "M_INVALID_PARAM");
}

async fn people_in_rooms_that_are_open_to_everybody_are_found(server: TestServer) {
    let alice = server.user("alice").await;
    let search = async |alice: &User| {
        let found = alice.post("user_directory/search", json!({ "search_term": "o" }));
        let found = found.await.ok();
        let ids = found["results"].as_array().unwrap().iter();
        ids.map(|user| user["user_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let bob = server.user("bob").await;
    let carol = server.user("carol").await;
    let oscar = server.user("oscar").await;
    let visibility = |visibility: &str| json!({ "history_visibility": visibility });
    let readable = json!([{ "type": "m.room.history_visibility", "content": visibility("world_readable") }]);
    let open = bob.create_room(json!({ "preset": "public_chat" })).await;
    let shown = carol.create_room(json!({ "initial_state": readable })).await;
    let own = oscar.create_room(json!({})).await;
    assert_eq!(search(&alice).await, [bob.id.clone(), carol.id.clone()]);
    alice.join(&open).await;
    assert_eq!(search(&alice).await, [bob.id.clone(), carol.id.clone()]);
    let rule = |rule: &str| json!({ "join_rule": rule });
    oscar
        .set_state(&own, "m.room.join_rules", "", rule("public"))
        .await;
    let found = search(&alice).await;
    assert_eq!(
        found,
        [oscar.id.clone(), bob.id.clone(), carol.id.clone()],
        "names that begin with it first"
    );

    let server = server.restart().await;
    let alice = alice.on(server.api());
    assert_eq!(search(&alice).await, found, "of rooms that are not in memory too");
    oscar
        .on(server.api())
        .set_state(&own, "m.room.join_rules", "", rule("invite"))
        .await;
    carol
        .on(server.api())
        .set_state(&shown, "m.room.history_visibility", "", visibility("shared"))
        .await;
    assert_eq!(search(&alice).await, [bob.id]);
}

async fn people_are_found_by_name_where_they_may_be_known(server: TestServer) {
    let [alice, bob, carol, dave] = [
        server.user("alice").await,
        server.user("bob_1").await,
        server.user("carol").await,
        server.user("dave").await,
    ];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    set(&bob, "displayname", json!("Ärger Bärbel")).await.ok();
    set(&dave, "displayname", json!("Bärbel in hiding")).await.ok();
    let public = json!({ "preset": "public_chat", "visibility": "public" });
    carol.create_room(public).await;
    let search = async |term: &str| {
        let found = alice
            .post("user_directory/search", json!({ "search_term": term }))
            .await
            .ok();
        let users = found["results"].as_array().unwrap().clone();
        users
            .iter()
            .map(|user| user["user_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        search("bärbel").await,
        std::slice::from_ref(&bob.id),
        "and nobody who shares no room"
    );
    assert_eq!(search("ÄRGER").await, std::slice::from_ref(&bob.id));
    assert_eq!(search("b_1").await, std::slice::from_ref(&bob.id));
    assert_eq!(search("bob%").await, [] as [&str; 0], "nothing is a wildcard");
    assert_eq!(search(&bob.id).await, std::slice::from_ref(&bob.id));
    assert_eq!(search("@CAR").await, std::slice::from_ref(&carol.id));
    assert_eq!(
        search("alice").await,
        [] as [&str; 0],
        "one does not look for oneself"
    );
    assert_eq!(search("").await, [] as [&str; 0]);
    let one = alice
        .post("user_directory/search", json!({ "search_term": "r", "limit": 1 }))
        .await
        .ok();
    assert_eq!(
        (one["results"].as_array().unwrap().len(), &one["limited"]),
        (1, &json!(true))
    );
    let named = &search("bärbel").await[0];
    assert_eq!(named, &bob.id);
    let found = alice
        .post("user_directory/search", json!({ "search_term": "bob" }))
        .await
        .ok();
    assert_eq!(found["results"][0]["display_name"], "Ärger Bärbel");
}
