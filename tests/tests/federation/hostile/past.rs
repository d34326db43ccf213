//! What a liar tells of the time before it let somebody in: states that do not fit, and what has long been overtaken told
//! as where the room ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use maru_federation::homeserver::Finished;
use maru_protocol::event::Event;
use maru_protocol::wire::request::history::{Backfill, Events, MissingEvents};
use maru_protocol::wire::request::state::{Difference, State, StateIds};
use maru_protocol::wire::{Part, Refused, RefusedCode, Request};
use maru_tests::user::{encode, texts};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::json;

use super::foothold::Foothold;
use super::liar::{Liar, Reply};
use super::room::{Room, Stage, answer_of, extent, join_through};

/// A room whose past holds a message that whoever joins has to fetch.
struct Past {
    room: Room,
    old: Event,
}

impl Past {
    fn of(liar: &Liar) -> Self {
        let mut room = Room::of(liar);
        room.foothold.prev_events = vec![OwnedEventId::try_from(format!("${:043}", 1)).unwrap()];
        let old = room.foothold.message("long ago");
        room.foothold.go_on(&old);
        Self { room, old }
    }

    /// Lets the liar tell of it, and of the state before the message that it is the one after it but for `gone`, with
    /// `filled` slots in all. Answers whether a state beside that one was asked for, of each time that one was.
    fn tell(&self, liar: &Liar, gone: Vec<OwnedEventId>, filled: u64) -> Arc<Mutex<Vec<bool>>> {
        let questions = Arc::new(Mutex::new(Vec::new()));
        let (asked, honest) = (Arc::clone(&questions), self.room.clone().answer(|_, _, _| {}));
        let (room, old) = (self.room.clone(), self.old.clone());
        liar.answer_with(move |request| match request {
            Request::Backfill(_) => answer_of::<Backfill>([&old]),
            Request::State(call) if call.at == old.id => {
                asked.lock().unwrap().push(call.beside.is_some());
                match call.beside {
                    Some(_) => difference(gone.clone(), filled),
                    None => whole(&room),
                }
            }
            request => honest(request),
        });
        questions
    }
}

/// A state that lacks something of the one beside it.
fn difference(gone: Vec<OwnedEventId>, filled: u64) -> Reply {
    let part = Part {
        extent: Some(extent(0, 0)),
        ..Part::default()
    };
    let ids = StateIds {
        state: Vec::new(),
        difference: Some(Difference { gone, filled }),
    };
    Ok((vec![part], Finished::done::<State>(ids)?))
}

fn whole(room: &Room) -> Reply {
    whole_with(room, None)
}

/// A state with one more event, which whoever asks has.
fn whole_with(room: &Room, other: Option<&OwnedEventId>) -> Reply {
    let told = room.state.iter().map(|event| &event.id);
    let ids = StateIds {
        state: told.chain(other).cloned().collect(),
        difference: None,
    };
    Ok((room.parts(), Finished::done::<State>(ids)?))
}

/// What the past of a room differs in from what came after it, where the liar counts wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_does_not_add_up_is_not_believed() {
    for (seed, filled, asked_whole) in [(96, 4, false), (97, 5, true), (98, u64::MAX >> 11, true)] {
        let stage = Stage::set().await;
        let liar = stage.meet(seed);
        let past = Past::of(&liar);
        let questions = past.tell(&liar, Vec::new(), filled);
        join_through(&stage.alice, &liar, &past.room).await.ok();
        let room_id = past.room.create.room_id.as_str();
        assert_eq!(
            texts(&stage.alice.history(room_id).await),
            ["long ago"],
            "{filled}"
        );
        let asked = questions.lock().unwrap().clone();
        assert_eq!(asked.contains(&false), asked_whole, "{filled}: {asked:?}");
        assert!(asked[0], "{filled}: {asked:?}");
    }
}

/// A difference that adds up, to a state that does not allow the event that it is told for: the sender is not in the room.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_does_not_fit_its_event_leaves_the_event_out() {
    let stage = Stage::set().await;
    let liar = stage.meet(99);
    let past = Past::of(&liar);
    let membership = past.room.state[1].id.clone();
    let questions = past.tell(&liar, vec![membership], 3);
    join_through(&stage.alice, &liar, &past.room).await.ok();
    let room_id = past.room.create.room_id.as_str();
    assert_eq!(texts(&stage.alice.history(room_id).await), [""; 0]);
    let asked = questions.lock().unwrap().clone();
    assert!(
        asked.iter().all(|beside| *beside),
        "the difference is what was told: {asked:?}"
    );
    let rejected = "SELECT COUNT(*) FROM events WHERE outcome = 2";
    assert_eq!(stage.server.data().number(rejected).await, 1);
    // The state that holds now is not touched by it.
    stage.alice.send(room_id, "now").await;
    assert_eq!(texts(&stage.alice.history(room_id).await), ["now"]);
}

/// The room had another name before it got the one that it was told with. The liar says that it ends there: with the event
/// that the server's history begins after, with the one before that, which the server does not know at all, and with one
/// that there is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_does_not_come_back_as_where_a_room_ends() {
    let stage = Stage::set().await;
    let liar = stage.meet(115);
    let mut room = Room::of(&liar);
    let mut named = |name: &str| {
        room.foothold.auth_events = vec![room.state[1].id.clone(), room.state[2].id.clone()];
        let event = room
            .foothold
            .event("m.room.name", Some(""), json!({ "name": name }));
        room.foothold.go_on(&event);
        Arc::new(event)
    };
    let (old, new) = (named("old"), named("new"));
    room.state.push(Arc::clone(&new));
    let honest = room.clone().answer(|_, _, _| {});
    liar.answer_with(honest);
    join_through(&stage.alice, &liar, &room).await.ok();
    let room_id = room.create.room_id.clone();
    let mut at = Foothold {
        prev_events: vec![stage.came_by(&room).await],
        depth: room.foothold.depth + 1,
        ..room.foothold.clone()
    };
    let nowhere = OwnedEventId::try_from(format!("${:043}", 2)).unwrap();
    for (text, past) in [("one", &new.id), ("two", &old.id), ("three", &nowhere)] {
        let news = at.message(text);
        at.go_on(&news);
        let (told, news) = (vec![past.clone(), news.id.clone()], Arc::new(news));
        let all = [Arc::clone(&old), Arc::clone(&new), Arc::clone(&news)];
        let of_them = move |ids: &[OwnedEventId]| {
            let asked = all.iter().filter(|event| ids.contains(&event.id));
            asked.cloned().collect::<Vec<_>>()
        };
        let before = [Arc::clone(&old), Arc::clone(&new)];
        liar.answer_with(move |request| match request {
            Request::Events(call) => answer_of::<Events>(of_them(&call.ids).iter().map(|event| &**event)),
            Request::MissingEvents(_) => answer_of::<MissingEvents>(before.iter().map(|event| &**event)),
            _ => Err(Refused::new(RefusedCode::NotFound, "no")),
        });
        liar.tell(&stage.victim, &room_id, told);
        stage.alice.hears(room_id.as_str(), text).await;
        let name = format!("rooms/{}/state/m.room.name", encode(room_id.as_str()));
        assert_eq!(
            stage.alice.get(&name).await.ok(),
            json!({ "name": "new" }),
            "{text}"
        );
        let replica = stage.server.replica(room_id.as_str()).await;
        let head = replica.head();
        let ends: Vec<_> = head.extremities.iter().map(|tip| &tip.id).collect();
        assert_eq!(ends, [&news.id], "{text}");
    }
}

/// Somebody banned says something after what nobody else knows, a moment before the ban by his account. It is turned down
/// here, and nothing is fetched for its sake. Who builds on it vouches for what lies before it, which is the past then.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_before_an_event_that_was_turned_down_is_fetched_for_who_builds_on_it() {
    let stage = Stage::set().await;
    let liar = stage.meet(116);
    let mut room = Room::of(&liar);
    let mut banned = room.foothold.clone();
    banned.user = OwnedUserId::try_from(format!("@banned:{}", liar.name)).unwrap();
    banned.auth_events = vec![room.state[2].id.clone(), room.state[3].id.clone()];
    let (user, joins) = (banned.user.to_string(), json!({ "membership": "join" }));
    let joined = Arc::new(banned.event("m.room.member", Some(&user), joins));
    room.foothold.go_on(&joined);
    room.state.push(Arc::clone(&joined));
    let talks = vec![room.state[1].id.clone(), room.state[2].id.clone()];
    room.foothold.auth_events = talks.clone();
    let between = room.foothold.message("between");
    banned.auth_events = vec![room.state[2].id.clone(), joined.id.clone()];
    banned.go_on(&between);
    let late = banned.message("late");
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &liar, &room).await.ok();

    let (told, asked) = (room.clone(), Arc::new(Mutex::new(Vec::new())));
    let (past, wanted) = (between.clone(), Arc::clone(&asked));
    liar.answer_with(move |request| match request {
        Request::Backfill(call) if call.from.contains(&past.id) => {
            wanted.lock().unwrap().push(call.from);
            answer_of::<Backfill>([&past])
        }
        Request::MissingEvents(_) => answer_of::<MissingEvents>([]),
        Request::Events(_) => answer_of::<Events>([]),
        Request::State(call) => match call.beside {
            Some(_) => difference(Vec::new(), 0),
            None => whole(&told),
        },
        _ => Err(Refused::new(RefusedCode::NotFound, "no")),
    });
    let mut at = Foothold {
        prev_events: vec![stage.came_by(&room).await],
        depth: room.foothold.depth + 1,
        ..room.foothold.clone()
    };
    at.auth_events.push(joined.id.clone());
    let ban = at.event("m.room.member", Some(&user), json!({ "membership": "ban" }));
    at.go_on(&ban);
    at.auth_events = talks;
    let says = at.message("banned");
    let said = [&ban, &late, &says].map(|event| at.item(&event.json));
    liar.say(&stage.victim, said).await;
    let room_id = room.create.room_id.as_str();
    stage.alice.hears(room_id, "banned").await;
    let soft_failed = "SELECT COUNT(*) FROM events WHERE outcome = 1";
    stage.server.data().comes_to(1, soft_failed).await;
    assert_eq!(texts(&stage.alice.history(room_id).await), ["banned"]);
    assert!(asked.lock().unwrap().is_empty(), "nobody vouches for it");

    at.go_on(&says);
    at.prev_events.push(late.id.clone());
    let vouches = at.message("vouches");
    liar.say(&stage.victim, [at.item(&vouches.json)]).await;
    stage.alice.hears(room_id, "vouches").await;
    let heard = texts(&stage.alice.history(room_id).await);
    assert_eq!(heard, ["banned", "between", "vouches"]);
}

/// Somebody says something after what there is not, while the past of the room is still missing: a gap that nobody fills,
/// newer than the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_nobody_fills_keeps_no_older_one_from_being_filled() {
    let stage = Stage::set().await;
    let liar = stage.meet(117);
    let Past { room, old } = Past::of(&liar);
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &liar, &room).await.ok();

    let nowhere = OwnedEventId::try_from(format!("${:043}", 2)).unwrap();
    let came_by = stage.came_by(&room).await;
    let alice = came_by.clone();
    let (wanted, told, asked) = (nowhere.clone(), room.clone(), AtomicBool::new(false));
    liar.answer_with(move |request| match request {
        Request::Backfill(call) if call.from.contains(&wanted) => {
            asked.store(true, Ordering::Relaxed);
            Err(Refused::new(RefusedCode::NotFound, "no"))
        }
        Request::Backfill(_) if asked.load(Ordering::Relaxed) => answer_of::<Backfill>([&old]),
        Request::MissingEvents(_) => answer_of::<MissingEvents>([]),
        Request::Events(_) => answer_of::<Events>([]),
        Request::State(call) if call.at == old.id => match call.beside {
            Some(_) => difference(Vec::new(), 0),
            None => whole(&told),
        },
        Request::State(_) => whole_with(&told, Some(&alice)),
        _ => Err(Refused::new(RefusedCode::NotFound, "no")),
    });
    let at = Foothold {
        prev_events: vec![came_by, nowhere],
        depth: room.foothold.depth + 1,
        ..room.foothold.clone()
    };
    liar.say(&stage.victim, [at.item(&at.message("after nothing").json)])
        .await;
    stage
        .alice
        .hears(room.create.room_id.as_str(), "after nothing")
        .await;
    // Nobody reads it.
    let here = "SELECT COUNT(*) FROM events WHERE place < 1 AND type = 'm.room.message'";
    stage.server.data().comes_to(1, here).await;
}
