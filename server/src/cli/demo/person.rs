//! A user of one of the demo's servers, who says and hears what any client would, only without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::admin::{self, AdminCommand, AdminReply};
use crate::cli::Failure;
use crate::http::router;
use crate::server::Server;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 16 << 20;

/// A user with a session.
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) password: String,
    user_id: String,
    token: String,
    /// How far the person has read.
    since: Option<String>,
    api: Router,
}

impl Person {
    /// Makes the account, or gives the one of an earlier demo another password, and logs in.
    pub(super) async fn of(server: &Arc<Server>, name: &'static str) -> Result<Self, Failure> {
        let password = new_password();
        account(server, name, &password).await?;
        let mut person = Self {
            name,
            user_id: format!("@{name}:{}", server.identity.name()),
            token: String::new(),
            since: None,
            api: router(Arc::clone(server)),
            password,
        };
        let session = person
            .ask(
                Method::POST,
                "login",
                json!({
                    "type": "m.login.password",
                    "identifier": { "type": "m.id.user", "user": name },
                    "password": person.password,
                }),
            )
            .await?;
        person.token = text(&session["access_token"]);
        Ok(person)
    }

    /// Makes a private room; its id.
    pub(super) async fn create_room(&self, name: &str) -> Result<String, Failure> {
        let wish = json!({ "preset": "private_chat", "name": name });
        let room = self.ask(Method::POST, "createRoom", wish).await?;
        Ok(text(&room["room_id"]))
    }

    pub(super) async fn invite(&self, room: &str, other: &Self) -> Result<(), Failure> {
        let path = format!("rooms/{room}/invite");
        let invited = self
            .ask(Method::POST, &path, json!({ "user_id": other.user_id }))
            .await;
        invited.map(drop)
    }

    pub(super) async fn join(&self, room: &str) -> Result<(), Failure> {
        let joined = self.ask(Method::POST, &format!("join/{room}"), json!({})).await;
        joined.map(drop)
    }

    pub(super) async fn send(&self, room: &str, body: &str) -> Result<(), Failure> {
        let transaction: u64 = rand::random();
        let path = format!("rooms/{room}/send/m.room.message/{transaction}");
        let sent = self
            .ask(Method::PUT, &path, json!({ "msgtype": "m.text", "body": body }))
            .await;
        sent.map(drop)
    }

    /// Waits for an invitation to a room.
    pub(super) async fn is_invited(&mut self, room: &str) -> Result<(), Failure> {
        self.reads(|sync| !sync["rooms"]["invite"][room].is_null()).await
    }

    /// Waits for a message in a room.
    pub(super) async fn hears(&mut self, room: &str, body: &str) -> Result<(), Failure> {
        self.reads(|sync| {
            let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array();
            events
                .into_iter()
                .flatten()
                .any(|event| event["content"]["body"] == body)
        })
        .await
    }

    /// Synchronises until an answer holds what is looked for.
    async fn reads(&mut self, found: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        loop {
            let since = self.since.as_ref();
            let since = since.map_or(String::new(), |since| format!("&since={since}"));
            let sync = self
                .ask(Method::GET, &format!("sync?timeout=30000{since}"), json!({}))
                .await?;
            self.since = sync["next_batch"].as_str().map(str::to_owned);
            if found(&sync) {
                return Ok(());
            }
        }
    }

    /// A request to the client API; the JSON of an answer that says yes.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::Other(format!("{}: {path}: {why}", self.name));
        let request = Request::builder()
            .method(method)
            .uri(format!("/_matrix/client/v3/{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Body::from(body.to_string()))
            .map_err(|error| failed(&error))?;
        let Ok(answer) = self.api.clone().oneshot(request).await;
        let (status, body) = (answer.status(), answer.into_body());
        let body = to_bytes(body, ANSWER_BYTES)
            .await
            .map_err(|error| failed(&error))?;
        if !status.is_success() {
            return Err(failed(&String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| failed(&error))
    }
}

async fn account(server: &Server, name: &str, password: &str) -> Result<(), Failure> {
    let (name, password) = (name.to_owned(), password.to_owned());
    let make = AdminCommand::UserCreate {
        name: name.clone(),
        password: password.clone(),
        admin: false,
    };
    let change = AdminCommand::UserPassword { name, password };
    if let AdminReply::Done { .. } = admin::execute(server, make).await {
        return Ok(());
    }
    match admin::execute(server, change).await {
        AdminReply::Refused { reason } => Err(Failure::Other(reason)),
        _ => Ok(()),
    }
}

/// Sixteen letters, easy to copy from a screen.
fn new_password() -> String {
    let letter = |random: u8| char::from(b'a' + random % 26);
    rand::random::<[u8; 16]>().map(letter).iter().collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
