//! Sync over a WebSocket (`spec/websocket-sync.md`): the same deltas under the same cursors as the long-poll, pushed;
//! and what a client does all the time, sent without a request of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use maru_protocol::cursor::SinceToken;
use ruma::api::IncomingRequestExt;
use ruma::api::client::sync::sync_events::v3 as sync_events;
use tokio::time::{Instant, interval_at, timeout};

use super::long_poll::{cursor, wish};
use super::websocket_frames::{ClientFrame, Outcome, perform};
use crate::accounts::{Caller, WatchedToken};
use crate::http::codec::error::{ApiError, plain};
use crate::http::router::Routes;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::sync::{Session, SyncRequest};
use crate::token_hash::TokenHash;

/// The path of the WebSocket sync.
pub const PATH: &str = "/_matrix/client/unstable/maru/sync";

/// The subprotocol that the server speaks.
const SUBPROTOCOL: &str = "maru.v1";

/// Sync frames that may be under way before the client acknowledges one; then the server waits.
const UNACKNOWLEDGED: usize = 128;

/// Largest frame that a client may send, in bytes: a message of 100,000 characters and its wrapping.
const LARGEST_FRAME: usize = 2 << 20;

/// What every connection keeps for reading, in bytes: an acknowledgement fits. A longer frame has memory of its own.
const READ_BUFFER: usize = 256;

/// Time in which a client may answer that the connection ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Longest reason that fits into a close frame, in bytes (RFC 6455, section 5.5).
const LONGEST_REASON: usize = 123;

/// How often a quiet connection is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(60);

/// What tells a sync frame from others.
const SYNC_FRAME: &str = "\"type\":\"sync\",";

/// Close code when the server stops.
const STOPPING: u16 = axum::extract::ws::close_code::AWAY;

/// Close code when this node stops and others go on.
const LEFT: u16 = axum::extract::ws::close_code::RESTART;

/// Close code for a token that is no longer valid.
const TOKEN_REVOKED: u16 = 4401;

/// Close code for a client that does not keep to the protocol.
const PROTOCOL_VIOLATED: u16 = 4400;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().serve(http::Method::GET, PATH, upgrade)
}

async fn upgrade(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let token = TokenHash::of(presented_token(&headers).ok_or(Refusal::MissingToken)?);
    let (caller, token) = server.accounts.watch(token).await?;
    let Ok(socket) = socket else {
        let why = "this endpoint speaks WebSocket only";
        return Ok(plain(StatusCode::UPGRADE_REQUIRED, "M_UNRECOGNIZED", why));
    };
    let request = sync_request(query.as_deref())?;
    let mut wish = Box::pin(wish(&server, &caller, &request, query.as_deref())).await?;
    wish.opening = SYNC_FRAME;
    let since = request.since.as_deref().map(cursor).transpose()?;
    server.presence.heartbeat(&caller.user_id, &request.set_presence);
    let socket = socket
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(64 << 20)
        .max_message_size(LARGEST_FRAME)
        .max_frame_size(LARGEST_FRAME);
    let tasks = Arc::clone(&server.tasks);
    let connected = move |socket| {
        let connection = Connection {
            server,
            token,
            unacknowledged: VecDeque::new(),
        };
        let run = connection.run(Box::new(socket), caller, since, Box::new(wish));
        // A task of its own: the one that upgrades would keep its large state for as long as the connection lasts.
        drop(tasks.finish("websocket", run));
        std::future::ready(())
    };
    Ok(socket.on_upgrade(connected).into_response())
}

/// The query's parameters, which are those of the long-poll.
fn sync_request(query: Option<&str>) -> Result<sync_events::Request, Refusal> {
    let uri = format!("/_matrix/client/v3/sync?{}", query.unwrap_or_default());
    let request = http::Request::get(uri)
        .body(&[][..])
        .map_err(|error| Refusal::invalid(error.to_string()))?;
    sync_events::Request::try_from_http_request(request, &[])
        .map_err(|error| Refusal::invalid(error.to_string()))
}

/// The token in the `Authorization` header, or, for browsers, beside the subprotocol.
fn presented_token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let beside = || {
        let mut offered = text(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').map(str::trim);
        offered.find(|name| *name == SUBPROTOCOL)?;
        text(header::SEC_WEBSOCKET_PROTOCOL)?
            .split(',')
            .map(str::trim)
            .find(|name| *name != SUBPROTOCOL)
    };
    bearer.or_else(beside)
}

/// One client's connection. What is large and needed for a moment only is boxed: this waits most of the time.
struct Connection {
    server: Arc<Server>,
    token: WatchedToken,
    /// Cursors of frames that the client has not acknowledged, oldest first.
    unacknowledged: VecDeque<SinceToken>,
}

/// Why a connection ends.
enum End {
    /// The client went away or does not read.
    Gone,
    /// The server ends it, with a code and a sentence.
    Closed(u16, String),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Closed(axum::extract::ws::close_code::AGAIN, refusal.to_string())
    }
}

impl Connection {
    async fn run(
        mut self,
        mut socket: Box<WebSocket>,
        caller: Caller,
        since: Option<SinceToken>,
        wish: Box<SyncRequest>,
    ) {
        let server = Arc::clone(&self.server);
        let end = match Box::pin(begin(&server, caller, since, *wish)).await {
            Ok(mut session) => self.serve(&mut socket, &mut session).await,
            Err(refusal) => End::from(refusal),
        };
        if let End::Closed(code, reason) = end {
            let frame = CloseFrame {
                code,
                reason: reason[..reason.floor_char_boundary(LONGEST_REASON)].into(),
            };
            let farewell = async {
                let _ = socket.send(Message::Close(Some(frame))).await;
                // What the client had under way is read: a connection closed over unread bytes loses the frame above.
                while let Some(Ok(_)) = socket.recv().await {}
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
    }

    async fn serve(&mut self, socket: &mut WebSocket, session: &mut Session<'_>) -> End {
        // One timer for the connection: to set one for every wait would cost more than the wait.
        let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut quiet = true;
        loop {
            session.heed_recalls();
            match self.server.accounts.still_valid(&mut self.token).await {
                Ok(()) => {}
                Err(refusal @ Refusal::UnknownToken { .. }) => {
                    return End::Closed(TOKEN_REVOKED, refusal.to_string());
                }
                Err(refusal) => return refusal.into(),
            }
            if self.unacknowledged.len() < UNACKNOWLEDGED {
                match Box::pin(session.look()).await {
                    Ok(Some(answer)) => {
                        quiet = false;
                        self.unacknowledged.push_back(answer.next_batch);
                        if let Err(end) = write(socket, answer.json).await {
                            return end;
                        }
                    }
                    Ok(None) => {}
                    Err(refusal) => return refusal.into(),
                }
            }
            let may_push = self.unacknowledged.len() < UNACKNOWLEDGED;
            let waiting = async {
                match may_push {
                    true => session.wait().await,
                    false => session.wait_for_recall().await,
                }
            };
            tokio::select! {
                received = socket.recv() => match received {
                    Some(Ok(message)) => {
                        if let Err(end) = Box::pin(self.take(socket, session, message)).await {
                            return end;
                        }
                    }
                    // A broken connection is not told this any more; one with a frame that is none is.
                    Some(Err(error)) => return End::Closed(PROTOCOL_VIOLATED, error.to_string()),
                    None => return End::Gone,
                },
                came = waiting => {
                    if !came {
                        return Box::pin(self.leave(socket)).await;
                    }
                }
                _ = ping.tick() => {
                    let is_quiet = std::mem::replace(&mut quiet, true);
                    if is_quiet && socket.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                        return End::Gone;
                    }
                }
            }
        }
    }

    /// Tells the client where to go on, where there is such a place.
    async fn leave(&self, socket: &mut WebSocket) -> End {
        let nodes = &self.server.nodes;
        if !nodes.others_serve() {
            return End::Closed(
                STOPPING,
                "the server is stopping; come back with the cursor".into(),
            );
        }
        if let Some(base_url) = nodes.address_elsewhere() {
            let frame = serde_json::json!({ "type": "move", "base_url": base_url });
            if let Err(end) = write(socket, frame.to_string()).await {
                return end;
            }
        }
        End::Closed(
            LEFT,
            "this node is stopping; come to another one with the cursor".into(),
        )
    }

    /// Deals with one message of the client.
    async fn take(
        &mut self,
        socket: &mut WebSocket,
        session: &mut Session<'_>,
        message: Message,
    ) -> Result<(), End> {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(_) => return Err(End::Gone),
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Binary(_) => return Err(End::Closed(PROTOCOL_VIOLATED, "frames are JSON text".into())),
        };
        let frame = ClientFrame::parse(&text).map_err(|why| End::Closed(PROTOCOL_VIOLATED, why))?;
        match perform(&self.server, session.caller(), frame).await {
            Outcome::Acknowledged(cursor) => {
                let Some(at) = self.unacknowledged.iter().position(|given| *given == cursor) else {
                    return Err(End::Closed(
                        PROTOCOL_VIOLATED,
                        "this cursor was not given here".into(),
                    ));
                };
                self.unacknowledged.drain(..=at);
                session.acknowledge(cursor).await.map_err(End::from)
            }
            Outcome::Reply(text) => write(socket, text).await,
            Outcome::Silent => Ok(()),
            Outcome::Violation(why) => Err(End::Closed(PROTOCOL_VIOLATED, why)),
        }
    }
}

async fn write(socket: &mut WebSocket, text: String) -> Result<(), End> {
    // A client that takes nothing for too long has its stream broken; its cursor brings it back.
    socket
        .send(Message::Text(text.into()))
        .await
        .map_err(|_| End::Gone)
}

/// The session of a device that comes back with a cursor, which acknowledges what it was given until then.
async fn begin(
    server: &Server,
    caller: Caller,
    since: Option<SinceToken>,
    wish: SyncRequest,
) -> Result<Session<'_>, Refusal> {
    let session = server.sync.session(caller, since, wish).await?;
    if let Some(since) = since {
        session.acknowledge(since).await?;
    }
    Ok(session)
}
