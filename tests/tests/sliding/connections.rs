//! Connections: lost answers, restarts, several at once, and what is no `pos`.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, on_both_engines};
use serde_json::json;

use super::{Connection, SIMPLIFIED, V4, assert_nothing, list, rooms, texts};

/// The largest number that JSON may hold.
const MOST: u64 = (1 << 53) - 1;

on_both_engines!(
    an_answer_that_was_lost_comes_again,
    a_connection_survives_a_restart,
    connections_are_their_own,
    a_pos_that_is_not_known_begins_anew,
    a_pos_is_a_place_in_the_history,
    who_is_logged_out_waits_no_longer,
    what_is_no_request_is_refused,
    a_device_has_so_many_connections,
    what_nobody_uses_is_dropped,
);

async fn an_answer_that_was_lost_comes_again(server: TestServer) {
    let alice = server.user("alice").await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(alice.create_room(json!({})).await);
    }
    let mut phone = Connection::new(&alice, list(0, 1));
    phone.ask().await;
    // The answer with the other rooms is lost, twice; what was in it comes again, whatever it is asked by.
    phone.body = list(0, 3);
    let lost = phone.try_ask(0).await.ok();
    assert_eq!(rooms(&lost).len(), 2);
    alice.send(&all[0], "meanwhile").await;
    phone.body = list(0, 2);
    let lost = phone.try_ask(0).await.ok();
    assert!(rooms(&lost).contains(&all[0].as_str()));
    phone.body = list(0, 3);
    let again = phone.ask().await;
    let mut expected = [all[0].as_str(), &all[1]];
    expected.sort_unstable();
    assert_eq!(rooms(&again), expected);
    assert_eq!(texts(&again, &all[0]), ["meanwhile"]);
    assert_nothing(&phone.ask().await);
}

async fn a_connection_survives_a_restart(server: TestServer) {
    let alice = server.user("alice").await;
    let [one, two, three] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let mut phone = Connection::new(&alice, list(0, 1));
    phone.ask().await;
    // One room falls behind, and the answer that says so is the last before the restart.
    alice.send(&one, "1").await;
    phone.ask().await;
    let pos_before = phone.clone();
    alice.send(&three, "2").await;
    let before = phone.ask().await;
    assert_eq!(rooms(&before), [three.as_str()]);
    alice.send(&two, "3").await;
    let server = server.restart().await;
    let alice = alice.on(server.api());
    phone.user = alice.clone();
    phone.body = list(0, 9);
    let after = phone.ask().await;
    assert_eq!(rooms(&after), [two.as_str()], "{after:#}");
    assert_eq!(texts(&after, &two), ["3"]);
    assert!(after["rooms"][&two].get("initial").is_none(), "the device had it");
    assert_nothing(&phone.ask().await);
    // The point before that one is known after the restart too, but not any further back.
    let mut retried = pos_before;
    retried.user = alice;
    let again = retried.try_ask(0).await.ok();
    let mut missed = [two.as_str(), &three];
    missed.sort_unstable();
    assert_eq!(rooms(&again), missed, "{again:#}");
    phone.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
}

async fn connections_are_their_own(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let named = |name: &str| {
        let mut body = list(0, 9);
        body["conn_id"] = json!(name);
        body
    };
    let mut one = Connection::new(&alice, named("one"));
    let mut two = Connection::new(&alice, named("two"));
    assert_eq!(rooms(&one.ask().await), [room.as_str()]);
    assert_eq!(rooms(&two.ask().await), [room.as_str()]);
    alice.send(&room, "for both").await;
    assert_eq!(texts(&one.ask().await, &room), ["for both"]);
    assert_eq!(texts(&two.ask().await, &room), ["for both"]);
    // Nobody goes on by another's `pos`.
    let mut mixed = one.clone();
    mixed.body = named("two");
    mixed.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
    let mut stranger = one.clone();
    stranger.user = server.user("bob").await;
    stranger.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
    // A connection that begins anew takes the place of the one with its name.
    let mut anew = Connection::new(&alice, named("one"));
    assert_eq!(rooms(&anew.ask().await), [room.as_str()]);
    one.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
    assert_nothing(&two.ask().await);
}

async fn a_pos_that_is_not_known_begins_anew(server: TestServer) {
    let alice = server.user("alice").await;
    alice.create_room(json!({})).await;
    let mut phone = Connection::new(&alice, list(0, 9));
    phone.ask().await;
    let known = phone.pos.clone().unwrap();
    let (since, point) = known.split_once('~').unwrap();
    for pos in [
        "nonsense".to_owned(),
        "0".to_owned(),
        format!("s{}_1_0", "0".repeat(32)),
        format!("{since}~1.2.3"),
        format!("{since}~{point}1"),
        format!("{since}~{}", "9".repeat(40)),
    ] {
        let mut lost = phone.clone();
        lost.pos = Some(pos);
        lost.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
    }
    assert_nothing(&phone.ask().await);
}

async fn a_pos_is_a_place_in_the_history(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "before").await;
    let mut phone = Connection::new(&alice, list(0, 9));
    phone.ask().await;
    alice.send(&room, "after").await;
    let pos = encode(phone.pos.as_ref().unwrap());
    for (direction, expected) in [("b", "before"), ("f", "after")] {
        let path = format!(
            "rooms/{}/messages?dir={direction}&limit=1&from={pos}",
            encode(&room)
        );
        let page = alice.get(&path).await.ok();
        assert_eq!(page["chunk"][0]["content"]["body"], expected);
    }
}

async fn who_is_logged_out_waits_no_longer(server: TestServer) {
    let alice = server.user("alice").await;
    alice.create_room(json!({})).await;
    let other = alice.second_device().await;
    let mut phone = Connection::new(&other, list(0, 9));
    phone.ask().await;
    let waiting = tokio::spawn(async move { phone.try_ask(60_000).await });
    other.post("logout", json!({})).await.ok();
    waiting.await.unwrap().refused(401, "M_UNKNOWN_TOKEN");
    let kept = server
        .data()
        .number("SELECT COUNT(*) FROM sync_connections")
        .await;
    let rooms = server
        .data()
        .number("SELECT COUNT(*) FROM sync_connection_rooms")
        .await;
    assert_eq!((kept, rooms), (0, 0), "the device is gone with its connections");
}

async fn what_is_no_request_is_refused(server: TestServer) {
    let alice = server.user("alice").await;
    let long = "x".repeat(300);
    let many: Vec<_> = (0..400)
        .map(|number| [number.to_string(), String::new()])
        .collect();
    let spaces: Vec<_> = (0..101).map(|number| format!("!{number}:example.org")).collect();
    let bad = [
        json!({ "lists": { "a": { "ranges": [[0, 1]] } } }),
        json!({ "lists": { "a": { "ranges": [[0]], "timeline_limit": 1 } } }),
        json!({ "lists": { "a": { "ranges": [[-1, 1]], "timeline_limit": 1 } } }),
        json!({ "room_subscriptions": { "no room": { "timeline_limit": 1 } } }),
        json!({ "conn_id": long }),
        json!({ "lists": { long.as_str(): { "timeline_limit": 1 } } }),
        json!({ "lists": { "a": { "ranges": vec![[0, 1]; 50], "timeline_limit": 1 } } }),
        json!({ "lists": { "a": { "timeline_limit": 1, "required_state": vec![["a"]] } } }),
        json!({ "lists": { "a": { "timeline_limit": 1, "required_state": [[long, ""]] } } }),
        json!({ "lists": { "a": { "timeline_limit": 1, "required_state": many } } }),
        json!({ "lists": { "a": { "timeline_limit": 1, "filters": { "spaces": spaces } } } }),
    ];
    for body in bad {
        for path in [SIMPLIFIED, V4] {
            let reply = alice.post(path, body.clone()).await;
            assert_eq!(reply.status, 400, "{body} {}", reply.json);
        }
    }
    let path = format!("{SIMPLIFIED}?set_presence=somewhere");
    alice.post(&path, json!({})).await.refused(400, "M_INVALID_PARAM");
    for path in [SIMPLIFIED, V4] {
        let reply = server.request(http::Method::POST, path, Some(json!({}))).await;
        reply.refused(401, "M_MISSING_TOKEN");
        let empty = alice.post(path, json!({})).await.ok();
        assert!(empty["pos"].is_string());
    }
    // Ranges and limits beyond everything are as good as all.
    let room = alice.create_room(json!({})).await;
    let mut body = list(0, 9);
    body["lists"]["all"]["ranges"] = json!([[0, MOST], [5, 2]]);
    body["lists"]["all"]["timeline_limit"] = json!(MOST);
    assert_eq!(rooms(&Connection::new(&alice, body).ask().await), [room.as_str()]);
}

async fn a_device_has_so_many_connections(server: TestServer) {
    let alice = server.user("alice").await;
    alice.create_room(json!({})).await;
    let named = |number: usize| {
        let mut body = list(0, 9);
        body["conn_id"] = json!(number.to_string());
        body
    };
    for number in 0..20 {
        Connection::new(&alice, named(number)).ask().await;
    }
    let kept = server
        .data()
        .number("SELECT COUNT(*) FROM sync_connections")
        .await;
    let rooms = server
        .data()
        .number("SELECT COUNT(*) FROM sync_connection_rooms")
        .await;
    assert_eq!((kept, rooms), (16, 16));
}

async fn what_nobody_uses_is_dropped(server: TestServer) {
    let alice = server.user("alice").await;
    alice.create_room(json!({})).await;
    let mut phone = Connection::new(&alice, list(0, 9));
    phone.ask().await;
    let accounts = &server.parts().store.accounts;
    assert_eq!(accounts.drop_sync_connections(1, 10).await.unwrap(), 0);
    assert_eq!(accounts.drop_sync_connections(i64::MAX, 10).await.unwrap(), 1);
    let rooms = server
        .data()
        .number("SELECT COUNT(*) FROM sync_connection_rooms")
        .await;
    assert_eq!(rooms, 0);
    alice.create_room(json!({})).await;
    phone.try_ask(0).await.refused(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn any_node_goes_on_with_a_connection() {
    let one = TestServer::start_on(Engine::Postgres).await;
    let two = one.start_node("two").await;
    let alice = one.user("alice").await;
    let [first, second] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let mut phone = Connection::new(&alice, list(0, 0));
    phone.ask().await;
    for (round, node) in [&two, &one, &two, &one].into_iter().enumerate() {
        phone.user = alice.on(node.api());
        let text = format!("{round}");
        // Each takes the place of the other in the window.
        let room = if round % 2 == 0 { &first } else { &second };
        alice.send(room, &text).await;
        let mut answer = phone.ask().await;
        let mut is_initial = answer["rooms"][room].get("initial").is_some();
        // The node may have heard of the room's place in the list, and not yet of what was said there.
        while texts(&answer, room).is_empty() {
            answer = phone.wait().await;
            is_initial |= answer["rooms"][room].get("initial").is_some();
        }
        assert_eq!(texts(&answer, room), [text], "round {round}: {answer:#}");
        assert_eq!(
            is_initial,
            round == 0,
            "the device was sent the room by another node"
        );
    }
    assert_nothing(&phone.ask().await);
}
