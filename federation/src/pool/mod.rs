//! Keeps peers connected and everything between them flowing.
//!
//! - [`Pool`]: what the server holds: wake, request, datagram, look.
//! - `shared`: what the tasks of a pool share; `peer`: one peer as all of them see it.
//! - `keeper`: dials a peer while somebody wants it; `backoff`: how long to wait between.
//! - `accept`: lets in who dials us.
//! - `connection`: drives one session over one link; `log_streams` and `work` are its hands.
//! - `outbound_requests`: requests of ours; `relay`: those of other nodes; `inbound_requests`: those of the peer; `datagrams`.
//! - `view`: what can be seen from outside.

mod accept;
mod backoff;
mod connection;
mod datagrams;
mod dialer;
mod inbound_requests;
mod log_streams;
mod outbound_requests;
mod peer;
mod pending_calls;
mod relay;
mod shared;
mod view;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use maru_protocol::wire::{
    Call, CloseCode, Datagram, encode, encode_datagram,
    limits::{DEFAULT_WINDOW_BYTES, DEFAULT_WINDOW_ITEMS},
};
use ruma::ServerName;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    address_book::AddressBook,
    homeserver::Homeserver,
    limits,
    link::{OutgoingStream, Transport},
    peer::Window,
};
use dialer::Keeper;
pub use outbound_requests::{Answering, Held, RequestError};
use peer::Peer;
pub use relay::RelayError;
use shared::{Registry, Shared};
pub use view::{PeerState, PeerView, Traffic};

/// What an admin or a test may choose.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How much of a peer's log may be in flight towards us.
    pub window: Window,
    /// A connection that nobody uses is closed after this long, and a peer that nobody wants is forgotten,
    /// unless [`Homeserver::keeps_connected`].
    pub idle_after: Duration,
    /// The wait after a first failure to reach a peer; it doubles from there.
    pub first_retry: Duration,
    /// The longest wait between two rounds of dialling.
    pub longest_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let (first_retry, longest_retry) = dialer::RETRIES;
        Self {
            window: Window {
                items: DEFAULT_WINDOW_ITEMS,
                bytes: DEFAULT_WINDOW_BYTES,
            },
            idle_after: Duration::from_secs(180),
            first_retry,
            longest_retry,
        }
    }
}

/// The peers of one homeserver. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    registry: Arc<Registry>,
    transport: Arc<dyn Transport>,
    running: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts accepting peers, on the current tokio runtime. Dials nobody before somebody is wanted.
    pub fn start<H: Homeserver, A: AddressBook>(
        server: Arc<H>,
        addresses: Arc<A>,
        transport: Arc<dyn Transport>,
        settings: Settings,
    ) -> Self {
        let (registry, new_peers) = Registry::new();
        let shared = Arc::new(Shared {
            server,
            registry: registry.clone(),
            settings,
            own_key: transport.own_key(),
            dials: Semaphore::new(limits::MAX_DIALS),
            start: Instant::now(),
        });
        let running = tokio::spawn(run(shared, addresses, transport.clone(), new_peers));
        Self {
            registry,
            transport,
            running: Arc::new(tokio::sync::Mutex::new(Some(running))),
        }
    }

    /// Our log may hold something new for a peer: it is read, and the peer dialled where that needs it.
    /// At the start, call it for every peer that shares a room with us. Cheap; may be called for each event.
    pub fn wake(&self, peer: &ServerName) {
        // With too many peers it stays unconnected; its cursor loses nothing.
        let _ = self.registry.with(peer, |peer| peer.wake());
    }

    /// Tells a connected peer our extremities soon, because they have moved by an event that its own server may not send to
    /// that peer. One that is not connected hears them once it is. Cheap; may be called for each event.
    pub fn owe_extremities(&self, peer: &ServerName) {
        if let Some(peer) = self.registry.find(peer) {
            peer.owe_extremities();
        }
    }

    /// Asks a peer, connecting first where that needs it. Bounded in time until the answer begins; a
    /// bounded number of requests to one peer run at the same time.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request<C: Call>(&self, peer: &ServerName, call: C) -> Result<Answering<C>, RequestError> {
        let frame = encode(&call.into()).map_err(RequestError::TooLong)?;
        self.request_frame(peer, &frame).await
    }

    /// As [`Pool::request`], with the frame of the request as its caller has encoded it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_frame<C: Call>(
        &self,
        peer: &ServerName,
        frame: &[u8],
    ) -> Result<Answering<C>, RequestError> {
        outbound_requests::ask(self.want(peer)?, frame).await
    }

    /// Asks a peer for another node of this homeserver, which has encoded the request, and passes the answer on as it comes,
    /// no faster than it is read and a few kilobytes at a time. Ends early when nobody reads it.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn relay(
        &self,
        peer: &ServerName,
        frame: &[u8],
        to: &mut OutgoingStream,
    ) -> Result<(), RelayError> {
        relay::relay(self.want(peer)?, frame, to).await
    }

    /// Connects with a peer, for `maru peer ping`.
    ///
    /// # Errors
    /// [`RequestError`] where it is not reached.
    pub async fn connect(&self, peer: &ServerName) -> Result<PeerView, RequestError> {
        let wanted = self.want(peer)?;
        outbound_requests::connected(&wanted).await?;
        Ok(wanted.view())
    }

    fn want(&self, peer: &ServerName) -> Result<peer::Wanted, RequestError> {
        if *self.registry.stopping.borrow() {
            return Err(RequestError::ShuttingDown);
        }
        self.registry
            .with(peer, Peer::want)
            .map_err(|_| RequestError::TooManyPeers)
    }

    /// Sends a datagram to a peer that is connected; lost otherwise, as any datagram may be.
    pub fn datagram(&self, peer: &ServerName, datagram: &Datagram) {
        let Some(peer) = self.registry.find(peer) else {
            return;
        };
        let Some(link) = peer.ready.borrow().clone() else {
            return;
        };
        if let Ok(bytes) = encode_datagram(datagram) {
            // Lost where it does not fit the path.
            let _ = link.send_datagram(Bytes::from(bytes));
        }
    }

    /// Tells every connected peer of our newer record ([`Homeserver::own_record`]).
    pub fn record_changed(&self) {
        self.registry.records.send_replace(());
    }

    /// Closes the connection with a peer, if there is one: it is denied now, or its key is not trusted.
    pub fn disconnect(&self, peer: &ServerName, code: CloseCode, reason: &str) {
        if let Some(peer) = self.registry.find(peer) {
            peer.close(code, reason);
        }
    }

    /// What is known about a peer, if it is one of the pool.
    pub fn peer(&self, peer: &ServerName) -> Option<PeerView> {
        Some(self.registry.find(peer)?.view())
    }

    /// What is known about every peer of the pool, by name.
    pub fn peers(&self) -> Vec<PeerView> {
        let mut views: Vec<_> = self.registry.all().iter().map(|peer| peer.view()).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// How often connections were refused, or closed for a fault of the peer or of ours, since we started:
    /// by the name of the close code, `tls` for handshakes that failed, `turned_away` for want of room.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.registry.refusals()
    }

    /// Stops in order: no more dialling and accepting, running requests get a moment, every connection is
    /// closed, every store has ended, the closes are sent. Bounded in time.
    pub async fn shut_down(&self) {
        self.registry.stopping.send_replace(true);
        let drained = async {
            while self.registry.all().iter().any(|peer| peer.is_in_use()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(limits::DRAIN_TIMEOUT, drained).await;
        self.registry.closing.send_replace(true);
        if let Some(running) = self.running.lock().await.take() {
            let _ = timeout(limits::STOP_TIMEOUT, running).await;
        }
        self.transport.shut_down(CloseCode::Done, "shutting down").await;
    }
}

/// The tasks of a pool: one that accepts, one keeper for each peer.
async fn run<H: Homeserver, A: AddressBook>(
    shared: Arc<Shared<H>>,
    addresses: Arc<A>,
    transport: Arc<dyn Transport>,
    mut new_peers: mpsc::UnboundedReceiver<Arc<Peer>>,
) {
    let mut stopping = shared.registry.stopping.subscribe();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept::accept(shared.clone(), transport.clone()));
    loop {
        tokio::select! {
            Some(peer) = new_peers.recv() => {
                let keeper = Keeper {
                    shared: shared.clone(),
                    addresses: addresses.clone(),
                    transport: transport.clone(),
                    peer,
                };
                tasks.spawn(keeper.run());
            }
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    while tasks.join_next().await.is_some() {}
}
