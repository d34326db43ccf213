//! NATS as the carrier: two subjects of the homeserver's own, by the id of its log, so that several homeservers can share a
//! NATS server.
//!
//! The client connects, and connects again, in the background. While it is not connected nothing is given to it: what is
//! old by then is of no use to anybody.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use maru_protocol::cursor::LogId;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::CommitSignal;
use crate::config::{Config, NatsAddress};
use crate::observe::metrics;

/// How long NATS may be silent before the connection counts as lost: twice this.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Waits between tries to connect, by how many there were: the step, and the most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Messages of one subject that may wait here; the client drops further ones.
const WAITING: usize = 256;

/// How long the client may take to accept a message, which then only waits to be written.
const ACCEPTING: Duration = Duration::from_secs(1);

/// Why NATS cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum NatsError {
    /// The file of credentials cannot be used.
    #[error("cannot use {} (`nats_credentials`): {cause}", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// What the system says, or that it holds no credentials.
        cause: std::io::Error,
    },
    /// The client does not take the configuration.
    #[error("cannot use NATS (`nats`): {0}")]
    Client(String),
}

/// Where NATS is, and what it wants to be shown.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Its servers.
    pub servers: Vec<ServerAddr>,
    /// File of credentials.
    pub credentials: Option<PathBuf>,
    /// File of the authorities that its certificate may be of. None: those of the system.
    pub authorities: Option<PathBuf>,
    /// The name by which it shows this client.
    pub name: String,
}

impl NatsSettings {
    /// The settings of a configuration, where it names a server.
    #[must_use]
    pub fn configured(config: &Config) -> Option<Self> {
        let servers: Vec<_> = config.nats.iter().map(NatsAddress::server).collect();
        (!servers.is_empty()).then(|| Self {
            servers,
            credentials: config.nats_credentials.clone(),
            authorities: config.nats_authorities.clone(),
            name: format!("maru {}", config.node_name),
        })
    }
}

/// What arrives by NATS.
pub(super) enum Arrived {
    /// The client has connected. What was said before was not heard.
    Connected,
    /// The text of a position that another node has committed.
    Committed(Bytes),
    /// A message of another node.
    Said(Bytes),
}

/// The subjects of one homeserver.
#[derive(Clone, Debug)]
struct Subjects {
    commits: Arc<str>,
    messages: Arc<str>,
}

impl Subjects {
    fn of(log: LogId) -> Self {
        Self {
            commits: format!("maru.{log}.commits").into(),
            messages: format!("maru.{log}.nodes").into(),
        }
    }
}

/// The way to say something by NATS.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    client: Client,
    subjects: Subjects,
    signal: Arc<CommitSignal>,
}

/// A client of NATS that listens.
#[derive(Debug)]
pub(super) struct Nats {
    publisher: Publisher,
    commits: Subscriber,
    messages: Subscriber,
    connected: Arc<Notify>,
}

impl Nats {
    /// A client for a log, which connects by itself. Returns at once, whether NATS is there or not. `signal` is told whether
    /// commits are carried.
    ///
    /// # Errors
    /// When a file cannot be used, or the settings cannot.
    pub(super) async fn connect(
        settings: NatsSettings,
        log: LogId,
        signal: Arc<CommitSignal>,
    ) -> Result<Self, NatsError> {
        let connected = Arc::<Notify>::default();
        let options = options(&settings, Arc::clone(&signal), Arc::clone(&connected)).await?;
        let unusable = |error: &dyn std::fmt::Display| NatsError::Client(error.to_string());
        let client = options.connect(settings.servers).await;
        let client = client.map_err(|error| unusable(&error))?;
        let subjects = Subjects::of(log);
        let commits = client.subscribe(subjects.commits.to_string()).await;
        let messages = client.subscribe(subjects.messages.to_string()).await;
        Ok(Self {
            commits: commits.map_err(|error| unusable(&error))?,
            messages: messages.map_err(|error| unusable(&error))?,
            publisher: Publisher {
                client,
                subjects,
                signal,
            },
            connected,
        })
    }

    pub(super) fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// The next that arrives.
    pub(super) async fn next(&mut self) -> Arrived {
        tokio::select! {
            () = self.connected.notified() => Arrived::Connected,
            Some(message) = self.commits.next() => Arrived::Committed(message.payload),
            Some(message) = self.messages.next() => Arrived::Said(message.payload),
            // The client has ended with the program.
            else => std::future::pending().await,
        }
    }
}

impl Publisher {
    pub(super) fn is_connected(&self) -> bool {
        self.signal.is_carried()
    }

    /// Says a message.
    pub(super) async fn say(&self, message: String) {
        self.publish(&self.subjects.messages, message).await;
    }

    /// Tells how far this node has brought the log, whenever it is further. Never returns.
    pub(super) async fn tell_commits(self, signal: Arc<CommitSignal>) {
        loop {
            let position = signal.take().await;
            self.publish(&self.subjects.commits, position.to_string()).await;
        }
    }

    async fn publish(&self, subject: &str, payload: String) {
        let publishing = self.client.publish(subject.to_owned(), payload.into());
        match timeout(ACCEPTING, publishing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => metrics::NODE_MESSAGES_DROPPED.add(1),
        }
    }
}

async fn options(
    settings: &NatsSettings,
    signal: Arc<CommitSignal>,
    connected: Arc<Notify>,
) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new();
    if let Some(file) = &settings.credentials {
        let read = options.credentials_file(file).await;
        options = read.map_err(|cause| NatsError::Credentials {
            file: file.clone(),
            cause,
        })?;
    }
    if let Some(file) = &settings.authorities {
        options = options.add_root_certificates(file.clone());
    }
    Ok(options
        .name(&settings.name)
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(PING_EVERY)
        .subscription_capacity(WAITING)
        .reconnect_delay_callback(|tries| {
            let tries = u32::try_from(tries).unwrap_or(u32::MAX);
            RECONNECT.0.saturating_mul(tries).min(RECONNECT.1)
        })
        .event_callback(move |event| {
            note(&event, &signal, &connected);
            std::future::ready(())
        }))
}

/// Notes whether NATS is there.
fn note(event: &Event, signal: &CommitSignal, connected: &Notify) {
    match event {
        Event::Connected => {
            tracing::info!("connected with NATS");
            metrics::NATS_CONNECTED.set(1);
            signal.carry(true);
            connected.notify_one();
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("NATS is away; other nodes are told by the database");
            metrics::NATS_CONNECTED.set(0);
            signal.carry(false);
        }
        event => tracing::debug!(%event, "NATS"),
    }
}
