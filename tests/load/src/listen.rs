//! A client that waits for what happens, by either transport, and hands out what it hears as bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::matrix::{Session, User, encode};
use crate::scan::Field;
use crate::target::Target;
use crate::websocket::WebSocket;

/// How a client waits for what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// `GET /sync` with a timeout, again and again.
    LongPoll,
    /// Maru's WebSocket sync.
    Websocket,
}

/// A client that has everything up to now and waits for more.
#[derive(Debug)]
pub(crate) struct Listener {
    channel: Channel,
    next_batch: Field,
    since: String,
}

#[derive(Debug)]
enum Channel {
    LongPoll {
        session: Box<Session>,
        timeout: Duration,
    },
    WebSocket {
        socket: Box<WebSocket>,
        unacknowledged: usize,
    },
}

/// Frames that one acknowledgement stands for. The server lets 128 be under way.
const ACKNOWLEDGE_EVERY: usize = 16;

/// A client that is behind gets this many events of a room at once before the server calls the rest a gap.
const FILTER: &str = r#"{"room":{"timeline":{"limit":1000}}}"#;
/// Nothing but the cursor.
const FIRST_FILTER: &str = r#"{"room":{"timeline":{"limit":1}}}"#;

impl Listener {
    /// Syncs for the first time and then waits: `timeout` is how long one long-poll lasts.
    pub(crate) async fn start(
        transport: Transport,
        context: &Context,
        user: &User,
        timeout: Duration,
    ) -> Result<Self, LoadError> {
        Self::start_at(transport, &context.node(), user, timeout).await
    }

    /// The same at one node.
    pub(crate) async fn start_at(
        transport: Transport,
        node: &Arc<Target>,
        user: &User,
        timeout: Duration,
    ) -> Result<Self, LoadError> {
        let mut session = Session::new(Arc::clone(node), user.clone());
        let first = session.sync(None, Duration::ZERO, Some(FIRST_FILTER)).await?;
        let since = Field::new("\"next_batch\"").of(&first)?.to_owned();
        Self::resume(transport, session, node, since, timeout).await
    }

    /// Goes on from a cursor at a node, whichever node gave it.
    pub(crate) async fn resume(
        transport: Transport,
        mut session: Session,
        node: &Target,
        since: String,
        timeout: Duration,
    ) -> Result<Self, LoadError> {
        let next_batch = Field::new("\"next_batch\"");
        session.wait_longer(timeout);
        let channel = match transport {
            Transport::LongPoll => Channel::LongPoll {
                session: Box::new(session),
                timeout,
            },
            Transport::Websocket => {
                let path = format!("/_matrix/client/unstable/maru/sync?since={}", encode(&since));
                let socket = WebSocket::connect(node, &path, &session.user.token, "maru.v1").await?;
                Channel::WebSocket {
                    socket: Box::new(socket),
                    unacknowledged: 0,
                }
            }
        };
        Ok(Self {
            channel,
            next_batch,
            since,
        })
    }

    /// The cursor up to which everything has come.
    pub(crate) fn since(&self) -> &str {
        &self.since
    }

    /// The next news, which the server is told have arrived: by the next poll, or by an acknowledgement
    /// for every few frames, as clients do that store what they hear in batches.
    pub(crate) async fn next(&mut self) -> Result<Bytes, LoadError> {
        let news = match &mut self.channel {
            Channel::LongPoll { session, timeout } => {
                session.sync(Some(&self.since), *timeout, Some(FILTER)).await?
            }
            Channel::WebSocket { socket, .. } => socket.next().await?,
        };
        self.next_batch.of(&news)?.clone_into(&mut self.since);
        if let Channel::WebSocket {
            socket,
            unacknowledged,
        } = &mut self.channel
        {
            *unacknowledged += 1;
            if *unacknowledged >= ACKNOWLEDGE_EVERY {
                let ack = format!(r#"{{"type":"ack","next_batch":"{}"}}"#, self.since);
                socket.send(&ack).await?;
                *unacknowledged = 0;
            }
        }
        Ok(news)
    }
}
