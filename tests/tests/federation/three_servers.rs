//! Rooms have no owner: they go on when the server that made them is gone for good.

use maru::store::rooms::events::StoredEvent;
use maru_tests::user::texts;
use maru_tests::waiting::look_for;
use maru_tests::{TestServer, federate};
use serde_json::{Value, json};

fn ids(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until a server has all these events by itself.
async fn has_all_of(server: &TestServer, room: &str, events: &[Value]) {
    let store = &server.parts().store;
    let room = store.rooms.room(room.try_into().unwrap()).await.unwrap().unwrap();
    for id in ids(events) {
        let what = format!("{} has {id}", server.name());
        look_for(&what, async || {
            let stored = store.rooms.event(id.as_str().try_into().unwrap()).await.unwrap();
            let is_here = |stored: &StoredEvent| stored.room == room.nid && stored.place.is_some();
            stored
                .filter(|stored| is_here(stored))
                .ok_or_else(|| "not yet".to_owned())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_goes_on_without_the_server_that_made_it() {
    for version in ["10", "12"] {
        let (a, b) = (TestServer::start().await, TestServer::start().await);
        let (c, d) = (TestServer::start().await, TestServer::start().await);
        federate(&[&a, &b, &c]).await;
        let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
        let room = alice
            .create_room(json!({ "preset": "public_chat", "room_version": version }))
            .await;
        alice.send(&room, "first").await;
        bob.join_via(&room, a.name()).await.ok();
        carol.join_via(&room, a.name()).await.ok();
        carol.send(&room, "from c").await;
        bob.hears(&room, "from c").await;
        alice.hears(&room, "from c").await;
        // B and C have fetched what was before them, though nobody there has read it.
        for server in [&b, &c] {
            has_all_of(server, &room, &alice.history(&room).await).await;
        }
        // C is away while A says its last word, which B alone hears.
        let c = c.shut_down().await;
        alice.send(&room, "last words").await;
        bob.hears(&room, "last words").await;
        a.shut_down().await;
        let c = c.start().await;
        federate(&[&b, &c]).await;
        let carol = carol.on(c.api());
        carol.hears(&room, "last words").await;
        bob.send(&room, "who is left?").await;
        carol.hears(&room, "who is left?").await;
        carol.send(&room, "we two").await;
        bob.hears(&room, "we two").await;
        // D never met A and comes in through C.
        federate(&[&d]).await;
        federate(&[&c, &d]).await;
        let dave = d.user("dave").await;
        dave.join_via(&room, c.name()).await.ok();
        dave.send(&room, "and me").await;
        carol.hears(&room, "and me").await;
        // D and B do not reach each other: what either says comes to the other by C, which has to say something itself.
        carol.send(&room, "there is a fourth").await;
        bob.hears(&room, "and me").await;
        dave.hears(&room, "there is a fourth").await;
        let history = dave.history(&room).await;
        let expected = [
            "first",
            "from c",
            "last words",
            "who is left?",
            "we two",
            "and me",
            "there is a fourth",
        ];
        assert_eq!(texts(&history), expected);
        assert_eq!(ids(&history), ids(&carol.history(&room).await));
        bob.send(&room, "all of us").await;
        carol.hears(&room, "all of us").await;
        carol.send(&room, "indeed").await;
        dave.hears(&room, "all of us").await;
    }
}
