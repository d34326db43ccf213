//! The accept loop: one small task for each connection, bounded in number, drained at the end.
//!
//! Ours rather than axum's because ten thousand idle clients should cost a few kilobytes each: small buffers, boxed
//! futures, and a new task once a TLS handshake is over, so that its large state is gone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_address::TrustedProxies;
use super::connection::{Counted, Service, serve_http1, serve_http2};
use super::tls::Certificates;
use crate::config::Config;
use crate::observe::metrics;
pub(in crate::http) use places::Place;
use places::Places;

/// More connections than any machine has.
const MOST_CONNECTIONS: usize = u32::MAX as usize >> 3;
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for which a request waits until its connection rests.
const RESTS_AFTER: Duration = Duration::from_secs(2);
/// Pause after a failed accept: mostly the process is out of file descriptors and needs some to be closed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What a listener does not allow, and whom it believes.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Most open connections, upgraded ones included. Further ones wait to be accepted.
    pub connections: usize,
    /// Most open connections of one address that is no trusted proxy. Further ones are refused.
    pub connections_per_address: usize,
    /// Time in which the whole head of a request must have arrived; also how long a connection may be idle.
    pub request_head: Duration,
    /// Time in which a client must take some of what is sent to it.
    pub stalled: Duration,
    /// Time for which a request waits until its connection rests: where people talk, answers come sooner, and no
    /// connection is taken apart for nothing.
    pub rests_after: Duration,
    /// Time that requests in progress have at the end.
    pub drain: Duration,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

impl ListenerOptions {
    /// The configured options.
    pub fn configured(config: &Config) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let connections = config.limits.connections.min(MOST_CONNECTIONS);
        // Without rates a load test brings everything from one address.
        let of_one = match config.rate_limits {
            true => config.limits.connections_per_address.min(connections.div_ceil(2)),
            false => connections,
        };
        Self {
            connections,
            connections_per_address: of_one,
            request_head: seconds(config.limits.request_head_seconds),
            stalled: seconds(config.limits.stalled_seconds),
            rests_after: RESTS_AFTER,
            drain: seconds(config.limits.drain_seconds),
            trusted_proxies: TrustedProxies::new(&config.trusted_proxies),
        }
    }
}

/// A bound address on which connections can be served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
    options: ListenerOptions,
}

impl Listener {
    /// Binds an address. With certificates the listener speaks TLS, without it plain HTTP.
    ///
    /// # Errors
    ///
    /// When the address is taken or not this machine's.
    pub async fn bind(
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
        options: ListenerOptions,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            certificates,
            options,
        })
    }

    /// The address bound, with the port that the system chose if port 0 was asked for.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.certificates.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Serves connections until `shutdown` resolves; then accepts no more, lets requests in progress finish, and
    /// returns when the last connection is gone or the time to drain is over. Upgraded connections are waited for, but
    /// are their owner's to end.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let drain = CancellationToken::new();
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.options.connections));
        let accepting = self.accept_all(router, &places, &drain, &tasks);
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        drop(self.socket);
        drain.cancel();
        tasks.close();
        // Every task keeps the time to drain by itself; when all places are free, upgraded connections are gone too.
        let all = u32::try_from(self.options.connections).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(self.options.drain, places.acquire_many(all)).await;
        tasks.wait().await;
    }

    async fn accept_all(
        &self,
        router: Router,
        places: &Arc<Semaphore>,
        drain: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let of_addresses = Places::new(
            self.options.connections_per_address,
            self.options.trusted_proxies.clone(),
        );
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    continue;
                }
            };
            let Some(place) = of_addresses.take(peer.ip(), place) else {
                metrics::CONNECTIONS_REFUSED.add(1);
                refuse(&stream, self.certificates.is_some());
                continue;
            };
            let service = Service::new(router.clone(), peer.ip(), self.options.trusted_proxies.clone());
            let limits = ConnectionLimits {
                request_head: self.options.request_head,
                stalled: self.options.stalled,
                rests_after: self.options.rests_after,
                drain: self.options.drain,
            };
            let drain = drain.clone();
            // Answers are written whole; waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            match &self.certificates {
                None => {
                    let stream = Counted::new(stream, place, limits);
                    tasks.spawn(serve_http1(stream, service, limits, drain));
                }
                Some(certificates) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(certificates.current());
                    let tracker = tasks.clone();
                    tasks.spawn(shake_hands(
                        acceptor, stream, place, service, limits, drain, tracker,
                    ));
                }
            }
        }
    }
}

/// What a client is told whose address has too many connections.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 83\r\n\r\n\
    {\"errcode\":\"M_LIMIT_EXCEEDED\",\"error\":\"too many connections from your address now\"}";

/// Tells a client that its address has too many connections, where that can be said without a handshake. Nothing is
/// waited for: the buffer of a new socket holds this.
fn refuse(stream: &TcpStream, encrypted: bool) {
    if !encrypted {
        let _ = rustix::io::write(stream, TOO_MANY);
    }
}

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct ConnectionLimits {
    pub(in crate::http) request_head: Duration,
    pub(in crate::http) stalled: Duration,
    pub(in crate::http) rests_after: Duration,
    pub(in crate::http) drain: Duration,
}

/// Finishes a TLS handshake and hands the connection to a task of its own.
async fn shake_hands(
    acceptor: tokio_rustls::TlsAcceptor,
    stream: TcpStream,
    place: Place,
    service: Service,
    limits: ConnectionLimits,
    drain: CancellationToken,
    tasks: TaskTracker,
) {
    let handshake = Box::pin(acceptor.accept(stream));
    let stream = tokio::select! {
        () = drain.cancelled() => return,
        done = tokio::time::timeout(HANDSHAKE_TIME, handshake) => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return metrics::TLS_HANDSHAKES_FAILED.add(1),
        },
    };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Counted::new(Box::new(stream), place, limits);
    if speaks_http2 {
        tasks.spawn(serve_http2(stream, service, limits, drain));
    } else {
        tasks.spawn(serve_http1(stream, service, limits, drain));
    }
}

mod places;
#[cfg(test)]
mod tests;
