//! The UDP socket, dialling and accepting.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use maru_protocol::{PublicKey, SecretKey, wire::CloseCode};
use quinn::{Endpoint, Incoming, VarInt};
use rustls::{client::ResolvesClientCert, server::ResolvesServerCert};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::time::timeout;

use super::{config, link::QuicLink, reset};
use crate::{
    limits,
    link::{BoxFuture, CloseReason, Handshake, Link, LinkError, Transport},
};

/// The name that quinn and rustls insist on; it is neither sent nor checked.
const NO_NAME: &str = "peer.invalid";

/// Why there is no endpoint.
#[derive(Debug, Error)]
pub enum QuicError {
    /// The UDP socket could not be opened.
    #[error("no UDP socket on {address}: {source}")]
    Socket {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The TLS library refused a parameter.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The TLS library was built without Ed25519.
    #[error("the TLS library cannot do Ed25519")]
    NoEd25519,
    /// The TLS library was built without a cipher suite for QUIC.
    #[error("the TLS library has no cipher suite for QUIC")]
    NoCipherSuite,
    /// A time-out does not fit the protocol.
    #[error("a transport parameter is out of range")]
    Range,
}

/// A UDP socket with wide buffers, ready for [`Quic::new`].
#[derive(Debug)]
pub struct BoundSocket {
    socket: UdpSocket,
    /// Size of the receive buffer that the kernel gave, in bytes.
    pub receive_buffer: usize,
    /// Size of the send buffer that the kernel gave, in bytes.
    pub send_buffer: usize,
}

impl BoundSocket {
    /// Binds `address`; port 0 takes any free port. An IPv6 wildcard serves IPv4 too.
    ///
    /// # Errors
    /// [`QuicError::Socket`] when the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, QuicError> {
        bind(address).map_err(|source| QuicError::Socket { address, source })
    }
}

fn bind(address: SocketAddr) -> io::Result<BoundSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what it allows; a burst of frames must not be dropped for want of room.
    let _ = socket.set_recv_buffer_size(limits::SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(limits::SOCKET_BUFFER);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(BoundSocket {
        receive_buffer: socket.recv_buffer_size()?,
        send_buffer: socket.send_buffer_size()?,
        socket: socket.into(),
    })
}

/// One QUIC endpoint: it dials and accepts over one socket, as one TLS key.
pub struct Quic {
    endpoint: Endpoint,
    credentials: Arc<dyn ResolvesClientCert>,
    own_key: PublicKey,
    handshakes: Arc<AtomicUsize>,
}

impl Quic {
    /// Starts the endpoint on the current tokio runtime.
    ///
    /// # Errors
    /// [`QuicError`] when the TLS library refuses the key or the socket cannot be watched.
    pub fn new(key: &SecretKey, socket: BoundSocket) -> Result<Self, QuicError> {
        let credentials = config::credentials(key)?;
        Self::with_credentials(key, credentials.clone(), credentials, socket)
    }

    pub(super) fn with_credentials(
        key: &SecretKey,
        accepting: Arc<dyn ResolvesServerCert>,
        dialling: Arc<dyn ResolvesClientCert>,
        socket: BoundSocket,
    ) -> Result<Self, QuicError> {
        let address = socket.socket.local_addr();
        let endpoint = Endpoint::new(
            reset::endpoint_config(key)?,
            Some(config::server(accepting)?),
            socket.socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(|source| QuicError::Socket {
            address: address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            source,
        })?;
        Ok(Self {
            endpoint,
            credentials: dialling,
            own_key: key.public_key(),
            handshakes: Arc::default(),
        })
    }

    /// The address of the socket, with the port that was taken.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Takes the place of one handshake, as somebody who is slow about it would.
    #[cfg(test)]
    pub(super) fn begin_handshake(&self) -> impl Drop + use<> {
        Running::new(&self.handshakes)
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> Result<Arc<dyn Link>, LinkError> {
        let config = config::client(self.credentials.clone(), expected)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let connecting = self
            .endpoint
            .connect_with(config, address, NO_NAME)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let connection = timeout(limits::DIAL_TIMEOUT, connecting)
            .await
            .map_err(|_| LinkError::Closed(CloseReason::TimedOut))?
            .map_err(|error| LinkError::Closed(CloseReason::from(error)))?;
        Ok(Arc::new(QuicLink::new(connection)?))
    }

    /// The next connection attempt that may go on: the address proven first when many are waiting,
    /// turned away when too many are.
    async fn admitted(&self) -> Option<(Incoming, Running)> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let running = self.handshakes.load(Ordering::Relaxed);
            if running >= limits::MAX_HANDSHAKES {
                incoming.refuse();
            } else if running >= limits::RETRY_FROM && incoming.may_retry() {
                // Only fails for an attempt that already answered a retry, which may_retry excludes.
                let _ = incoming.retry();
            } else {
                return Some((incoming, Running::new(&self.handshakes)));
            }
        }
    }
}

/// Counts one handshake while it lives.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Transport for Quic {
    fn own_key(&self) -> PublicKey {
        self.own_key
    }

    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>> {
        Box::pin(self.connect(address, expected))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Handshake>> {
        Box::pin(async {
            let (incoming, running) = self.admitted().await?;
            Some(Box::pin(async move {
                let _running = running;
                let connection = timeout(limits::DIAL_TIMEOUT, incoming)
                    .await
                    .map_err(|_| LinkError::Closed(CloseReason::TimedOut))?
                    .map_err(|error| LinkError::Closed(CloseReason::from(error)))?;
                Ok(Arc::new(QuicLink::new(connection)?) as Arc<dyn Link>)
            }) as Handshake)
        })
    }

    fn shut_down(&self, code: CloseCode, reason: &'static str) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.endpoint.set_server_config(None);
            self.endpoint
                .close(VarInt::from_u32(code.number()), reason.as_bytes());
            // A peer that is gone does not answer; it hears of the close or times out.
            let _ = timeout(limits::CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        })
    }
}
