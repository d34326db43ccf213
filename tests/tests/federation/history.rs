//! What was said before a server came: read page by page, by id, by time, as far as it may be seen.

use std::collections::HashSet;
use std::time::Duration;

use maru::store::rooms::events::Direction;
use maru_protocol::cursor::Place;
use maru_tests::user::{encode, texts};
use maru_tests::{Engine, TestServer, User, federate, for_both_engines};
use serde_json::{Value, json};
use tokio::time::timeout;

for_both_engines!(
    a_large_state_comes_once,
    who_hangs_up_while_the_past_is_fetched_loses_nothing
);

async fn two() -> (TestServer, TestServer, User, User) {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    (a, b, alice, bob)
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|at| format!("message {at}")).collect()
}

fn ids(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event_id"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_reads_the_whole_history_in_order() {
    let (a, _b, alice, bob) = two().await;
    for version in ["10", "12"] {
        let room = alice
            .create_room(json!({ "preset": "public_chat", "room_version": version }))
            .await;
        for text in numbered(0..130) {
            alice.send(&room, &text).await;
        }
        bob.join_via(&room, a.name()).await.ok();
        bob.send(&room, "here").await;
        alice.hears(&room, "here").await;
        let (here, there) = (bob.history(&room).await, alice.history(&room).await);
        assert_eq!(ids(&here), ids(&there));
        assert_eq!(texts(&here)[..130], numbered(0..130));
        assert_eq!(here[0]["type"], "m.room.create");
        let unique: HashSet<_> = ids(&here).into_iter().collect();
        assert_eq!(unique.len(), here.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_here_are_found_by_id_and_by_time() {
    let (a, _b, alice, bob) = two().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let first = alice.send(&room, "first").await;
    let time = alice
        .get(&format!("rooms/{room}/event/{}", encode(&first)))
        .await
        .ok()["origin_server_ts"]
        .as_u64()
        .unwrap();
    for text in numbered(0..20) {
        alice.send(&room, &text).await;
    }
    let last = alice.send(&room, "last").await;
    bob.join_via(&room, a.name()).await.ok();
    let by_time = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts={time}&dir=f");
    let near = bob.get(&by_time).await.ok();
    assert_eq!(near, alice.get(&by_time).await.ok());
    let event = bob
        .get(&format!("rooms/{room}/event/{}", encode(&first)))
        .await
        .ok();
    assert_eq!(event["content"]["body"], "first");
    let context = bob
        .get(&format!("rooms/{room}/context/{}?limit=4", encode(&last)))
        .await
        .ok();
    let before = texts(context["events_before"].as_array().unwrap());
    assert_eq!(before, ["message 19", "message 18"]);
    bob.get(&format!("rooms/{room}/event/$made-up"))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_for_members_alone_is_not_told() {
    let (a, b, alice, bob) = two().await;
    let state =
        json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": state }))
        .await;
    let secret = alice.send(&room, "before you came").await;
    bob.join_via(&room, a.name()).await.ok();
    alice.send(&room, "for you too").await;
    bob.hears(&room, "for you too").await;
    let heard = texts(&bob.history(&room).await);
    assert_eq!(heard, ["for you too"]);
    bob.get(&format!("rooms/{room}/event/{}", encode(&secret)))
        .await
        .refused(404, "M_NOT_FOUND");
    // Not only is it not shown: Bob's server was never given it.
    let stored = b
        .parts()
        .store
        .rooms
        .event(secret.as_str().try_into().unwrap())
        .await
        .unwrap();
    assert!(stored.is_none_or(|stored| !stored.event.json.contains("before you came")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_comes_back_reads_what_was_said_meanwhile() {
    let (a, _b, alice, bob) = two().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.send(&room, "first").await;
    bob.join_via(&room, a.name()).await.ok();
    alice.send(&room, "second").await;
    bob.hears(&room, "second").await;
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    for text in numbered(0..15) {
        alice.send(&room, &text).await;
    }
    bob.join_via(&room, a.name()).await.ok();
    alice.send(&room, "welcome back").await;
    bob.hears(&room, "welcome back").await;
    let (here, there) = (bob.history(&room).await, alice.history(&room).await);
    assert_eq!(ids(&here), ids(&there));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_left_is_told_what_it_saw_and_no_more() {
    let (a, b, alice, bob) = two().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for text in numbered(0..5) {
        alice.send(&room, &text).await;
    }
    bob.join_via(&room, a.name()).await.ok();
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    alice.send(&room, "among ourselves").await;
    // What was there before is fetched even now.
    let heard = texts(&bob.history(&room).await);
    assert_eq!(heard, numbered(0..5));
    let later = alice.history(&room).await;
    let later = later.last().unwrap()["event_id"].as_str().unwrap();
    bob.get(&format!("rooms/{room}/event/{}", encode(later)))
        .await
        .refused(404, "M_NOT_FOUND");
    let stored = b
        .parts()
        .store
        .rooms
        .event(later.try_into().unwrap())
        .await
        .unwrap();
    assert!(stored.is_none());
}

/// What a room is told to another server as it is read back: its state once, then what changed.
async fn a_large_state_comes_once(engine: Engine) {
    let (a, b) = (
        TestServer::start_on(engine).await,
        TestServer::start_on(engine).await,
    );
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let filler = |number: usize, text: &str| {
        let state_key = number.to_string();
        json!({ "type": "test.filler", "state_key": state_key, "content": { "text": text } })
    };
    let state: Vec<_> = (0..600)
        .map(|number| filler(number, &"x".repeat(1_000)))
        .collect();
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": state }))
        .await;
    let first = alice.send(&room, "first").await;
    for round in 0..4 {
        let text = format!("changed in round {round}");
        let (key, added) = (round.to_string(), format!("added {round}"));
        alice
            .set_state(&room, "test.filler", &key, json!({ "text": text }))
            .await;
        alice
            .set_state(&room, "test.filler", &added, json!({ "text": text }))
            .await;
        let texts: Vec<_> = (0..500).map(|number| format!("message {number}")).collect();
        for some in texts.chunks(50) {
            futures_util::future::join_all(some.iter().map(|text| alice.send(&room, text))).await;
        }
    }
    let told = || {
        let name = a.name().try_into().unwrap();
        let peer = b.parts().peers.pool().unwrap().peer(name).unwrap();
        peer.traffic.bytes_in
    };
    bob.join_via(&room, a.name()).await.ok();
    let (here, there) = (bob.history(&room).await, alice.history(&room).await);
    assert_eq!(here.len(), there.len());
    assert!(ids(&here) == ids(&there), "another order");
    let replica = b.replica(&room).await;
    let store = &b.parts().store;
    assert_eq!(store.rooms.gaps(replica.nid).await.unwrap(), []);
    let events = store
        .rooms
        .timeline(replica.nid, Place(i64::MIN), Direction::Forward, 10_000)
        .await
        .unwrap();
    // Every event of the state is one of the timeline too: all of them come twice, and no more often.
    let bytes = |is_state: bool| -> u64 {
        let events = events
            .iter()
            .filter(|stored| !is_state || stored.event.is_state());
        events.map(|stored| stored.event.json.len() as u64).sum()
    };
    let (told, expected) = (told(), bytes(false) + bytes(true));
    assert!(
        told < expected + expected / 4,
        "{told} bytes were told, not {expected}"
    );
    // The state in the middle of the past is the same on both sides.
    for event in [
        &first,
        &here[here.len() / 2]["event_id"].as_str().unwrap().to_owned(),
    ] {
        let path = format!("rooms/{}/context/{}?limit=1", encode(&room), encode(event));
        let state_of = |context: Value| {
            let state = context["state"].as_array().unwrap().clone();
            let ids = state
                .iter()
                .map(|event| event["event_id"].as_str().unwrap().to_owned());
            ids.collect::<HashSet<_>>()
        };
        let (here, there) = (bob.get(&path).await.ok(), alice.get(&path).await.ok());
        assert!(state_of(here) == state_of(there), "another state at {event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_given_no_erased_messages() {
    let (a, b, alice, bob) = two().await;
    let c = TestServer::start().await;
    federate(&[&a, &b, &c]).await;
    let (erin, carol) = (a.user("erin").await, c.user("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    erin.join(&room).await;
    erin.send(&room, "a secret").await;
    bob.join_via(&room, a.name()).await.ok();
    bob.send(&room, "here").await;
    alice.hears(&room, "here").await;
    let auth = json!({ "type": "m.login.password", "user": erin.name, "password": erin.password });
    let close = json!({ "auth": auth, "erase": true });
    erin.post("account/deactivate", close).await.ok();
    // Who was there has it and keeps it; who comes gets what remains of it.
    carol.join_via(&room, a.name()).await.ok();
    assert_eq!(texts(&bob.history(&room).await), ["a secret", "here"]);
    assert_eq!(texts(&alice.history(&room).await), ["a secret", "here"]);
    let history = carol.history(&room).await;
    assert_eq!(texts(&history), ["here"]);
    let of_erin = |event: &&Value| event["sender"] == erin.id.as_str() && event["type"] == "m.room.message";
    let remains: Vec<_> = history.iter().filter(of_erin).collect();
    assert_eq!(remains.len(), 1);
    assert_eq!(remains[0]["content"], json!({}));
}

/// The history of a room is read by somebody who never waits for it to end.
async fn who_hangs_up_while_the_past_is_fetched_loses_nothing(engine: Engine) {
    let (a, b) = (TestServer::start().await, TestServer::start_on(engine).await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for text in numbered(0..700) {
        alice.send(&room, &text).await;
    }
    bob.join_via(&room, a.name()).await.ok();
    let mut past = 0;
    for patience in 0.. {
        // Cut off at another moment each time, until all of it is here.
        let patience = Duration::from_millis(3 * patience);
        let page = format!("rooms/{room}/messages?dir=b&limit=100");
        let _ = timeout(patience, bob.get(&page)).await;
        past = b
            .data()
            .number("SELECT COUNT(*) FROM events WHERE place < 1")
            .await
            .max(past);
        if past > 700 {
            break;
        }
    }
    let (here, there) = (bob.history(&room).await, alice.history(&room).await);
    assert_eq!(ids(&here), ids(&there));
}
