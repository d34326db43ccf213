//! A server that is in a room, or says so, and lies to whoever wants to join through it: nothing but the join that was
//! asked for is ever signed, and no room is believed that does not hold.
//!
//! Over 500 lines, because all of it lies about one made-up room.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maru_federation::homeserver::Finished;
use maru_protocol::RoomVersion;
use maru_protocol::event::Event;
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::request::history::Backfill;
use maru_protocol::wire::request::membership::{Admission, Invite, MakeMembership, SendMembership, Template};
use maru_protocol::wire::request::records::Records;
use maru_protocol::wire::request::state::{Difference, Extent, State, StateIds};
use maru_protocol::wire::{Part, Refused, RefusedCode, Request};
use maru_protocol::{SecretKey, SignedRecord, SigningKey};
use maru_tests::{Engine, Reply, TestProcess, TestServer, User, user::encode};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::foothold::Foothold;
use super::liar::{Liar, Reply as Answered, Victim};

/// A room that the liar has made, with everything in it: what an honest resident would answer.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) create: Arc<Event>,
    /// The state, each event after those it names.
    pub(super) state: Vec<Arc<Event>>,
    /// What is told beside the state: the rest of its auth chain.
    pub(super) chain: Vec<Arc<Event>>,
    record: SignedRecord,
    foothold: Foothold,
}

impl Room {
    pub(super) fn of(liar: &Liar) -> Self {
        Self::of_version(liar, RoomVersion::V12)
    }

    pub(super) fn of_version(liar: &Liar, version: RoomVersion) -> Self {
        let user = OwnedUserId::try_from(format!("@liar:{}", liar.name)).unwrap();
        let mut at = Foothold {
            room_id: format!("!room:{}", liar.name).try_into().unwrap(),
            version,
            user: user.clone(),
            server: liar.name.clone(),
            key: liar.keys.signing.clone(),
            auth_events: Vec::new(),
            prev_events: Vec::new(),
            depth: 1,
        };
        let create = at.create(json!({ "room_version": version.as_str() }));
        at.room_id = create.room_id.clone();
        at.go_on(&create);
        // From version 12 on the room's id names it.
        let named = (!version.room_id_is_hash()).then(|| create.id.clone());
        at.auth_events.extend(named.clone());
        let joined = at.event(
            "m.room.member",
            Some(user.as_str()),
            json!({ "membership": "join" }),
        );
        at.go_on(&joined);
        at.auth_events.push(joined.id.clone());
        // From version 12 on whoever made the room needs no power.
        let levels = match version.room_id_is_hash() {
            true => json!({}),
            false => json!({ "users": { (user.as_str()): 100 } }),
        };
        let levels = at.event("m.room.power_levels", Some(""), levels);
        at.go_on(&levels);
        at.auth_events.push(levels.id.clone());
        let rules = at.event("m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        at.go_on(&rules);
        let create = Arc::new(create);
        let state = [joined, levels, rules].into_iter().map(Arc::new);
        Self {
            state: [Arc::clone(&create)].into_iter().chain(state).collect(),
            chain: Vec::new(),
            create,
            record: liar.keys.signed_record(super::liar::now_ms()),
            foothold: at,
        }
    }

    /// The same room with power levels that were changed that many times, each change allowed by the one before: a long
    /// chain, and nothing wrong with it.
    pub(super) fn with_long_chain(mut self, length: usize) -> Self {
        let mut levels = self.state.remove(2);
        for number in 0..length {
            self.foothold.auth_events = vec![self.state[1].id.clone(), levels.id.clone()];
            let next = self.foothold.event(
                "m.room.power_levels",
                Some(""),
                json!({ "events_default": number % 10 }),
            );
            self.foothold.go_on(&next);
            self.chain.push(std::mem::replace(&mut levels, Arc::new(next)));
        }
        self.state.insert(2, levels);
        self
    }

    /// The same room with this many more events of its state, each of about 60,000 bytes.
    pub(super) fn with_large_state(mut self, count: usize) -> Self {
        self.foothold.auth_events = vec![self.state[1].id.clone(), self.state[2].id.clone()];
        let text = "x".repeat(60_000);
        for number in 0..count {
            let (key, content) = (number.to_string(), json!({ "text": text }));
            let event = self.foothold.event("test.filler", Some(&key), content);
            self.foothold.go_on(&event);
            self.state.push(Arc::new(event));
        }
        self
    }

    fn template(&self) -> Template {
        Template {
            version: Text::new(self.foothold.version.as_str()).unwrap(),
            create: self.create.json.clone().into(),
            auth_events: self.state[2..4]
                .iter()
                .map(|event| event.json.clone().into())
                .collect(),
            prev_events: self.foothold.prev_events.clone(),
            depth: self.foothold.depth,
            authorised_by: None,
        }
    }

    fn parts(&self) -> Vec<Part> {
        let mut all: Vec<_> = self.state.iter().chain(&self.chain).collect();
        all.sort_by_key(|event| event.depth);
        // Of the largest events, as many as a part may have.
        let is_large = |event: &&Arc<Event>| event.json.len() > 50_000;
        let together = if all.iter().copied().any(|event| is_large(&event)) {
            30
        } else {
            1_000
        };
        let parts = all.chunks(together).map(|events| Part {
            events: events.iter().map(|event| event.json.clone().into()).collect(),
            records: vec![self.record.clone()],
            ..Part::default()
        });
        let mut parts: Vec<_> = parts.collect();
        parts[0].extent = Some(extent(self.state.len(), self.chain.len()));
        parts
    }

    fn admission(&self, join: Json) -> Admission {
        Admission {
            event: join,
            state: self.state.iter().map(|event| event.id.clone()).collect(),
            extremities: Vec::new(),
            stripped_state: Vec::new(),
        }
    }

    /// What an honest resident answers, but for what `lie` changes in it.
    pub(super) fn answer(
        self,
        lie: impl Fn(&mut Template, &mut Vec<Part>, &mut Admission) + Send + Sync + 'static,
    ) -> impl Fn(Request) -> Answered + Send + Sync + 'static {
        move |request| {
            let (mut template, mut parts) = (self.template(), self.parts());
            match request {
                Request::MakeMembership(_) => {
                    lie(&mut template, &mut parts, &mut self.admission("{}".into()));
                    Ok((Vec::new(), Finished::done::<MakeMembership>(template)?))
                }
                Request::SendMembership(call) => {
                    let mut admission = self.admission(call.event);
                    lie(&mut template, &mut parts, &mut admission);
                    Ok((parts, Finished::done::<SendMembership>(admission)?))
                }
                Request::Records(_) => Ok((Vec::new(), Finished::done::<Records>(Nothing {})?)),
                _ => Err(Refused::new(RefusedCode::NotFound, "no")),
            }
        }
    }
}

fn extent(state: usize, chain: usize) -> Extent {
    Extent {
        state: u64::try_from(state).unwrap(),
        chain: u64::try_from(chain).unwrap(),
    }
}

/// Lets a user join a room through a liar.
pub(super) async fn join_through(user: &User, liar: &Liar, room: &Room) -> Reply {
    let room_id = encode(room.create.room_id.as_str());
    user.post(&format!("join/{room_id}?via={}", liar.name), json!({}))
        .await
}

struct Stage {
    victim: Victim,
    alice: User,
    server: TestServer,
}

impl Stage {
    async fn set() -> Self {
        let server = TestServer::start().await;
        Self {
            victim: Victim::of(&server).await,
            alice: server.user("alice").await,
            server,
        }
    }

    fn meet(&self, seed: u8) -> Liar {
        let liar = Liar::start(seed, &self.victim);
        self.server
            .parts()
            .peers
            .book()
            .add(liar.name.clone(), vec![liar.address]);
        liar
    }

    async fn joined(&self) -> Value {
        self.alice.get("joined_rooms").await.ok()["joined_rooms"].clone()
    }
}

/// Changes something in an honest answer.
type Lie = fn(&mut Template, &mut Vec<Part>, &mut Admission);

/// An event that looks like that of another room or is none.
const NO_EVENT: &str = r#"{"type":"m.room.create","state_key":"","content":{"room_version":"12"},"sender":"@a:b.invalid","origin_server_ts":1,"depth":1,"prev_events":[],"auth_events":[],"hashes":{"sha256":"AA"},"signatures":{}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_resident_makes_up_is_not_joined() {
    let stage = Stage::set().await;
    let lies: [(&str, Lie); 9] = [
        ("the create event of another room", |template, _, _| {
            template.create = NO_EVENT.into();
        }),
        ("no previous events", |template, _, _| {
            template.prev_events.clear()
        }),
        ("another event came back", |_, parts, admission| {
            admission.event = parts[0].events[2].clone();
        }),
        ("our event with other content came back", |_, _, admission| {
            let other = admission
                .event
                .replace("\"membership\":\"join\"", "\"membership\":\"ban\"");
            admission.event = (&*other).into();
        }),
        ("no create event in the state", |_, _, admission| {
            admission.state.remove(0);
        }),
        ("an empty state", |_, parts, admission| {
            parts.clear();
            admission.state.clear();
        }),
        ("no power levels in the chain", |_, parts, _| {
            parts.iter_mut().for_each(|part| drop(part.events.remove(2)));
        }),
        ("join rules that nobody signed", |_, parts, _| {
            let rules = &mut parts[0].events[3];
            *rules = (&*rules.replace("\"depth\":4", "\"depth\":5")).into();
        }),
        ("no records", |_, parts, _| parts.clear()),
    ];
    for (seed, (case, lie)) in (61..).zip(lies) {
        let liar = stage.meet(seed);
        let room = Room::of(&liar);
        liar.answer_with(room.clone().answer(lie));
        let reply = join_through(&stage.alice, &liar, &room).await;
        let status = reply.status.as_u16();
        assert!(
            (400..=502).contains(&status) && status != 500,
            "{case}: {status} {}",
            reply.json
        );
        assert!(reply.json["error"].is_string(), "{case}: {}", reply.json);
        assert_eq!(stage.joined().await, json!([]), "{case}");
    }
    // The same room told as it is.
    let honest = stage.meet(60);
    let room = Room::of(&honest);
    honest.answer_with(room.clone().answer(|_, _, _| {}));
    join_through(&stage.alice, &honest, &room).await.ok();
    assert_eq!(stage.joined().await, json!([room.create.room_id]));
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
    let invited = json!({ "membership": "invite" });
    let invited = of_liar.event("m.room.member", Some(&stage.alice.id), invited);
    let invite = Invite {
        room_id: room_id.clone(),
        version: Text::new("10").unwrap(),
        event: invited.json.clone().into(),
        stripped_state: Vec::new(),
        records: Vec::new(),
    };
    let answer = liar.pool.request(&stage.victim.name, invite).await.unwrap();
    answer.done().await.unwrap();
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
    let replica = stage.server.parts().rooms.room(&room_id).await.unwrap();
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
    let own = format!("state/m.room.member/{}?format=event", encode(&alice.id));
    let path = format!("rooms/{}/{own}", encode(room_id.as_str()));
    let joined = alice.get(&path).await.ok()["event_id"].clone();
    let joined = OwnedEventId::try_from(joined.as_str().unwrap()).unwrap();

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

/// What the past of a room differs in from what came after it, where the liar counts wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_does_not_fit_is_not_believed() {
    for (seed, filled, asked_whole) in [(96, 4, false), (97, 5, true), (98, u64::MAX >> 11, true)] {
        let stage = Stage::set().await;
        let liar = stage.meet(seed);
        let mut room = Room::of(&liar);
        let after_rules = room.foothold.prev_events.clone();
        room.foothold.prev_events = vec![OwnedEventId::try_from(format!("${:043}", 1)).unwrap()];
        let old = room.foothold.message("long ago");
        room.foothold.go_on(&old);
        assert_ne!(room.foothold.prev_events, after_rules);

        let questions = Arc::new(Mutex::new(Vec::new()));
        let (asked, honest, told) = (
            Arc::clone(&questions),
            room.clone().answer(|_, _, _| {}),
            room.clone(),
        );
        liar.answer_with(move |request| match request {
            Request::Backfill(_) => {
                let events = vec![old.json.clone().into()];
                let part = Part {
                    events,
                    ..Part::default()
                };
                Ok((vec![part], Finished::done::<Backfill>(Nothing {})?))
            }
            Request::State(call) if call.at == old.id => {
                asked.lock().unwrap().push(call.beside.is_some());
                let state = told.state.iter().map(|event| event.id.clone());
                let (parts, ids) = match call.beside {
                    Some(_) => {
                        let part = Part {
                            extent: Some(extent(0, 0)),
                            ..Part::default()
                        };
                        let difference = Difference {
                            gone: Vec::new(),
                            filled,
                        };
                        let ids = StateIds {
                            state: Vec::new(),
                            difference: Some(difference),
                        };
                        (vec![part], ids)
                    }
                    None => {
                        let state = state.collect();
                        let difference = None;
                        (told.parts(), StateIds { state, difference })
                    }
                };
                Ok((parts, Finished::done::<State>(ids)?))
            }
            request => honest(request),
        });
        join_through(&stage.alice, &liar, &room).await.ok();
        let room_id = room.create.room_id.as_str();
        let texts = maru_tests::user::texts(&stage.alice.history(room_id).await);
        assert_eq!(texts, ["long ago"], "{filled}");
        let asked = questions.lock().unwrap().clone();
        assert_eq!(asked.contains(&false), asked_whole, "{filled}: {asked:?}");
        assert!(asked[0], "{filled}: {asked:?}");
    }
}
