//! Events that are not what they claim to be: dropped or rejected one by one, each for its own reason, and never in the
//! way of the good ones around them.

use std::collections::BTreeMap;

use maru_protocol::wire::log::Event as EventItem;
use maru_protocol::wire::request::history::Events;
use maru_protocol::wire::{LogItem, Refused, RefusedCode, Request};
use maru_protocol::{RoomVersion, SecretKey, SigningKey};
use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, for_both_engines};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::json;

use super::foothold::Foothold;
use super::liar::{Liar, LiarKeys, Victim, eventually, now_ms};
use super::room::{Room, Stage as RoomStage, answer_of, join_through};

/// A server with a room, a liar in it, and a member who reads what comes.
struct Stage {
    server: TestServer,
    victim: Victim,
    alice: User,
    room: String,
    liar: Liar,
    foothold: Foothold,
}

impl Stage {
    async fn set(seed: u8) -> Self {
        let server = TestServer::start().await;
        let victim = Victim::of(&server).await;
        let alice = server.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let liar = Liar::start(seed, &victim);
        let foothold = liar.join(&victim, &room).await;
        Self {
            server,
            victim,
            alice,
            room,
            liar,
            foothold,
        }
    }

    /// Says something true after the lies, and waits until it is read.
    async fn truth_is_heard(&mut self, text: &str) {
        let truth = self.foothold.message(text);
        self.foothold.go_on(&truth);
        self.liar
            .say(&self.victim, [self.foothold.item(&truth.json)])
            .await;
        let mut since = self.alice.sync(None).await;
        for _ in 0..20 {
            if since.texts(&self.room).iter().any(|heard| heard == text) {
                return;
            }
            since = self.alice.wait(&since.next()).await;
        }
        panic!("`{text}` is not heard: {:?}", self.server.parts().peers.dropped());
    }

    /// The texts that a member reads in the whole history.
    async fn texts(&self) -> Vec<String> {
        maru_tests::user::texts(&self.alice.history(&self.room).await)
    }

    async fn dropped(&self, expected: &[(&'static str, u64)]) {
        let expected: BTreeMap<_, _> = expected.iter().copied().collect();
        let peers = &self.server.parts().peers;
        eventually("the drops are counted", || peers.dropped() == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_dropped_each_for_its_reason() {
    let mut stage = Stage::set(11).await;
    let (liar, honest) = (&stage.liar, &stage.foothold);
    let forger = Foothold {
        key: SigningKey {
            id: liar.keys.signing.id.clone(),
            secret: SecretKey::from_seed(&[99; 32]),
        },
        ..honest.clone()
    };
    let unknown_key = Foothold {
        key: SigningKey {
            id: maru_protocol::KeyId::new("never_published").unwrap(),
            secret: SecretKey::from_seed(&[99; 32]),
        },
        ..honest.clone()
    };
    let third = LiarKeys::of(12);
    let elsewhere = Foothold {
        user: OwnedUserId::try_from(format!("@mallory:{}", third.name())).unwrap(),
        server: third.name(),
        key: third.signing.clone(),
        ..honest.clone()
    };
    // By the rules of version 10 its signature does not cover who may invite.
    let of_version_10 = Foothold {
        version: RoomVersion::V10,
        ..honest.clone()
    };
    let other_room = OwnedRoomId::try_from("!elsewhere:example.org").unwrap();
    let good = honest.message("a good one").json;
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let lies = [
        forger.message("forged").json.to_string(),
        unknown_key.message("by nobody's key").json.to_string(),
        elsewhere
            .message("of a server whose record nobody has")
            .json
            .to_string(),
        of_version_10
            .event("m.room.power_levels", Some(""), json!({ "invite": 50 }))
            .json
            .to_string(),
        good.replace("a good one", "a changed one")
            .replace("\"depth\":", "\"depth\":1"),
        good.replace("\"msgtype\":\"m.text\"", &format!("\"deep\":{deep}")),
        good.replace("\"msgtype\":\"m.text\"", "\"big\":9007199254740992"),
        good.replace("\"msgtype\":\"m.text\"", "\"real\":1.5"),
        good.replace("\"depth\":", "\"depth\":-"),
        good[..good.len() - 1].to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        // The signature is right and the content is not: its redacted form stays, which says nothing.
        good.replace("a good one", "a swapped one"),
    ];
    let items = lies.iter().map(|json| honest.item(json));
    liar.say(&stage.victim, items.collect::<Vec<_>>()).await;
    stage.truth_is_heard("the truth").await;
    assert_eq!(stage.texts().await, ["the truth"]);
    stage
        .dropped(&[
            ("malformed", 8),
            ("no_known_signature", 2),
            ("wrong_signature", 3),
        ])
        .await;

    // What is said for a room that it is not of, be there such a room or not.
    let second = stage.alice.create_room(json!({ "preset": "public_chat" })).await;
    let second = OwnedRoomId::try_from(second).unwrap();
    let other = stage.foothold.message("for another room").json;
    let for_other = |room_id: &OwnedRoomId| {
        LogItem::Event(EventItem {
            room_id: room_id.clone(),
            json: (*other).into(),
        })
    };
    stage
        .liar
        .say(&stage.victim, [for_other(&second), for_other(&other_room)])
        .await;
    stage.truth_is_heard("more truth").await;
    assert_eq!(stage.texts().await, ["the truth", "more truth"]);
    stage
        .dropped(&[
            ("malformed", 8),
            ("no_known_signature", 2),
            ("other_room", 1),
            ("wrong_signature", 3),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_server_does_not_come_by_the_log() {
    let mut stage = Stage::set(13).await;
    // A second server, honest enough to be in the room; the liar passes on what that one has signed.
    let other = Liar::start(14, &stage.victim);
    let others = other.join(&stage.victim, &stage.room).await;
    let passed_on = others.message("mine to send");
    stage
        .liar
        .say(&stage.victim, [stage.foothold.item(&passed_on.json)])
        .await;
    stage.truth_is_heard("the truth").await;
    stage.dropped(&[("other_server", 1)]).await;
    assert_eq!(stage.texts().await, ["the truth"]);
    // From the one it belongs to, it is taken.
    other.say(&stage.victim, [others.item(&passed_on.json)]).await;
    let texts = stage.alice.clone();
    for _ in 0..20 {
        let synced = texts.sync(None).await;
        if synced
            .texts(&stage.room)
            .iter()
            .any(|text| text == "mine to send")
        {
            return;
        }
        texts.wait(&synced.next()).await;
    }
    panic!("an honest event is not taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_in_the_room_says_nothing_there() {
    let stage = Stage::set(15).await;
    let outsider = Liar::start(16, &stage.victim);
    let user = OwnedUserId::try_from(format!("@outsider:{}", outsider.name)).unwrap();
    let from_outside = Foothold {
        user: user.clone(),
        server: outsider.name.clone(),
        key: outsider.keys.signing.clone(),
        ..stage.foothold.clone()
    };
    // A message, and a join past the front door: both name what would allow the liar's own.
    let message = from_outside.message("let me in");
    let state = from_outside.event("m.room.name", Some(""), json!({ "name": "Mine" }));
    outsider
        .say(
            &stage.victim,
            [from_outside.item(&message.json), from_outside.item(&state.json)],
        )
        .await;
    let rejected = "SELECT COUNT(*) FROM events WHERE outcome = 2";
    stage.server.data().comes_to(2, rejected).await;
    let mut stage = stage;
    stage.truth_is_heard("the truth").await;
    assert_eq!(stage.texts().await, ["the truth"]);
    let name = format!("rooms/{}/state/m.room.name", encode(&stage.room));
    assert_eq!(
        stage.alice.get(&name).await.status,
        404,
        "an outsider has named the room"
    );
}

/// The liar is banned, and says something on what was there before: its own events allow it, the room does not any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_softly_is_kept_for_the_graph_and_shown_to_nobody() {
    let mut stage = Stage::set(18).await;
    let honest = Liar::start(19, &stage.victim);
    let mut others = honest.join(&stage.victim, &stage.room).await;
    (stage.foothold.prev_events, stage.foothold.depth) = (others.prev_events.clone(), others.depth);
    let ban = json!({ "user_id": stage.foothold.user });
    let path = format!("rooms/{}/ban", encode(&stage.room));
    stage.alice.post(&path, ban).await.ok();
    let banned = stage.alice.history(&stage.room).await.pop().unwrap()["event_id"].clone();
    let since = stage.alice.sync(None).await.next();
    let stale = stage.foothold.message("from before the ban");
    stage
        .liar
        .say(&stage.victim, [stage.foothold.item(&stale.json)])
        .await;
    let kept = "SELECT COUNT(*) FROM events WHERE outcome = 1";
    stage.server.data().comes_to(1, kept).await;
    // Perhaps it does not know of the ban, having gone back to a backup: it is told the event with which it went.
    eventually("the liar is told of its ban", || {
        let told = stage.liar.told();
        let ends = told.last().map(|room| room.extremities.clone());
        ends.is_some_and(|ends| ends.len() == 1 && banned == ends[0].as_str())
    })
    .await;
    // Somebody else has taken it, and goes on from there. Nothing has to be fetched for that.
    others.prev_events = vec![stale.id.clone()];
    others.depth = stale.depth + 1;
    let next = others.message("and on");
    honest.say(&stage.victim, [others.item(&next.json)]).await;
    stage.alice.hears(&stage.room, "and on").await;
    assert_eq!(stage.texts().await, ["and on"]);
    let synced = stage.alice.sync(Some(&since)).await;
    assert_eq!(synced.texts(&stage.room), ["and on"]);
    let room = encode(&stage.room);
    for path in ["event", "context"] {
        let path = format!("rooms/{room}/{path}/{}", encode(stale.id.as_str()));
        stage.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    stage.dropped(&[]).await;
}

/// What the liar says after its ban was fetched a moment before it came by the liar's log.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_is_told_also_of_what_was_fetched_before() {
    let stage = Stage::set(21).await;
    let ban = json!({ "user_id": stage.foothold.user });
    let path = format!("rooms/{}/ban", encode(&stage.room));
    stage.alice.post(&path, ban).await.ok();
    let banned = stage.alice.history(&stage.room).await.pop().unwrap()["event_id"].clone();
    let stale = stage.foothold.message("from before the ban");
    let (item, id) = (stage.foothold.item(&stale.json), stale.id.clone());
    stage.liar.answer_with(move |request| match request {
        Request::Events(_) => answer_of::<Events>([&stale]),
        _ => Err(Refused::new(RefusedCode::NotFound, "no")),
    });
    stage.liar.tell(&stage.victim, &stage.foothold.room_id, vec![id]);
    let kept = "SELECT COUNT(*) FROM events WHERE outcome = 1";
    stage.server.data().comes_to(1, kept).await;
    stage.liar.say(&stage.victim, [item]).await;
    eventually("the liar is told of its ban", || {
        let told = stage.liar.told();
        let ends = told.last().map(|room| room.extremities.clone());
        ends.is_some_and(|ends| ends.len() == 1 && banned == ends[0].as_str())
    })
    .await;
}

/// Events say when they were made, and a liar's say what it likes: that moves nobody else's, also where a server learns
/// anew how far its own have come.
#[tokio::test(flavor = "multi_thread")]
async fn times_of_the_far_future_take_nobody_along() {
    let mut stage = Stage::set(20).await;
    let latest = (1_u64 << 53) - 1;
    for (text, time) in [
        ("next year", now_ms() + 31_536_000_000),
        ("the last moment but one", latest - 1),
        ("the last moment", latest),
    ] {
        let event = stage.foothold.message_at(time, text);
        stage.foothold.go_on(&event);
        let item = stage.foothold.item(&event.json);
        stage.liar.say(&stage.victim, [item]).await;
        stage.alice.hears(&stage.room, text).await;
    }
    let after_it = stage.foothold.message_at(latest, "after it").json;
    let beyond = after_it.replace(&latest.to_string(), &(latest + 1).to_string());
    assert_ne!(*after_it, beyond);
    stage
        .liar
        .say(&stage.victim, [stage.foothold.item(&beyond)])
        .await;
    stage.dropped(&[("malformed", 1)]).await;

    let made = async |alice: &User, room: &str| {
        let (before, event) = (now_ms(), alice.send(room, "now").await);
        let path = format!("rooms/{}/event/{}", encode(room), encode(&event));
        let time = alice.get(&path).await.ok()["origin_server_ts"].as_u64().unwrap();
        assert!((before..=now_ms()).contains(&time), "{time} is not now");
    };
    made(&stage.alice, &stage.room).await;
    let server = stage.server.restart().await;
    made(&stage.alice.on(server.api()), &stage.room).await;
}

/// A room that forked long ago: whatever joins the forks is judged by all that happened in either since.
async fn an_event_whose_verdict_needs_too_much_is_dropped_and_holds_up_nobody(engine: Engine) {
    const MOST: usize = 50;
    let stage = RoomStage::with(engine, |config| config.federation.verdict_events = MOST).await;
    let liar = stage.meet(118);
    let room = Room::of(&liar);
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &liar, &room).await.ok();
    let came_by = stage.came_by(&room).await;
    let [joined, levels] = [1, 2].map(|at| room.state[at].id.clone());
    let forked = Foothold {
        auth_events: vec![joined.clone(), levels],
        prev_events: vec![came_by],
        depth: room.foothold.depth + 1,
        ..room.foothold.clone()
    };
    let (mut at, mut items) = (forked.clone(), Vec::new());
    for number in 0..2 * MOST {
        let levels = at.event(
            "m.room.power_levels",
            Some(""),
            json!({ "events_default": number % 10 }),
        );
        at.go_on(&levels);
        at.auth_events = vec![joined.clone(), levels.id.clone()];
        items.push(at.item(&levels.json));
    }
    let last = at.message("together they are more than one may need");
    items.push(at.item(&last.json));
    liar.say(&stage.victim, items).await;
    let room_id = room.create.room_id.as_str();
    stage
        .alice
        .hears(room_id, "together they are more than one may need")
        .await;

    let name = forked.event("m.room.name", Some(""), json!({ "name": "of long ago" }));
    at.go_on(&last);
    let next = at.message("and on");
    liar.say(&stage.victim, [at.item(&name.json), at.item(&next.json)])
        .await;
    stage.alice.hears(room_id, "and on").await;
    stage
        .server
        .data()
        .comes_to(0, "SELECT COUNT(*) FROM inbox")
        .await;
    let dropped = stage.server.parts().peers.dropped();
    assert_eq!(dropped, BTreeMap::from([("too_costly", 1)]));
}

for_both_engines!(an_event_whose_verdict_needs_too_much_is_dropped_and_holds_up_nobody);
