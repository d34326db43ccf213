//! A client that follows by sliding sync, whatever happens: rooms come and go, windows grow and shrink, answers are lost and
//! the server starts anew. In the end it has what the server has.

use std::collections::BTreeMap;

use maru_tests::chance::Chance;
use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, for_both_engines};
use serde_json::{Value, json};

use super::Connection;

for_both_engines!(a_client_has_what_the_server_has);

/// Histories that are played.
const HISTORIES: u64 = 6;

/// Steps of each.
const STEPS: usize = 70;

/// A room as the client has it.
#[derive(Debug, Default)]
struct Room {
    /// Ids of events, oldest first, without a gap.
    timeline: Vec<String>,
    state: BTreeMap<(String, String), String>,
    name: Option<String>,
    joined: u64,
}

/// The client.
struct Follower {
    connection: Connection,
    /// The rooms that the user is in.
    rooms: BTreeMap<String, Room>,
    story: Vec<String>,
}

fn id(event: &Value) -> String {
    event["event_id"].as_str().unwrap().to_owned()
}

impl Follower {
    /// Asks, and takes over the answer; whether there was something in it.
    async fn ask(&mut self) -> bool {
        let answer = self.connection.ask().await;
        let rooms = answer["rooms"].as_object().cloned().unwrap_or_default();
        for (room_id, shown) in &rooms {
            self.take(room_id, shown);
        }
        !rooms.is_empty()
    }

    fn take(&mut self, room_id: &str, shown: &Value) {
        if shown["membership"] != "join" {
            self.rooms.remove(room_id);
            return;
        }
        let initial = shown["initial"] == true;
        if initial {
            self.rooms.remove(room_id);
        }
        assert!(
            initial || self.rooms.contains_key(room_id),
            "{}\nwhat is new of {room_id}, which the client does not have: {shown:#}",
            self.story.join("\n")
        );
        let room = self.rooms.entry(room_id.to_owned()).or_default();
        let events = shown["timeline"].as_array().into_iter().flatten();
        let events: Vec<String> = events.map(id).collect();
        if shown["limited"] == true || shown["unstable_expanded_timeline"] == true {
            room.timeline = events;
        } else {
            room.timeline.extend(events);
        }
        for event in shown["required_state"].as_array().into_iter().flatten() {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            room.state.insert((text("type"), text("state_key")), id(event));
        }
        if let Some(name) = shown.get("name") {
            room.name = name.as_str().map(str::to_owned);
        }
        if let Some(joined) = shown["joined_count"].as_u64() {
            room.joined = joined;
        }
    }

    /// Changes what is asked for.
    fn change_mind(&mut self, chance: &mut Chance, all: &[String]) {
        let mut body = json!({ "lists": { "all": {
            "ranges": [[0, chance.below(5)]],
            "timeline_limit": 1 + chance.below(4),
            "required_state": [["*", "*"]],
        } } });
        if chance.below(3) == 0 {
            body["lists"]["all"]["ranges"][0][0] = json!(chance.below(3));
        }
        if !all.is_empty() && chance.below(2) == 0 {
            let room = &all[chance.below(all.len())];
            let limit = 1 + chance.below(6);
            body["room_subscriptions"] =
                json!({ room.as_str(): { "timeline_limit": limit, "required_state": [["*", "*"]] } });
        }
        self.story.push(format!("asks for {body}"));
        self.connection.body = body;
    }

    /// Compares with what the server has.
    async fn check(&mut self, user: &User) {
        self.connection.body = super::list(0, 99);
        self.connection.body["lists"]["all"]["required_state"] = json!([["*", "*"]]);
        while self.ask().await {}
        let story = self.story.join("\n");
        let joined = user.get("joined_rooms").await.ok();
        let joined = joined["joined_rooms"].as_array().unwrap();
        assert_eq!(joined.len(), self.rooms.len(), "{story}");
        for (room_id, room) in &self.rooms {
            let state = user.get(&format!("rooms/{}/state", encode(room_id))).await.ok();
            let mut expected = BTreeMap::new();
            for event in state.as_array().unwrap() {
                let text = |name: &str| event[name].as_str().unwrap().to_owned();
                expected.insert((text("type"), text("state_key")), id(event));
            }
            assert_eq!(room.state, expected, "{story}\nthe state of {room_id}");
            let history: Vec<String> = user.history(room_id).await.iter().map(id).collect();
            assert!(
                !room.timeline.is_empty() && history.ends_with(&room.timeline),
                "{story}\nthe timeline of {room_id} is {:?} of {history:?}",
                room.timeline
            );
            let state = state.as_array().unwrap();
            let name = state.iter().find(|event| event["type"] == "m.room.name");
            let name = name.and_then(|event| event["content"]["name"].as_str());
            assert_eq!(room.name.as_deref(), name, "{story}\nthe name of {room_id}");
            let members = state
                .iter()
                .filter(|event| event["content"]["membership"] == "join");
            assert_eq!(
                room.joined,
                members.count() as u64,
                "{story}\nthe members of {room_id}"
            );
        }
    }
}

async fn a_client_has_what_the_server_has(engine: Engine) {
    let only = std::env::var("MARU_FOLLOWER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(1..=HISTORIES, |seed| seed..=seed);
    for seed in seeds {
        Box::pin(run(engine, seed)).await;
    }
}

async fn run(engine: Engine, seed: u64) {
    println!("history {seed}");
    let mut server = TestServer::start_on(engine).await;
    let mut chance = Chance(seed);
    let mut alice = server.user("alice").await;
    let mut others = [server.user("bob").await, server.user("carol").await];
    let mut all: Vec<String> = Vec::new();
    let mut follower = Follower {
        connection: Connection::new(&alice, json!({})),
        rooms: BTreeMap::new(),
        story: vec![format!("history {seed}")],
    };
    for step in 0..STEPS {
        let actor = &others[chance.below(2)];
        let room = (!all.is_empty()).then(|| all[chance.below(all.len())].clone());
        match (chance.below(12), room) {
            (0, _) | (_, None) => {
                let request = json!({ "preset": "public_chat", "invite": [alice.id] });
                let room = actor.create_room(request).await;
                follower.story.push(format!("{} makes {room}", actor.id));
                all.push(room);
            }
            (1, Some(room)) => {
                let _ = alice.post(&format!("join/{}", encode(&room)), json!({})).await;
                follower.story.push(format!("alice joins {room}"));
            }
            (2, Some(room)) => {
                let _ = alice
                    .post(&format!("rooms/{}/leave", encode(&room)), json!({}))
                    .await;
                follower.story.push(format!("alice leaves {room}"));
            }
            (3, Some(room)) => {
                actor.post(&format!("join/{}", encode(&room)), json!({})).await;
                let path = format!("rooms/{}/kick", encode(&room));
                let _ = actor.post(&path, json!({ "user_id": alice.id })).await;
                follower
                    .story
                    .push(format!("{} kicks alice from {room}, or tries", actor.id));
            }
            (4 | 5, Some(room)) => {
                let path = format!("rooms/{}/state/m.room.name/", encode(&room));
                let _ = actor.put(&path, json!({ "name": format!("name {step}") })).await;
                follower.story.push(format!("{} names {room}", actor.id));
            }
            (6, Some(room)) => {
                actor.post(&format!("join/{}", encode(&room)), json!({})).await;
                follower.story.push(format!("{} joins {room}", actor.id));
            }
            (_, Some(room)) => {
                for _ in 0..=chance.below(3) {
                    let content = json!({ "msgtype": "m.text", "body": format!("{step}") });
                    let path = format!(
                        "rooms/{}/send/m.room.message/{}",
                        encode(&room),
                        actor.transaction()
                    );
                    let _ = actor.put(&path, content).await;
                }
                follower.story.push(format!("{} speaks in {room}", actor.id));
            }
        }
        if chance.below(3) == 0 {
            follower.change_mind(&mut chance, &all);
        }
        match chance.below(10) {
            0..=4 => {
                follower.story.push("asks".to_owned());
                follower.ask().await;
            }
            5 | 6 => {
                follower.story.push("asks, and the answer is lost".to_owned());
                follower.connection.try_ask(0).await.ok();
            }
            7 if chance.below(4) == 0 => {
                follower.story.push("the server starts anew".to_owned());
                server = server.restart().await;
                alice = alice.on(server.api());
                others = others.map(|user| user.on(server.api()));
                follower.connection.user = alice.clone();
            }
            _ => {}
        }
    }
    follower.check(&alice).await;
}
