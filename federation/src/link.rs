//! One connection between two homeservers, whatever carries it.
//!
//! A link has an authenticated key at its other end, one ordered stream each way for the log, a stream
//! for each request, and datagrams where there are datagrams. [`crate::quic`] makes links over QUIC,
//! [`memory`] in memory for tests; a detour over relays would be a third.

pub mod frames;
pub mod memory;

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use maru_protocol::{PublicKey, wire::CloseCode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a link is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it, with a code (`spec/federation.md`, "Close codes") and its own words.
    ByPeer {
        /// The number as it came; it need not be one of ours.
        code: u64,
        /// The peer's words, cut to a sensible length.
        reason: String,
    },
    /// This side closed it.
    ByUs,
    /// Nothing was heard for too long.
    TimedOut,
    /// The peer does not know the connection any more, most likely because it was restarted.
    Reset,
    /// The handshake or the transport failed; the text says how.
    Transport(String),
}

impl CloseReason {
    /// The peer's close code, if it closed the link with one that we know.
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::ByPeer { code, .. } => CloseCode::from_number(*code),
            _ => None,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer { code, reason } => match CloseCode::from_number(*code) {
                Some(name) => write!(f, "closed by the peer: {name}: {reason}"),
                None => write!(f, "closed by the peer: code {code}: {reason}"),
            },
            Self::ByUs => f.write_str("closed by us"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Reset => f.write_str("the peer does not know the connection any more"),
            Self::Transport(text) => f.write_str(text),
        }
    }
}

/// Why something could not be done on a link.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The link is closed.
    #[error("{0}")]
    Closed(CloseReason),
    /// The connection could not even be tried.
    #[error("{0}")]
    Setup(String),
    /// Too many handshakes are going on, in all or with one place.
    #[error("turned away: too many handshakes")]
    TurnedAway,
    /// The link carries no datagrams, or not of this size.
    #[error("no datagram of this size can be sent")]
    Datagram,
}

/// The writing half of a stream. Dropped before it is shut down, the reader sees it cut short.
pub trait Outgoing: AsyncWrite + Send + Unpin {
    /// Waits until all that was written before the stream was shut down has reached the other side, or the
    /// other side reads no more, or the link is closed.
    fn delivered(&mut self) -> BoxFuture<'_, ()>;

    /// Waits until the other side reads no more of a stream that is not shut down, or the link is closed.
    fn given_up(&mut self) -> BoxFuture<'_, ()>;
}

/// The reading half of a stream. Dropped before its end, the writer hears that nobody reads any more.
pub trait Incoming: AsyncRead + Send + Unpin {}

/// A writing half of any link.
pub type OutgoingStream = Box<dyn Outgoing>;

/// A reading half of any link.
pub type IncomingStream = Box<dyn Incoming>;

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Inside this process.
    Memory,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// One connection to a peer whose key is authenticated.
///
/// A new link lets the peer open its log stream and say hello, and no more than that until
/// [`Link::admit`].
pub trait Link: Send + Sync + 'static {
    /// The TLS key at the other end, proven by its signature.
    fn peer_key(&self) -> PublicKey;

    /// How the peer is reached.
    fn path(&self) -> Path;

    /// The smoothed round trip time, once it is known.
    fn round_trip(&self) -> Option<Duration>;

    /// Makes the peer say whether it still has this connection: if it was restarted, the link closes with
    /// [`CloseReason::Reset`] a round trip later.
    fn probe(&self);

    /// Lets the peer open request streams and send as much as an honest peer needs.
    fn admit(&self);

    /// Opens our log stream.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    fn open_log(&self) -> BoxFuture<'_, Result<OutgoingStream, LinkError>>;

    /// Waits for the peer's log stream.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    fn accept_log(&self) -> BoxFuture<'_, Result<IncomingStream, LinkError>>;

    /// Opens a stream for one request, waiting while the peer allows no more.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    fn open_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>>;

    /// Waits for a request of the peer.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    fn accept_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>>;

    /// Sends a datagram, which may be lost. Older ones are dropped for it when too many wait.
    ///
    /// # Errors
    /// [`LinkError::Datagram`] where it does not fit, [`LinkError::Closed`].
    fn send_datagram(&self, datagram: Bytes) -> Result<(), LinkError>;

    /// Waits for a datagram.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkError>>;

    /// Closes the link at once; streams that are not shut down are lost. The first call counts.
    fn close(&self, code: CloseCode, reason: &str);

    /// Waits until the link is closed, by whomever.
    fn closed(&self) -> BoxFuture<'_, CloseReason>;
}

/// A handshake with somebody who dialled us.
pub type Handshake = BoxFuture<'static, Result<Arc<dyn Link>, LinkError>>;

/// What makes links: dials and accepts as one TLS key.
pub trait Transport: Send + Sync + 'static {
    /// Our own TLS key.
    fn own_key(&self) -> PublicKey;

    /// Dials an address, towards the expected TLS key or, where it is not known yet, any.
    ///
    /// The handshake of a dialler ends before the acceptor has judged it: only the acceptor's hello
    /// shows that it was let in.
    ///
    /// # Errors
    /// [`LinkError`]; bounded in time.
    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>>;

    /// Waits for somebody who dials us. The handshake is the caller's to run beside others; it is bounded
    /// in time. None once the transport is shut down.
    fn accept(&self) -> BoxFuture<'_, Option<Handshake>>;

    /// Closes every link, accepts no more, and waits until the closes are sent. Bounded in time.
    fn shut_down(&self, code: CloseCode, reason: &'static str) -> BoxFuture<'_, ()>;
}
