//! What can be seen of a peer from outside: for `maru peer list` and for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use maru_protocol::{PublicKey, wire::Cursor};
use ruma::OwnedServerName;

use crate::link::Path;

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Not connected, and there is no need to be.
    Idle,
    /// Being dialled.
    Dialling,
    /// Could not be reached; dialled again after this time, or as soon as it contacts us.
    Waiting(Duration),
    /// Connected, and its hello is being judged.
    Greeting,
    /// Both sides are ready.
    Connected,
}

impl PeerState {
    /// The name, as `maru peer list` and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Dialling => "dialling",
            Self::Waiting(_) => "waiting",
            Self::Greeting => "greeting",
            Self::Connected => "connected",
        }
    }
}

/// What is known about a peer at a moment.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Its name.
    pub name: OwnedServerName,
    /// How it is connected.
    pub state: PeerState,
    /// How it is reached, while it is connected.
    pub path: Option<Path>,
    /// The TLS key that it has proven, while it is connected.
    pub tls_key: Option<PublicKey>,
    /// Whether we dialled the present connection.
    pub dialled: bool,
    /// The round trip time of the present connection, where it is measured.
    pub round_trip: Option<Duration>,
    /// For how long it has been connected.
    pub connected_for: Option<Duration>,
    /// How far it has our log, as it last said: the distance to the log's end is the cursor lag.
    pub acknowledged: Option<Cursor>,
    /// Whether it has everything that our log held for it when it was last read.
    pub caught_up: bool,
    /// Items and bytes of our log that are sent and not acknowledged.
    pub in_flight: (usize, usize),
    /// What has been moved since we started.
    pub traffic: Traffic,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
}

/// What was moved between a peer and us since we started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Frames of its log stream.
    pub frames_in: u64,
    /// Frames of our log stream.
    pub frames_out: u64,
    /// Bytes of its log stream and of requests and answers that it sent.
    pub bytes_in: u64,
    /// Bytes of our log stream and of requests and answers that we sent.
    pub bytes_out: u64,
    /// Requests that it made.
    pub requests_in: u64,
    /// Requests that we made.
    pub requests_out: u64,
    /// Requests of it that were refused or malformed.
    pub refused: u64,
    /// Datagrams that it sent.
    pub datagrams_in: u64,
    /// Datagrams of it that were dropped as too many or malformed.
    pub datagrams_dropped: u64,
    /// Connections that became ready.
    pub connections: u64,
}

/// One counter of [`Traffic`] while it counts.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// [`Traffic`] while it counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) frames_in: Counter,
    pub(super) frames_out: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) requests_in: Counter,
    pub(super) requests_out: Counter,
    pub(super) refused: Counter,
    pub(super) datagrams_in: Counter,
    pub(super) datagrams_dropped: Counter,
    pub(super) connections: Counter,
}

impl Counters {
    pub(super) fn read(&self) -> Traffic {
        Traffic {
            frames_in: self.frames_in.get(),
            frames_out: self.frames_out.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            requests_in: self.requests_in.get(),
            requests_out: self.requests_out.get(),
            refused: self.refused.get(),
            datagrams_in: self.datagrams_in.get(),
            datagrams_dropped: self.datagrams_dropped.get(),
            connections: self.connections.get(),
        }
    }
}
