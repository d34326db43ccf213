//! A room that a liar has made, and what an honest resident of it answers: what lies about the room begin with.

use std::sync::Arc;

use maru::config::Config;
use maru_federation::homeserver::Finished;
use maru_protocol::event::Event;
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::request::membership::{Admission, MakeMembership, SendMembership, Template};
use maru_protocol::wire::request::records::Records;
use maru_protocol::wire::request::state::Extent;
use maru_protocol::wire::{Call, Part, Refused, RefusedCode, Request};
use maru_protocol::{RoomVersion, SignedRecord};
use maru_tests::{Engine, Reply, TestServer, User, user::encode};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json};

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
    /// What its maker builds events of it with.
    pub(super) foothold: Foothold,
}

impl Room {
    pub(super) fn of(liar: &Liar) -> Self {
        Self::of_version(liar, RoomVersion::V12)
    }

    pub(super) fn of_version(liar: &Liar, version: RoomVersion) -> Self {
        Self::claiming(liar, version, version.as_str())
    }

    /// A room by the rules of one version whose create event names another.
    pub(super) fn claiming(liar: &Liar, version: RoomVersion, claimed: &str) -> Self {
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
        let create = at.create(json!({ "room_version": claimed }));
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

    /// Its state and the auth chain of that, as the parts of an answer.
    pub(super) fn parts(&self) -> Vec<Part> {
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

/// How much is told, in events.
pub(super) fn extent(state: usize, chain: usize) -> Extent {
    Extent {
        state: u64::try_from(state).unwrap(),
        chain: u64::try_from(chain).unwrap(),
    }
}

/// An answer that consists of these events.
pub(super) fn answer_of<'e, C: Call<Done = Nothing>>(
    events: impl IntoIterator<Item = &'e Event>,
) -> Answered {
    let part = Part {
        events: events
            .into_iter()
            .map(|event| event.json.clone().into())
            .collect(),
        ..Part::default()
    };
    Ok((vec![part], Finished::done::<C>(Nothing {})?))
}

/// Lets a user join a room through a liar.
pub(super) async fn join_through(user: &User, liar: &Liar, room: &Room) -> Reply {
    let room_id = encode(room.create.room_id.as_str());
    user.post(&format!("join/{room_id}?via={}", liar.name), json!({}))
        .await
}

/// The event with which a user came into a room.
pub(super) async fn came_by(user: &User, room: &Room) -> OwnedEventId {
    let own = format!("state/m.room.member/{}?format=event", encode(&user.id));
    let path = format!("rooms/{}/{own}", encode(room.create.room_id.as_str()));
    let joined = user.get(&path).await.ok();
    OwnedEventId::try_from(joined["event_id"].as_str().unwrap()).unwrap()
}

/// A server with a user, whom liars want in their rooms.
pub(super) struct Stage {
    pub(super) victim: Victim,
    pub(super) alice: User,
    pub(super) server: TestServer,
}

impl Stage {
    pub(super) async fn set() -> Self {
        Self::on(Engine::Sqlite).await
    }

    pub(super) async fn on(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    /// With a server whose configuration is changed before it starts.
    pub(super) async fn with(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::start_with(engine, change).await;
        Self {
            victim: Victim::of(&server).await,
            alice: server.user("alice").await,
            server,
        }
    }

    /// A liar that the server can find.
    pub(super) fn meet(&self, seed: u8) -> Liar {
        let liar = Liar::start(seed, &self.victim);
        self.server
            .parts()
            .peers
            .servers
            .addresses()
            .add(liar.name.clone(), vec![liar.address]);
        liar
    }

    /// The event with which the user came into a room.
    pub(super) async fn came_by(&self, room: &Room) -> OwnedEventId {
        came_by(&self.alice, room).await
    }

    /// The rooms that the user is in.
    pub(super) async fn joined(&self) -> Value {
        self.alice.get("joined_rooms").await.ok()["joined_rooms"].clone()
    }
}
