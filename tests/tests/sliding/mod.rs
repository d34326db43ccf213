//! Sliding sync, in both forms (MSC4186).

mod connections;
mod extensions;
mod follower;
mod lists;
mod rooms;

use maru_tests::user::encode;
use maru_tests::{Reply, User};
use serde_json::{Value, json};

/// The older form.
const SIMPLIFIED: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// The accepted form.
const V4: &str = "/_matrix/client/v4/sync";

/// A connection of a device, in the older form.
#[derive(Clone)]
struct Connection {
    user: User,
    /// What is asked for.
    body: Value,
    pos: Option<String>,
}

impl Connection {
    fn new(user: &User, body: Value) -> Self {
        let user = user.clone();
        Self {
            user,
            body,
            pos: None,
        }
    }

    /// The answer to the next request, which waits so many milliseconds for news.
    async fn try_ask(&self, timeout: u32) -> Reply {
        let pos = self.pos.as_ref().map(|pos| format!("&pos={}", encode(pos)));
        let path = format!("{SIMPLIFIED}?timeout={timeout}{}", pos.unwrap_or_default());
        self.user.post(&path, self.body.clone()).await
    }

    /// What there is now.
    async fn ask(&mut self) -> Value {
        self.answer(0).await
    }

    /// What there is, or comes within ten seconds.
    async fn wait(&mut self) -> Value {
        self.answer(10_000).await
    }

    async fn answer(&mut self, timeout: u32) -> Value {
        let answer = self.try_ask(timeout).await.ok();
        self.pos = Some(answer["pos"].as_str().unwrap().to_owned());
        answer
    }
}

/// A request for one list of all rooms within a range.
fn list(from: usize, to: usize) -> Value {
    json!({ "lists": { "all": {
        "ranges": [[from, to]],
        "timeline_limit": 10,
        "required_state": [["m.room.create", ""], ["m.room.member", "$ME"]],
    } } })
}

/// The ids of the rooms of an answer.
fn rooms(answer: &Value) -> Vec<&str> {
    let rooms = answer["rooms"].as_object();
    rooms
        .map(|rooms| rooms.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// The texts of the messages in a room's timeline.
fn texts(answer: &Value, room: &str) -> Vec<String> {
    let timeline = answer["rooms"][room]["timeline"].as_array();
    maru_tests::user::texts(timeline.map(Vec::as_slice).unwrap_or_default())
}

/// Types and state keys of the required state of a room.
fn required(answer: &Value, room: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let state = answer["rooms"][room]["required_state"].as_array();
    let slots = state
        .into_iter()
        .flatten()
        .map(|event| (text(&event["type"]), text(&event["state_key"])));
    let mut slots: Vec<_> = slots.collect();
    slots.sort();
    slots
}

/// Asserts that nothing is new in an answer.
fn assert_nothing(answer: &Value) {
    assert!(answer.get("rooms").is_none(), "{answer:#}");
}
