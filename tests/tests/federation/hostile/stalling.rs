//! Liars who do not tell what they are asked for: others are asked, and they themselves not again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use maru_protocol::wire::{Refused, RefusedCode, Request};
use maru_tests::user::texts;
use maru_tests::{Engine, TestServer, for_both_engines};
use serde_json::json;

use super::room::{Room, Stage, join_through};

for_both_engines!(who_never_tells_the_past_of_a_room_holds_up_no_other);

/// Liars, each with a room of its own. More than pages are fetched at the same time for the sake of one server.
const LIARS: u8 = 4;

async fn who_never_tells_the_past_of_a_room_holds_up_no_other(engine: Engine) {
    let stage = Stage::on(engine).await;
    let mut liars = Vec::new();
    for seed in 0..LIARS {
        let liar = stage.meet(130 + seed);
        let mut room = Room::of(&liar);
        // Something that nobody has comes before it.
        room.foothold.prev_events = vec![format!("${:043}", 1).try_into().unwrap()];
        liar.answer_with(room.clone().answer(|_, _, _| {}));
        liar.keep_silent_about(|request| matches!(request, Request::Backfill(_)));
        join_through(&stage.alice, &liar, &room).await.ok();
        liars.push(liar);
    }
    let honest = TestServer::start().await;
    let address = honest.open_federation().await;
    stage.server.knows(&honest, address);
    let bob = honest.user("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    bob.send(&room, "long ago").await;
    stage.alice.join_via(&room, honest.name()).await.ok();
    // Nobody reads it.
    let here = format!(
        "SELECT COUNT(*) FROM events JOIN rooms ON rooms.nid = events.room \
         WHERE rooms.room_id = '{room}' AND events.place < 1 AND events.type = 'm.room.message'"
    );
    stage.server.data().comes_to(1, &here).await;
    assert_eq!(texts(&stage.alice.history(&room).await), ["long ago"]);
}

/// A space of many rooms that one server alone is said to know.
#[tokio::test(flavor = "multi_thread")]
async fn who_tells_of_no_room_of_a_space_is_asked_once_for_a_page() {
    let stage = Stage::set().await;
    let liar = stage.meet(140);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    liar.answer_with(move |request| {
        if matches!(request, Request::Hierarchy(_)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Err(Refused::new(RefusedCode::LimitExceeded, "not now"))
    });
    let child = |number| {
        json!({
            "type": "m.space.child",
            "state_key": format!("!{number}:{}", liar.name),
            "content": { "via": [liar.name] },
        })
    };
    let children: Vec<_> = (0..50).map(child).collect();
    let space = json!({ "creation_content": { "type": "m.space" }, "initial_state": children });
    let space = stage.alice.create_room(space).await;
    let tree = stage
        .alice
        .get(&format!("/_matrix/client/v1/rooms/{space}/hierarchy"))
        .await
        .ok();
    assert_eq!(tree["rooms"].as_array().unwrap().len(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
