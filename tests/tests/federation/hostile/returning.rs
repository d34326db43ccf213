//! What a liar does to a server that comes into its room, or comes back: what it withheld takes no place for ever, and the
//! server's join, said in two ways, is stored once.

use maru_protocol::gap::work::MOST_WAITING;
use maru_protocol::wire::request::history::MissingEvents;
use maru_protocol::wire::{LogItem, Request};
use ruma::OwnedEventId;
use serde_json::json;

use super::foothold::Foothold;
use super::liar::{Liar, eventually};
use super::room::{Room, Stage, answer_of, extent, join_through};

impl Stage {
    /// Waits until so many events wait to be taken into their rooms.
    async fn waiting(&self, expected: i64) {
        let waiting = "SELECT COUNT(*) FROM inbox";
        self.server.data().comes_to(expected, waiting).await;
    }

    /// Comes into a room of a liar's, which tells no lie of it; from where its events go on.
    async fn come_in(&self, liar: &Liar, room: &Room) -> Foothold {
        liar.answer_with(room.clone().answer(|_, _, _| {}));
        join_through(&self.alice, liar, room).await.ok();
        Foothold {
            prev_events: vec![self.came_by(room).await],
            depth: room.foothold.depth + 1,
            ..room.foothold.clone()
        }
    }

    /// Says in a room, after everything else there.
    async fn can_talk(&self, room: &Room) {
        let room = room.create.room_id.as_str();
        self.alice.send(room, "I am in").await;
        let heard = maru_tests::user::texts(&self.alice.history(room).await);
        assert_eq!(heard.last().map(String::as_str), Some("I am in"), "{heard:?}");
    }
}

/// What waits for its ancestors goes when the room's last user does, and takes no place when the user is back.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_server_left_makes_room_when_it_is_back() {
    let stage = Stage::set().await;
    let liar = stage.meet(110);
    let room = Room::of(&liar);
    let lost = |number: usize| Foothold {
        prev_events: vec![OwnedEventId::try_from(format!("${number:043}")).unwrap()],
        ..room.foothold.clone()
    };
    let inside = stage.come_in(&liar, &room).await;

    let lost_ones = |numbers: std::ops::Range<usize>| -> Vec<LogItem> {
        let lost = numbers.map(|number| lost(number).message("lost"));
        lost.map(|event| room.foothold.item(&event.json)).collect()
    };
    let most = MOST_WAITING;
    liar.say(&stage.victim, lost_ones(0..most)).await;
    stage.waiting(i64::try_from(most).unwrap()).await;
    let one_more = lost(most).message("one more");
    liar.say(&stage.victim, [room.foothold.item(&one_more.json)])
        .await;
    let dropped = || stage.server.parts().peers.dropped();
    eventually("no more of them wait", || {
        dropped() == [("unplaceable", 1)].into()
    })
    .await;

    stage.alice.leave(room.create.room_id.as_str()).await;
    stage.waiting(0).await;
    join_through(&stage.alice, &liar, &room).await.ok();
    // As many as before have their places.
    liar.say(&stage.victim, lost_ones(most + 1..2 * most)).await;
    stage.waiting(i64::try_from(most - 1).unwrap()).await;
    let good = inside.message("nothing is missing");
    liar.say(&stage.victim, [room.foothold.item(&good.json)]).await;
    stage
        .alice
        .hears(room.create.room_id.as_str(), "nothing is missing")
        .await;
    assert_eq!(dropped(), [("unplaceable", 1)].into());
}

/// The liar lists the join that it was sent among the events that allow it.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_told_with_the_state_is_stored_once() {
    let stage = Stage::set().await;
    let liar = stage.meet(111);
    let room = Room::of(&liar);
    let chain = room.chain.len() + 1;
    let state = room.state.len();
    liar.answer_with(room.clone().answer(move |_, parts, admission| {
        parts[0].events.push(admission.event.clone());
        parts[0].extent = Some(extent(state, chain));
    }));
    join_through(&stage.alice, &liar, &room).await.ok();
    assert_eq!(stage.joined().await, json!([room.create.room_id]));
    stage.can_talk(&room).await;
}

/// What the liar gives of the time in between forbids the join that it accepts all the same, with a state that allows it:
/// the server has stored the join as rejected when it begins anew with that state.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_the_history_forbids_and_the_told_state_allows_is_stored_once() {
    let stage = Stage::set().await;
    let liar = stage.meet(112);
    let room = Room::of(&liar);
    let inside = stage.come_in(&liar, &room).await;
    stage.alice.leave(room.create.room_id.as_str()).await;

    let ban = inside.event(
        "m.room.member",
        Some(&stage.alice.id),
        json!({ "membership": "ban" }),
    );
    let (banned, depth) = (vec![ban.id.clone()], ban.depth + 1);
    let honest = room.clone().answer(move |template, _, _| {
        template.prev_events.clone_from(&banned);
        template.depth = depth;
    });
    liar.answer_with(move |request| match request {
        Request::MissingEvents(_) => answer_of::<MissingEvents>([&ban]),
        request => honest(request),
    });
    join_through(&stage.alice, &liar, &room).await.ok();
    let rejected = "SELECT COUNT(*) FROM events WHERE outcome = 2";
    assert_eq!(
        stage.server.data().number(rejected).await,
        0,
        "the join is let in"
    );
    assert_eq!(stage.joined().await, json!([room.create.room_id]));
    stage.can_talk(&room).await;
}
