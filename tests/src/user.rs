//! A person with a client: what tests do again and again, in the words of the client API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Api, Reply};

/// Somebody who is logged in on one device.
#[derive(Clone, Debug)]
pub struct User {
    /// Where the requests go.
    pub api: Api,
    /// The local part of the id.
    pub name: String,
    /// For example `@alice:….maru.alt`.
    pub id: String,
    /// The device.
    pub device: String,
    /// The access token.
    pub token: String,
    /// The password.
    pub password: String,
    transactions: Arc<AtomicU64>,
}

impl User {
    /// Somebody whom a registration or a login has just let in.
    ///
    /// # Panics
    /// When `reply` is not the answer to either.
    #[must_use]
    pub fn from_session(api: Api, name: &str, password: &str, reply: &Value) -> Self {
        let text = |key: &str| {
            reply[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key} in {reply}"))
                .to_owned()
        };
        Self {
            api,
            name: name.to_owned(),
            id: text("user_id"),
            device: text("device_id"),
            token: text("access_token"),
            password: password.to_owned(),
            transactions: Arc::default(),
        }
    }

    /// The same session on another server process, after a restart.
    #[must_use]
    pub fn on(&self, api: &Api) -> Self {
        Self {
            api: api.clone(),
            ..self.clone()
        }
    }

    /// The same user with the access token of another session.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn with_token(&self, token: &Value) -> Self {
        Self {
            token: token.as_str().unwrap().to_owned(),
            ..self.clone()
        }
    }

    /// The same user on a second device.
    pub async fn second_device(&self) -> Self {
        self.api.log_in(&self.name, &self.password).await
    }

    /// A request with this user's token. A path that does not begin with a slash stands under
    /// `/_matrix/client/v3/`; use [`encode`] for parts of it that hold ids.
    pub async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.api.request(method, path, Some(&self.token), body).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path, None).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.request(Method::PUT, path, Some(body)).await
    }

    /// PUT whose answer nobody has taken from the server for as long as it is kept.
    ///
    /// # Panics
    /// When the server is not in this process, or the answer is not 200.
    pub async fn put_and_keep(&self, path: &str, body: Value) -> Response<Body> {
        let Api::InProcess(router) = &self.api else {
            panic!("the server is not in this process");
        };
        let request = Request::put(format!("/_matrix/client/v3/{path}"))
            .header("Authorization", format!("Bearer {}", self.token))
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.request(Method::POST, path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path, None).await
    }

    /// A transaction id that this user has not used.
    #[must_use]
    pub fn transaction(&self) -> String {
        format!("t{}", self.transactions.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a room; its id.
    pub async fn create_room(&self, request: Value) -> String {
        let reply = self.post("createRoom", request).await.ok();
        reply["room_id"].as_str().unwrap().to_owned()
    }

    /// Invites somebody.
    pub async fn invite(&self, room: &str, whom: &User) {
        let path = format!("rooms/{}/invite", encode(room));
        self.post(&path, json!({ "user_id": whom.id })).await.ok();
    }

    /// Joins a room.
    pub async fn join(&self, room: &str) {
        self.post(&format!("rooms/{}/join", encode(room)), json!({}))
            .await
            .ok();
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) {
        self.post(&format!("rooms/{}/leave", encode(room)), json!({}))
            .await
            .ok();
    }

    /// Sends a text message; the event's id.
    pub async fn send(&self, room: &str, text: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send_event(room, "m.room.message", content).await
    }

    /// Sends an event; its id.
    pub async fn send_event(&self, room: &str, event_type: &str, content: Value) -> String {
        let reply = self.send_as(room, event_type, &self.transaction(), content).await;
        event_id(&reply.ok())
    }

    /// Sends an event under a transaction id of the caller's choice.
    pub async fn send_as(&self, room: &str, event_type: &str, transaction: &str, content: Value) -> Reply {
        let path = format!(
            "rooms/{}/send/{}/{}",
            encode(room),
            encode(event_type),
            encode(transaction)
        );
        self.put(&path, content).await
    }

    /// Sets a piece of the room's state; the event's id.
    pub async fn set_state(&self, room: &str, event_type: &str, state_key: &str, content: Value) -> String {
        let path = format!(
            "rooms/{}/state/{}/{}",
            encode(room),
            encode(event_type),
            encode(state_key)
        );
        event_id(&self.put(&path, content).await.ok())
    }

    /// Redacts an event; the redaction's id.
    pub async fn redact(&self, room: &str, event: &str) -> String {
        let transaction = self.transaction();
        let path = format!("rooms/{}/redact/{}/{transaction}", encode(room), encode(event));
        event_id(&self.put(&path, json!({})).await.ok())
    }

    /// What is new since a token, without waiting.
    pub async fn sync(&self, since: Option<&str>) -> Synced {
        let since = since
            .map(|since| format!("&since={}", encode(since)))
            .unwrap_or_default();
        self.sync_with(&format!("timeout=0{since}")).await
    }

    /// What is new since a token, waiting for up to ten seconds.
    pub async fn wait(&self, since: &str) -> Synced {
        self.sync_with(&format!("timeout=10000&since={}", encode(since)))
            .await
    }

    /// The timeline events of a room after a token of an earlier sync, oldest first, and the token to go on from. What
    /// a limited sync leaves out is read by `/messages`.
    pub async fn news(&self, room: &str, since: &str) -> (Vec<Value>, String) {
        let synced = self.sync(Some(since)).await;
        let mut newest_first = synced.events(room);
        newest_first.reverse();
        let timeline = &synced.room(room)["timeline"];
        let mut from = timeline["prev_batch"]
            .as_str()
            .map(str::to_owned)
            .filter(|_| timeline["limited"] == true);
        while let Some(token) = from {
            let path = format!(
                "rooms/{}/messages?dir=b&limit=100&from={}&to={}",
                encode(room),
                encode(&token),
                encode(since)
            );
            let page = self.get(&path).await.ok();
            newest_first.extend(page["chunk"].as_array().unwrap().iter().cloned());
            from = page["end"].as_str().map(str::to_owned);
        }
        newest_first.reverse();
        (newest_first, synced.next())
    }

    /// A sync with a query of the caller's choice.
    pub async fn sync_with(&self, query: &str) -> Synced {
        Synced(self.get(&format!("sync?{query}")).await.ok())
    }

    /// The whole history of a room that the user may see, oldest first, read page by page backwards.
    pub async fn history(&self, room: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = String::new();
        loop {
            let path = format!("rooms/{}/messages?dir=b&limit=100{from}", encode(room));
            let page = self.get(&path).await.ok();
            events.extend(page["chunk"].as_array().unwrap().iter().cloned());
            match page["end"].as_str() {
                Some(end) => from = format!("&from={}", encode(end)),
                None => break,
            }
        }
        events.reverse();
        events
    }
}

/// The `event_id` of an answer.
fn event_id(json: &Value) -> String {
    json["event_id"]
        .as_str()
        .unwrap_or_else(|| panic!("no event id in {json}"))
        .to_owned()
}

/// The answer to a sync.
#[derive(Clone, Debug)]
pub struct Synced(pub Value);

impl Synced {
    /// The token to go on from.
    #[must_use]
    pub fn next(&self) -> String {
        self.0["next_batch"].as_str().unwrap().to_owned()
    }

    /// A room the user is in.
    #[must_use]
    pub fn room(&self, room: &str) -> &Value {
        &self.0["rooms"]["join"][room]
    }

    /// The timeline events of a room the user is in.
    #[must_use]
    pub fn events(&self, room: &str) -> Vec<Value> {
        let events = self.room(room)["timeline"]["events"].as_array();
        events.cloned().unwrap_or_default()
    }

    /// The ids of the timeline events of a room the user is in.
    #[must_use]
    pub fn timeline(&self, room: &str) -> Vec<String> {
        let events = self.events(room);
        events
            .iter()
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The texts of the messages in the timeline of a room the user is in.
    #[must_use]
    pub fn texts(&self, room: &str) -> Vec<String> {
        texts(&self.events(room))
    }
}

/// The texts of the messages among some events.
#[must_use]
pub fn texts(events: &[Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages
        .filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
        .collect()
}

/// A text as one segment of a path or value of a query: everything but letters, digits and `-._~` is escaped.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
