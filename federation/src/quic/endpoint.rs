//! The UDP socket, dialling and accepting.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use maru_protocol::{PublicKey, SecretKey, wire::CloseCode};
use quinn::{Endpoint, Incoming, VarInt};
use rustls::{client::ResolvesClientCert, server::ResolvesServerCert};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    config::{self, Speaks},
    handshakes::Handshakes,
    link::QuicLink,
    node_key::node_key,
    reset,
};
use crate::limits;
use crate::link::{BoxFuture, CloseReason, Handshake, Link, LinkError, Transport};
use crate::per_ip_limit::Place;

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

    /// The address, with the port that was taken.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Another handle of the same socket, for an endpoint that is begun when the one before has ended: the address stays
    /// taken in between.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            ..*self
        })
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
    speaks: Speaks,
    endpoint: Endpoint,
    credentials: Arc<dyn ResolvesClientCert>,
    own_key: PublicKey,
    handshakes: Handshakes,
}

impl Quic {
    /// Starts the endpoint on the current tokio runtime.
    ///
    /// # Errors
    /// [`QuicError`] when the TLS library refuses the key or the socket cannot be watched.
    pub fn new(key: &SecretKey, socket: BoundSocket) -> Result<Self, QuicError> {
        let credentials = config::credentials(key)?;
        Self::with_credentials(Speaks::Peers, key, credentials.clone(), credentials, socket)
    }

    /// Starts an endpoint over which the nodes of one homeserver speak, which all hold `tls_key`: whoever cannot prove that
    /// gets no further than the TLS handshake, in either direction.
    ///
    /// # Errors
    /// As [`Quic::new`].
    pub fn between_nodes(tls_key: &SecretKey, socket: BoundSocket) -> Result<Self, QuicError> {
        let key = node_key(tls_key)?;
        let credentials = config::credentials(&key)?;
        let speaks = Speaks::Nodes(key.public_key());
        Self::with_credentials(speaks, &key, credentials.clone(), credentials, socket)
    }

    pub(super) fn with_credentials(
        speaks: Speaks,
        key: &SecretKey,
        accepting: Arc<dyn ResolvesServerCert>,
        dialling: Arc<dyn ResolvesClientCert>,
        socket: BoundSocket,
    ) -> Result<Self, QuicError> {
        let address = socket.socket.local_addr();
        let endpoint = Endpoint::new(
            reset::endpoint_config(key)?,
            Some(config::server(speaks, accepting)?),
            socket.socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(|source| QuicError::Socket {
            address: address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            source,
        })?;
        Ok(Self {
            speaks,
            endpoint,
            credentials: dialling,
            own_key: key.public_key(),
            handshakes: Handshakes::default(),
        })
    }

    /// The address of the socket, with the port that was taken.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The handshakes that are going on.
    #[cfg(test)]
    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> Result<Arc<dyn Link>, LinkError> {
        let expected = self.speaks.only().or(expected);
        let config = config::client(self.speaks, self.credentials.clone(), expected)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let connecting = self
            .endpoint
            .connect_with(config, address, NO_NAME)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let connection = timeout(limits::DIAL_TIMEOUT, connecting)
            .await
            .map_err(|_| LinkError::Closed(CloseReason::TimedOut))?
            .map_err(|error| LinkError::Closed(CloseReason::from(error)))?;
        Ok(Arc::new(QuicLink::new(connection, self.speaks)?))
    }

    /// The next connection attempt, with its place among the handshakes; without one it is turned away. Nobody is asked
    /// here who has to prove his address first.
    async fn attempt(&self) -> Option<Option<(Incoming, Place)>> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let is_proven = incoming.remote_address_validated();
            match self.handshakes.begin(incoming.remote_address().ip(), is_proven) {
                Some(place) => return Some(Some((incoming, place))),
                // Fails only for one that has proven its address.
                None if !is_proven => drop(incoming.retry()),
                None => {
                    incoming.refuse();
                    return Some(None);
                }
            }
        }
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
            let attempt = self.attempt().await?;
            let speaks = self.speaks;
            Some(Box::pin(async move {
                let (incoming, _place) = attempt.ok_or(LinkError::TurnedAway)?;
                let connection = timeout(limits::DIAL_TIMEOUT, incoming)
                    .await
                    .map_err(|_| LinkError::Closed(CloseReason::TimedOut))?
                    .map_err(|error| LinkError::Closed(CloseReason::from(error)))?;
                Ok(Arc::new(QuicLink::new(connection, speaks)?) as Arc<dyn Link>)
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
