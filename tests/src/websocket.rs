//! A reference client of the sync over a WebSocket (`spec/websocket-sync.md`): what a client has to do, and no more.
//!
//! Frames of the server are sorted as they come: `sync` frames into one queue, answers into another, so that a test
//! may ask for either first. Nothing is acknowledged unless the test says so.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::user::encode;
use crate::{Synced, User};

/// The path of the WebSocket sync.
pub const PATH: &str = "/_matrix/client/unstable/maru/sync";

/// The subprotocol.
pub const SUBPROTOCOL: &str = "maru.v1";

/// Time for anything at all. Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a client shows its access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In the `Authorization` header.
    Header,
    /// Beside the subprotocol, as a browser has to.
    Subprotocol,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; none when the connection broke without one.
    pub code: Option<u16>,
    /// The reason given with it.
    pub reason: String,
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The subprotocol that the server chose.
    pub chosen: Option<String>,
    syncs: VecDeque<Synced>,
    answers: VecDeque<Value>,
    /// Where the server sends the client, once it does.
    pub moved_to: Option<String>,
    last_id: u64,
}

impl Socket {
    /// Connects a user's device, which has seen everything up to `since`, to the server at `base` (`http://…`).
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn open(base: &str, user: &User, since: Option<&str>) -> Self {
        let since = since.map(|since| format!("since={}", encode(since)));
        let query = since.unwrap_or_default();
        Self::connect(base, &user.token, Shown::Header, &query)
            .await
            .unwrap()
    }

    /// Connects with a query of the caller's choice.
    ///
    /// # Errors
    /// What the server answered instead, or why there was no answer.
    pub async fn connect(base: &str, token: &str, shown: Shown, query: &str) -> Result<Self, Error> {
        let authority = base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(authority).await?;
        Self::upgrade(stream, authority, token, shown, query).await
    }

    /// Upgrades a connection of the caller's making.
    ///
    /// # Errors
    /// What the server answered instead, or why there was no answer.
    pub async fn upgrade(
        stream: TcpStream,
        authority: &str,
        token: &str,
        shown: Shown,
        query: &str,
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{authority}{PATH}?{query}").into_client_request()?;
        let (name, value) = match shown {
            Shown::Header => (header::AUTHORIZATION, format!("Bearer {token}")),
            Shown::Subprotocol => (header::SEC_WEBSOCKET_PROTOCOL, format!("{SUBPROTOCOL}, {token}")),
        };
        let value = HeaderValue::from_str(&value).unwrap();
        request.headers_mut().insert(name, value);
        let (stream, response) = client_async(request, stream).await?;
        let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        Ok(Self {
            chosen: chosen.map(|value| value.to_str().unwrap().to_owned()),
            stream,
            syncs: VecDeque::new(),
            answers: VecDeque::new(),
            moved_to: None,
            last_id: 0,
        })
    }

    /// The next `sync` frame.
    ///
    /// # Panics
    /// When the connection ends before, or none comes.
    pub async fn sync(&mut self) -> Synced {
        loop {
            if let Some(synced) = self.syncs.pop_front() {
                return synced;
            }
            self.read().await;
        }
    }

    /// The next `sync` frame, where the connection may end, or be dead, before it comes.
    ///
    /// # Errors
    /// When it ends, or nothing comes for as long as `patience`.
    pub async fn try_sync(&mut self, patience: Duration) -> Result<Synced, String> {
        loop {
            if let Some(synced) = self.syncs.pop_front() {
                return Ok(synced);
            }
            self.try_read(patience).await?;
        }
    }

    /// Reads `sync` frames, acknowledging none, until one holds what is looked for.
    ///
    /// # Panics
    /// When the connection ends before, or it does not come.
    pub async fn find(&mut self, found: impl Fn(&Synced) -> bool) -> Synced {
        loop {
            let synced = self.sync().await;
            if found(&synced) {
                return synced;
            }
        }
    }

    /// Reads `sync` frames, acknowledging each, until one holds what is looked for; all that were read.
    ///
    /// # Panics
    /// When the connection ends before, or it does not come.
    pub async fn sync_until(&mut self, found: impl Fn(&Synced) -> bool) -> Vec<Synced> {
        let mut read = Vec::new();
        loop {
            let synced = self.sync().await;
            self.ack(&synced.next()).await;
            let last = found(&synced);
            read.push(synced);
            if last {
                return read;
            }
        }
    }

    /// Acknowledges everything up to a `next_batch`.
    pub async fn ack(&mut self, next_batch: &str) {
        self.tell(json!({ "type": "ack", "next_batch": next_batch }))
            .await;
    }

    /// Sends a text message; the answer.
    pub async fn send(&mut self, room: &str, transaction: &str, text: &str) -> Value {
        let frame = json!({
            "type": "send",
            "room_id": room,
            "event_type": "m.room.message",
            "txn_id": transaction,
            "content": { "msgtype": "m.text", "body": text },
        });
        self.ask(frame).await
    }

    /// Sends a frame under a new id, and waits for the answer to it.
    ///
    /// # Panics
    /// When the connection ends before, or no answer comes.
    pub async fn ask(&mut self, mut frame: Value) -> Value {
        self.last_id += 1;
        frame["id"] = json!(self.last_id);
        self.tell(frame).await;
        let answer = self.answer().await;
        assert_eq!(answer["id"], self.last_id, "{answer}");
        answer
    }

    /// The next frame that is no `sync`.
    ///
    /// # Panics
    /// When the connection ends before, or none comes.
    pub async fn answer(&mut self) -> Value {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            self.read().await;
        }
    }

    /// Sends a frame that has no answer.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn tell(&mut self, frame: Value) {
        self.say(Message::text(frame.to_string())).await.unwrap();
    }

    /// Sends any message.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn say(&mut self, message: Message) -> Result<(), Error> {
        self.stream.send(message).await
    }

    /// Waits until the server ends the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(&mut self) -> Closed {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await;
            let (code, reason) = match message.expect("the server ends the connection") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    (Some(frame.code.into()), frame.reason.as_str().to_owned())
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => (None, String::new()),
                Some(Ok(Message::Text(text))) => {
                    self.sort(serde_json::from_str(&text).unwrap());
                    continue;
                }
                Some(Ok(_)) => continue,
            };
            return Closed { code, reason };
        }
    }

    /// Reads one message and puts it where it belongs.
    async fn read(&mut self) {
        self.try_read(PATIENCE).await.unwrap();
    }

    async fn try_read(&mut self, patience: Duration) -> Result<(), String> {
        let message = timeout(patience, self.stream.next()).await;
        match message.map_err(|_| "no frame comes in time".to_owned())? {
            Some(Ok(Message::Text(text))) => self.sort(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => return Err(format!("the connection ended: {other:?}")),
        }
        Ok(())
    }

    fn sort(&mut self, frame: Value) {
        match frame["type"].as_str() {
            Some("sync") => self.syncs.push_back(Synced(frame)),
            Some("reply" | "error") => self.answers.push_back(frame),
            Some("move") => self.moved_to = Some(frame["base_url"].as_str().unwrap().to_owned()),
            _ => panic!("a frame of an unknown type: {frame}"),
        }
    }
}
