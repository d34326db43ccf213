//! Many homeservers that are connected and have nothing to say.
//!
//! The peers are light ones inside the driver: each has keys and a socket of its own, says hello, and then only keeps its
//! connection alive, as `spec/federation.md` asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use maru_federation::link::frames::FrameReader;
use maru_federation::link::{IncomingStream, Link, OutgoingStream, Transport};
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::server_name::key_name;
use maru_protocol::wire::limits::MAX_FRAME_BYTES;
use maru_protocol::wire::message::{Hello, Ready};
use maru_protocol::wire::{Message, encode};
use maru_protocol::{KeyId, LogId, SecretKey, SigningKey};
use ruma::OwnedServerName;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::crowd;
use crate::error::LoadError;
use crate::measure::Stopwatch;
use crate::report::Outcome;

/// How many there are, and for how long they are watched.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Peers beyond the first ten
    #[arg(long, default_value_t = 200)]
    pub(crate) peers: usize,
    /// How long they are watched
    #[arg(long, default_value_t = 60.0)]
    pub(crate) seconds: f64,
}

/// Connected before memory is first read, so that what the first one needs is not counted.
const BASE: usize = 10;
/// How long everything has to come to rest.
const REST: Duration = Duration::from_secs(3);

/// A connected peer. It goes when the value does.
pub(super) struct Peer {
    _link: Arc<dyn Link>,
    _log: OutgoingStream,
    _transport: Quic,
    reading: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn broken(what: impl std::fmt::Display) -> LoadError {
    LoadError::Protocol(format!("federation: {what}"))
}

impl Peer {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, LoadError> {
        let key = || {
            let mut seed = [0; 32];
            rand::fill(&mut seed);
            SecretKey::from_seed(&seed)
        };
        let (root, tls, signing) = (key(), key(), key());
        let socket = BoundSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(broken)?;
        let transport = Quic::new(&tls, socket).map_err(broken)?;
        let link = transport.dial(address, None).await.map_err(broken)?;
        let mut incoming = FrameReader::new(link.accept_log().await.map_err(broken)?);
        let Some(Message::Hello(theirs)) = incoming.next(MAX_FRAME_BYTES).await.map_err(broken)? else {
            return Err(broken("no hello came first"));
        };
        let mut log = link.open_log().await.map_err(broken)?;
        for message in greeting(&root, &tls, &signing, theirs.name)? {
            let frame = encode(&message).map_err(broken)?;
            log.write_all(&frame)
                .await
                .map_err(LoadError::io("saying hello"))?;
        }
        let Some(Message::Ready(_)) = incoming.next(MAX_FRAME_BYTES).await.map_err(broken)? else {
            return Err(broken("no ready came"));
        };
        Ok(Self {
            _link: link,
            _log: log,
            _transport: transport,
            reading: tokio::spawn(read_on(incoming)),
        })
    }
}

/// What a dialler says: who it is, and that it may be spoken to.
fn greeting(
    root: &SecretKey,
    tls: &SecretKey,
    signing: &SecretKey,
    to: OwnedServerName,
) -> Result<[Message; 2], LoadError> {
    let signing = SigningKey {
        id: KeyId::new("1").map_err(broken)?,
        secret: signing.clone(),
    };
    let hello = Message::Hello(Hello {
        name: key_name(&root.public_key()).map_err(broken)?,
        to: Some(to),
        record: crowd::record(root, tls, &signing)?,
        log_id: LogId([1; 16]),
    });
    let ready = Message::Ready(Ready {
        received: None,
        items: 1024,
        bytes: 8 << 20,
    });
    Ok([hello, ready])
}

async fn read_on(mut incoming: FrameReader<IncomingStream>) {
    while let Ok(Some(_)) = incoming.next::<Message>(MAX_FRAME_BYTES).await {}
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let address = context.federation()?;
    let mut peers = Vec::new();
    for _ in 0..BASE {
        peers.push(Peer::connect(address).await?);
    }
    tokio::time::sleep(REST).await;
    let before = context.watched.server.resident_kib()?;
    for _ in 0..size.peers {
        peers.push(Peer::connect(address).await?);
    }
    tokio::time::sleep(REST).await;
    let after = context.watched.server.resident_kib()?;
    let stopwatch = Stopwatch::start(&context.watched)?;
    tokio::time::sleep(Duration::from_secs_f64(size.seconds)).await;
    let usage = stopwatch.usage()?;

    if let Some(gone) = peers.iter().position(|peer| peer.reading.is_finished()) {
        return Err(LoadError::Verification(format!("peer {gone} was disconnected")));
    }
    if let (Some(before), Some(after)) = (before, after) {
        let kib = after.saturating_sub(before) as f64 / size.peers.max(1) as f64;
        outcome.figure("resident_kib_per_peer", kib);
    }
    outcome.busy(&usage);
    if context.judge {
        outcome.at_most("resident_kib_per_peer", 100.0);
        outcome.at_most("server_cores_busy", 0.01);
    }
    Ok(())
}
