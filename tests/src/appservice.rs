//! An application service to test with: it takes what it is sent or refuses it, keeps all of it, and calls the client API by
//! its token.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::user::encode;
use crate::waiting::look_for;
use crate::{Api, Reply};

/// Largest body that it takes, in bytes.
const BODY_BYTES: usize = 64 << 20;

/// What it answers to transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes them.
    Takes,
    /// It answers with another status.
    Refuses(u16),
    /// It sends somewhere else.
    Redirects(String),
    /// It says yes with a body that is no JSON.
    Babbles,
    /// It never answers.
    Hangs,
}

/// A transaction that it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub id: String,
    /// Its body as it came.
    pub body: Bytes,
    /// Whether it was taken.
    pub is_taken: bool,
}

impl Transaction {
    /// The body.
    ///
    /// # Panics
    /// When it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The events in it.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().cloned().unwrap_or_default()
    }
}

/// What it is asked by a path that is neither a transaction nor a ping, and what it answers; 404 where there is nothing.
type Answers = BTreeMap<String, Value>;

#[derive(Debug)]
struct Kept {
    mood: Mood,
    transactions: Vec<Transaction>,
    /// Everything else that it was asked, as method and path with query.
    questions: Vec<String>,
    answers: Answers,
    /// What it does before it answers that a user is there: registers the user here.
    registers_on: Option<Api>,
}

/// A running application service.
#[derive(Debug)]
pub struct TestAppservice {
    /// Its id, which its names are made of: users `@_<id>_…`, aliases `#_<id>_…`, its own user `@<id>bot`.
    pub id: String,
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    listening: Option<JoinHandle<()>>,
}

impl TestAppservice {
    /// A service that takes what it is sent.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn start(id: &str) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let mut service = Self {
            id: id.to_owned(),
            address: listener.local_addr().unwrap(),
            kept: Arc::new(Mutex::new(Kept {
                mood: Mood::Takes,
                transactions: Vec::new(),
                questions: Vec::new(),
                answers: Answers::new(),
                registers_on: None,
            })),
            listening: None,
        };
        service.listen(listener);
        service
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = Shared {
            hs_token: self.hs_token(),
            as_token: self.token(),
            kept: Arc::clone(&self.kept),
        };
        let router = Router::new().fallback(answer).with_state(shared);
        self.listening = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    /// Is gone: nobody listens any more.
    pub fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Comes back where it was.
    ///
    /// # Panics
    /// When somebody else listens there.
    pub async fn come_back(&mut self) {
        let bound = look_for("its port", async || {
            let bound = TcpListener::bind(self.address).await;
            bound.map_err(|error| error.to_string())
        });
        let listener = bound.await;
        self.listen(listener);
    }

    /// The token by which it calls.
    #[must_use]
    pub fn token(&self) -> String {
        format!("as-token-of-{}", self.id)
    }

    fn hs_token(&self) -> String {
        format!("hs-token-of-{}", self.id)
    }

    /// Its registration, as bridges write theirs, with further lines.
    #[must_use]
    pub fn registration(&self, further: &str) -> String {
        let (id, address) = (&self.id, self.address);
        let (token, hs_token) = (self.token(), self.hs_token());
        format!(
            "id: {id}\nurl: http://{address}\nas_token: {token}\nhs_token: {hs_token}\nsender_localpart: {id}bot\n\
             namespaces:\n  users:\n  - exclusive: true\n    regex: '@_{id}_.*'\n  \
             aliases:\n  - exclusive: true\n    regex: '#_{id}_.*'\n  rooms: []\n{further}\n"
        )
    }

    /// Writes its registration into a folder; the file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn register_in(&self, folder: &Path, further: &str) -> PathBuf {
        let file = folder.join(format!("{}.yaml", self.id));
        std::fs::write(&file, self.registration(further)).unwrap();
        file
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers in another way from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Answers a path from now on: `/users/…`, `/thirdparty/…`.
    pub fn answer(&self, path: &str, answer: Value) {
        self.lock().answers.insert(path.to_owned(), answer);
    }

    /// Registers the users that it is asked for, and says that they are there.
    pub fn register_on(&self, api: &Api) {
        self.lock().registers_on = Some(api.clone());
    }

    /// Every transaction that it was sent, also those that it has refused.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        self.lock().transactions.clone()
    }

    /// Everything else that it was asked.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.lock().questions.clone()
    }

    /// The transactions that it has taken, each once.
    ///
    /// # Panics
    /// When one of an id came with two contents.
    #[must_use]
    pub fn taken(&self) -> Vec<Transaction> {
        let mut taken: Vec<Transaction> = Vec::new();
        let all = self.transactions();
        for transaction in &all {
            let twin = all.iter().find(|other| other.id == transaction.id).unwrap();
            assert_eq!(twin.body, transaction.body, "two contents under one id");
            let is_new = taken.iter().all(|other| other.id != transaction.id);
            if transaction.is_taken && is_new {
                taken.push(transaction.clone());
            }
        }
        taken
    }

    /// The events that it has taken, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.taken().iter().flat_map(Transaction::events).collect()
    }

    /// The texts of a room that it has taken, in order.
    #[must_use]
    pub fn texts(&self, room: &str) -> Vec<String> {
        let events = self.events().into_iter();
        let in_room = events.filter(|event| event["room_id"] == room && event["type"] == "m.room.message");
        in_room
            .map(|event| event["content"]["body"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Waits until it has taken so many transactions and events that `found` finds something.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        look_for(what, async || {
            let seen = || format!("{:?}", self.transactions());
            found(self).ok_or_else(seen)
        })
        .await
    }

    /// Waits until the newest text of a room that it has taken is this one.
    pub async fn hears_last(&self, room: &str, text: &str) {
        let is_last = |service: &Self| service.texts(room).last().is_some_and(|last| last == text);
        self.until(text, |service| is_last(service).then_some(())).await;
    }

    /// Waits until a transaction that it has taken holds something under a name.
    pub async fn receives<T>(&self, name: &str, mut found: impl FnMut(&Value) -> Option<T>) -> T {
        self.until(name, |service| {
            let mut taken = service.taken().into_iter();
            taken.find_map(|transaction| found(&transaction.json()[name]))
        })
        .await
    }

    /// The id of one of its users on a server.
    #[must_use]
    pub fn user_id(&self, name: &str, server_name: &str) -> String {
        format!("@_{}_{name}:{server_name}", self.id)
    }

    /// Registers one of its users; the id.
    pub async fn register(&self, api: &Api, name: &str) -> String {
        let body = json!({
            "type": "m.login.application_service",
            "username": format!("_{}_{name}", self.id),
            "inhibit_login": true,
        });
        let reply = self
            .call(api, Method::POST, "register", None, Some(body))
            .await
            .ok();
        reply["user_id"].as_str().unwrap().to_owned()
    }

    /// Calls the client API, as one of its users or by itself.
    pub async fn call(
        &self,
        api: &Api,
        method: Method,
        path: &str,
        user: Option<&str>,
        body: Option<Value>,
    ) -> Reply {
        let path = match user {
            Some(user) => {
                let separator = if path.contains('?') { '&' } else { '?' };
                format!("{path}{separator}user_id={}", encode(user))
            }
            None => path.to_owned(),
        };
        api.request(method, &path, Some(&self.token()), body).await
    }

    /// Sends a text as one of its users, or by itself.
    pub async fn send(&self, api: &Api, room: &str, user: Option<&str>, text: &str) -> String {
        let transaction = rand::random::<u64>();
        let path = format!("rooms/{}/send/m.room.message/{transaction}", encode(room));
        let body = json!({ "msgtype": "m.text", "body": text });
        let reply = self.call(api, Method::PUT, &path, user, Some(body)).await.ok();
        reply["event_id"].as_str().unwrap().to_owned()
    }

    /// Joins a room as one of its users, or by itself.
    pub async fn join(&self, api: &Api, room: &str, user: Option<&str>) {
        let path = format!("rooms/{}/join", encode(room));
        self.call(api, Method::POST, &path, user, Some(json!({})))
            .await
            .ok();
    }
}

impl Drop for TestAppservice {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone, Debug)]
struct Shared {
    hs_token: String,
    as_token: String,
    kept: Arc<Mutex<Kept>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let authorization = request.headers().get(http::header::AUTHORIZATION);
    if authorization.is_none_or(|value| *value != format!("Bearer {}", shared.hs_token)) {
        return (StatusCode::UNAUTHORIZED, "{}").into_response();
    }
    let path = request.uri().path_and_query().unwrap().to_string();
    let path = path.strip_prefix("/_matrix/app/v1").unwrap_or(&path).to_owned();
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES)
        .await
        .unwrap();
    if let Some(id) = path
        .strip_prefix("/transactions/")
        .filter(|_| method == Method::PUT)
    {
        return transaction(&shared, id, body).await;
    }
    shared.lock().questions.push(format!("{method} {path}"));
    if path == "/ping" {
        return transaction_mood(&shared).await;
    }
    let registers_on = shared.lock().registers_on.clone();
    if let (Some(api), Some(user)) = (registers_on, path.strip_prefix("/users/")) {
        let localpart = user
            .trim_start_matches("%40")
            .split("%3A")
            .next()
            .unwrap()
            .to_owned();
        let body =
            json!({ "type": "m.login.application_service", "username": localpart, "inhibit_login": true });
        api.request(Method::POST, "register", Some(&shared.as_token), Some(body))
            .await
            .ok();
        return "{}".into_response();
    }
    let answer = shared.lock().answers.get(&path).cloned();
    match answer {
        Some(answer) => answer.to_string().into_response(),
        None => (StatusCode::NOT_FOUND, "{\"errcode\":\"M_NOT_FOUND\"}").into_response(),
    }
}

async fn transaction(shared: &Shared, id: &str, body: Bytes) -> Response {
    let is_taken = matches!(shared.lock().mood, Mood::Takes | Mood::Babbles);
    shared.lock().transactions.push(Transaction {
        id: id.to_owned(),
        body,
        is_taken,
    });
    transaction_mood(shared).await
}

async fn transaction_mood(shared: &Shared) -> Response {
    let mood = shared.lock().mood.clone();
    match mood {
        Mood::Takes => "{}".into_response(),
        Mood::Refuses(status) => (StatusCode::from_u16(status).unwrap(), "no").into_response(),
        Mood::Redirects(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Mood::Babbles => vec![b'x'; 10_000].into_response(),
        Mood::Hangs => std::future::pending().await,
    }
}
