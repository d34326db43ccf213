//! Liars who do not tell what they are asked for: others are asked, and they themselves not again and again.

use maru_protocol::wire::Request;
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
