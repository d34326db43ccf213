//! A server that is in a room, or says so, and lies to whoever wants to join through it: nothing but the join that was
//! asked for is ever signed, and no room is believed that does not hold.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maru_protocol::RoomVersion;
use maru_protocol::wire::answer::RefusedCode;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::request::membership::{Admission, Invite, Template};
use maru_protocol::wire::request::state::{Extent, State};
use maru_protocol::wire::{Part, Request};
use maru_protocol::{SecretKey, SigningKey};
use maru_tests::{Engine, TestProcess};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::foothold::Foothold;
use super::liar::{Liar, Victim};
use super::room::{Room, Stage, came_by, extent, join_through};

/// What a case is called, what the refusal says, what it is counted as, and what changes in an honest answer.
type Case = (&'static str, &'static str, &'static str, Lie);

/// Changes something in an honest answer.
type Lie = fn(&mut Template, &mut Vec<Part>, &mut Admission);

/// An event that looks like that of another room or is none.
const NO_EVENT: &str = r#"{"type":"m.room.create","state_key":"","content":{"room_version":"12"},"sender":"@a:b.invalid","origin_server_ts":1,"depth":1,"prev_events":[],"auth_events":[],"hashes":{"sha256":"AA"},"signatures":{}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_resident_makes_up_is_not_joined() {
    let stage = Stage::set().await;
    let lies: [Case; 10] = [
        (
            "the create event of another room",
            "of another room, or none",
            "wrong_answer",
            |template, _, _| template.create = NO_EVENT.into(),
        ),
        (
            "another version than the create event names",
            "of another room, or none",
            "wrong_answer",
            |template, _, _| template.version = Text::new("11").unwrap(),
        ),
        (
            "no previous events",
            "no previous events",
            "wrong_answer",
            |template, _, _| template.prev_events.clear(),
        ),
        (
            "another event came back",
            "another event than was sent",
            "wrong_answer",
            |_, parts, admission| {
                admission.event = parts[0].events[2].clone();
            },
        ),
        (
            "our event with other content came back",
            "a wrong event",
            "wrong_answer",
            |_, _, admission| {
                let other = admission
                    .event
                    .replace("\"membership\":\"join\"", "\"membership\":\"ban\"");
                admission.event = (&*other).into();
            },
        ),
        (
            "no create event in the state",
            "no create event",
            "wrong_answer",
            |_, _, admission| drop(admission.state.remove(0)),
        ),
        (
            "an empty state",
            "no create event",
            "wrong_answer",
            |_, parts, admission| {
                parts.clear();
                admission.state.clear();
            },
        ),
        (
            "no power levels in the chain",
            "the told auth chain of the join is not whole",
            "wrong_answer",
            |_, parts, _| parts.iter_mut().for_each(|part| drop(part.events.remove(2))),
        ),
        (
            "join rules that nobody signed",
            "the told auth chain of the join is not whole",
            "wrong_signature",
            |_, parts, _| {
                let rules = &mut parts[0].events[3];
                *rules = (&*rules.replace("\"depth\":4", "\"depth\":5")).into();
            },
        ),
        ("no records", "no create event", "wrong_answer", |_, parts, _| {
            parts.clear()
        }),
    ];
    for (seed, (case, why, counted, lie)) in (61..).zip(lies) {
        let counts = || stage.server.parts().peers.dropped().get(counted).copied();
        let before = counts();
        let liar = stage.meet(seed);
        let room = Room::of(&liar);
        liar.answer_with(room.clone().answer(lie));
        let reply = join_through(&stage.alice, &liar, &room).await;
        reply.refused(403, "M_FORBIDDEN");
        let error = reply.json["error"].as_str().unwrap();
        assert!(error.contains(why), "{case}: {error}");
        assert!(counts() > before, "{case} is not counted as {counted}");
        assert_eq!(stage.joined().await, json!([]), "{case}");
    }
    // The same room told as it is.
    let honest = stage.meet(60);
    let room = Room::of(&honest);
    honest.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &honest, &room).await.ok();
    assert_eq!(stage.joined().await, json!([room.create.room_id]));
}

/// Whoever asks to join signs one event, and it is the join that was asked for, whatever the template says.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_join_that_was_asked_for_is_signed() {
    let stage = Stage::set().await;
    let liar = stage.meet(76);
    let room = Room::of(&liar);
    let signed = Arc::new(Mutex::new(Vec::new()));
    let (seen, honest) = (
        Arc::clone(&signed),
        room.clone().answer(|template, parts, _| {
            // As if the join were to hang on the power of a user of the victim, after events of the liar's choice.
            template.depth = 1;
            template.auth_events.push(parts[0].events[1].clone());
            template
                .prev_events
                .push(OwnedEventId::try_from(format!("${:043}", 7)).unwrap());
        }),
    );
    liar.answer_with(move |request| {
        if let Request::SendMembership(call) = &request {
            seen.lock().unwrap().push(call.event.to_string());
        }
        honest(request)
    });
    join_through(&stage.alice, &liar, &room).await.ok();
    let signed = signed.lock().unwrap().clone();
    let [signed] = &signed[..] else {
        panic!("not one event: {signed:?}");
    };
    let signed: Value = serde_json::from_str(signed).unwrap();
    assert_eq!(signed["type"], "m.room.member");
    assert_eq!(signed["room_id"], room.create.room_id.as_str());
    assert_eq!(signed["content"]["membership"], "join");
    for own in ["sender", "state_key"] {
        assert_eq!(signed[own], stage.alice.id);
    }
    let allowing = json!([room.state[2].id, room.state[3].id]);
    let mut named = signed["auth_events"].as_array().unwrap().clone();
    named.sort_by_key(|id| id == &allowing[1]);
    assert_eq!(
        json!(named),
        allowing,
        "the membership of another does not allow it"
    );
}

/// The create event of a room says which rules hold in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_another_version_than_it_claims_is_not_joined() {
    let stage = Stage::set().await;
    let cases = [
        (RoomVersion::V12, "11"),
        (RoomVersion::V11, "12"),
        (RoomVersion::V11, "10"),
    ];
    for (seed, (version, claimed)) in (120..).zip(cases) {
        let liar = stage.meet(seed);
        let room = Room::claiming(&liar, version, claimed);
        liar.answer_with(room.clone().answer(|_, _, _| {}));
        let reply = join_through(&stage.alice, &liar, &room).await;
        reply.refused(403, "M_FORBIDDEN");
        let error = reply.json["error"].as_str().unwrap();
        assert!(error.contains("another version"), "{error}");
    }
    // The template shows a create event that fits, and the state another one.
    let liar = stage.meet(123);
    let shown = Room::of_version(&liar, RoomVersion::V11);
    let room = Room::claiming(&liar, RoomVersion::V11, "10");
    let create = shown.create.json.clone();
    liar.answer_with(room.clone().answer(move |template, _, _| {
        template.create = create.clone().into();
    }));
    let reply = join_through(&stage.alice, &liar, &room).await;
    reply.refused(403, "M_FORBIDDEN");
    let error = reply.json["error"].as_str().unwrap();
    assert!(error.contains("another version"), "{error}");
    assert_eq!(stage.joined().await, json!([]));
    assert_eq!(stage.server.parts().peers.dropped(), [("wrong_answer", 4)].into());
}

/// Somebody else says of a room that it is of another version, before it is joined: by inviting, and when asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_says_of_a_rooms_version_binds_nobody_else() {
    let stage = Stage::set().await;
    let (honest, liar) = (stage.meet(93), stage.meet(94));
    // Connected before the liar passes on its record of later.
    honest.greet(&stage.victim).await;
    let room = Room::of_version(&honest, RoomVersion::V11);
    let room_id = room.create.room_id.clone();
    honest.answer_with(room.clone().answer(|_, _, _| {}));

    let of_liar = Foothold {
        user: OwnedUserId::try_from(format!("@liar:{}", liar.name)).unwrap(),
        server: liar.name.clone(),
        key: liar.keys.signing.clone(),
        version: RoomVersion::V10,
        ..room.foothold.clone()
    };
    let invite = async |content: Value| {
        let event = of_liar.event("m.room.member", Some(&stage.alice.id), content);
        let invite = Invite {
            room_id: room_id.clone(),
            version: Text::new("10").unwrap(),
            event: event.json.clone().into(),
            stripped_state: Vec::new(),
            records: Vec::new(),
        };
        let answer = liar.pool.request(&stage.victim.name, invite).await.unwrap();
        answer.done().await
    };
    let banned = json!({ "membership": "ban", "before": { "membership": "invite" } });
    assert_eq!(Liar::refused(invite(banned).await), RefusedCode::Invalid);
    invite(json!({ "membership": "invite" })).await.unwrap();
    let of_version = async |version: &str| {
        let count = format!("SELECT COUNT(*) FROM rooms WHERE version = '{version}'");
        stage.server.data().number(&count).await
    };
    assert_eq!(of_version("10").await, 1);

    let said = json!({ "creator": of_liar.user, "room_version": "10" });
    let create = of_liar.event("m.room.create", Some(""), said).json;
    let is_sent = Arc::new(AtomicBool::new(false));
    let (sent, lie) = (
        Arc::clone(&is_sent),
        room.clone().answer(move |template, _, _| {
            template.version = Text::new("10").unwrap();
            template.create = create.clone().into();
        }),
    );
    liar.answer_with(move |request| {
        let is_join = matches!(request, Request::SendMembership(_));
        sent.fetch_or(is_join, Ordering::Relaxed);
        lie(request)
    });
    // The liar is asked first, and what it lets the user into is no room; then the one who made the room is.
    join_through(&stage.alice, &liar, &room).await.ok();
    assert!(is_sent.load(Ordering::Relaxed), "the liar was not asked");
    assert_eq!(stage.joined().await, json!([room_id]));
    assert_eq!((of_version("10").await, of_version("11").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_room_of_another_server_is_not_joined() {
    let stage = Stage::set().await;
    let (liar, other) = (stage.meet(71), Liar::start(72, &stage.victim));
    // A room that another server is said to have made, by keys that it does not have.
    let mut room = Room::of(&other);
    let forged = SigningKey {
        id: other.keys.signing.id.clone(),
        secret: SecretKey::from_seed(&[98; 32]),
    };
    room.foothold.key = forged.clone();
    let create = Foothold {
        key: forged,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        ..room.foothold.clone()
    }
    .create(json!({ "room_version": "12", "forged": true }));
    room.create = Arc::new(create);
    room.state[0] = Arc::clone(&room.create);
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    let reply = join_through(&stage.alice, &liar, &room).await;
    assert_ne!(reply.status, 200, "{}", reply.json);
    assert_eq!(stage.joined().await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_auth_chain_is_verified_to_its_end() {
    let stage = Stage::set().await;
    let liar = stage.meet(73);
    let room = Room::of(&liar).with_long_chain(2_000);
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &liar, &room).await.ok();
    assert_eq!(stage.joined().await, json!([room.create.room_id]));
}

/// What a part is that is answered a hundred times over: a thousand events, each well signed and allowed by the one before.
fn a_hundred_times(room: &Room, announced: Option<Extent>) -> Vec<Part> {
    let mut parts = vec![room.parts()[1].clone(); 100];
    parts[0].extent = announced;
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_chain_of_a_hundred_thousand_events_is_refused_before_it_is_read() {
    let stage = Stage::set().await;
    let announced = [
        ("a hundred thousand, as there are", Some(extent(4, 100_000))),
        ("as many as it may have", Some(extent(4, 2_000))),
        (
            "more than anybody counts",
            Some(extent(usize::MAX >> 11, usize::MAX >> 11)),
        ),
        ("nothing", None),
    ];
    let room = Room::of(&stage.meet(74)).with_long_chain(1_999);
    for (refused, (case, announced)) in (1..).zip(announced) {
        let liar = stage.meet(74);
        let told = a_hundred_times(&room, announced);
        assert_eq!(told.iter().map(|part| part.events.len()).sum::<usize>(), 100_000);
        liar.answer_with(room.clone().answer(move |_, parts, _| *parts = told.clone()));
        let reply = join_through(&stage.alice, &liar, &room).await;
        assert_eq!(reply.status, 403, "{case}: {}", reply.json);
        let error = reply.json["error"].as_str().unwrap();
        assert!(
            error.contains("too large, or larger than it said"),
            "{case}: {error}"
        );
        let dropped = stage.server.parts().peers.dropped();
        assert_eq!(dropped, [("too_much", refused)].into(), "{case}");
        assert_eq!(stage.joined().await, json!([]), "{case}");
        liar.pool.shut_down().await;
    }
}

/// A room without Maru's mark: events have at most 65,536 bytes, whoever makes them.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_the_limit_of_its_room_is_refused() {
    let stage = Stage::set().await;
    let liar = stage.meet(75);
    let room = Room::of(&liar);
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &liar, &room).await.ok();
    let room_id = room.create.room_id.clone();
    let replica = stage.server.replica(room_id.as_str()).await;
    let extremities = Arc::clone(&replica.head().extremities);
    let at = Foothold {
        prev_events: extremities.iter().map(|tip| tip.id.clone()).collect(),
        depth: room.foothold.depth + 1,
        ..room.foothold
    };
    let of_bytes = |bytes: usize| {
        let empty = at.message("").json.len();
        at.message(&"x".repeat(bytes - empty)).json
    };
    let said = [of_bytes(65_537), of_bytes(500_000), of_bytes(65_536)];
    assert_eq!((said[0].len(), said[2].len()), (65_537, 65_536));
    let items = said.iter().map(|json| at.item(json));
    liar.say(&stage.victim, items.collect::<Vec<_>>()).await;
    liar.say(&stage.victim, [at.item(&at.message("after them").json)])
        .await;
    stage.alice.hears(room_id.as_str(), "after them").await;
    let heard = maru_tests::user::texts(&stage.alice.history(room_id.as_str()).await);
    assert_eq!(heard.len(), 2, "the largest is taken");
    let dropped = stage.server.parts().peers.dropped();
    assert_eq!(dropped, [("too_large", 2)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_state_is_not_held_in_memory() {
    let victim = TestProcess::start(Engine::Sqlite, &["--federation-listen", "127.0.0.1:0"]).await;
    let alice = victim.user("alice").await;
    let (_, name) = alice.id.split_once(':').unwrap();
    let address = Victim {
        name: name.try_into().unwrap(),
        address: victim.federation_address(),
    };
    let (mut grown, mut told) = (Vec::new(), 0);
    // The first fills what is kept in memory for its own sake: with it, the server is as it is after a while.
    for seed in 77..79 {
        let liar = Liar::start(seed, &address);
        liar.greet(&address).await;
        let room = Room::of(&liar).with_large_state(1_200);
        told = room.state.iter().map(|event| event.json.len()).sum();
        liar.answer_with(room.clone().answer(|_, _, _| {}));
        let quiet = victim.resident_bytes();
        let mut most = quiet;
        let joined = join_through(&alice, &liar, &room);
        tokio::pin!(joined);
        loop {
            tokio::select! {
                reply = &mut joined => break drop(reply.ok()),
                () = sleep(Duration::from_millis(20)) => most = most.max(victim.resident_bytes()),
            }
        }
        grown.push((most - quiet) >> 20);
    }
    println!("{grown:?} MiB more memory for states of {} MiB", told >> 20);
    assert!(told > 64 << 20);
    assert!(grown[0] <= 96 && grown[1] <= 64, "{grown:?} MiB more memory");
}

/// The same room is told, several times at once, by a server that came into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_state_is_told_from_little_memory() {
    let victim = TestProcess::start(Engine::Sqlite, &["--federation-listen", "127.0.0.1:0"]).await;
    let alice = victim.user("alice").await;
    let (_, name) = alice.id.split_once(':').unwrap();
    let address = Victim {
        name: name.try_into().unwrap(),
        address: victim.federation_address(),
    };
    let liar = Arc::new(Liar::start(95, &address));
    liar.greet(&address).await;
    let room = Room::of(&liar).with_large_state(1_200);
    let room_id = room.create.room_id.clone();
    liar.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&alice, &liar, &room).await.ok();
    let joined = came_by(&alice, &room).await;

    let expected: HashSet<_> = room.state.iter().map(|event| event.id.clone()).collect();
    let ask = async || {
        let call = State {
            room_id: room_id.clone(),
            at: joined.clone(),
            beside: None,
        };
        let mut answer = liar.pool.request(&address.name, call).await.unwrap();
        let mut events = 0;
        while let Some(part) = answer.part().await.unwrap() {
            events += part.events.len();
        }
        assert_eq!(events, expected.len());
        let told: HashSet<_> = answer.done().await.unwrap().state.into_iter().collect();
        assert_eq!(told, expected);
    };
    let quiet = victim.resident_bytes();
    let mut most = quiet;
    let asking = futures_util::future::join_all((0..6).map(|_| ask()));
    tokio::pin!(asking);
    loop {
        tokio::select! {
            _ = &mut asking => break,
            () = sleep(Duration::from_millis(20)) => most = most.max(victim.resident_bytes()),
        }
    }
    let grown = (most - quiet) >> 20;
    println!("{grown} MiB more memory to tell a large state six times");
    assert!(grown <= 64, "{grown} MiB more memory");
}
