//! One QUIC connection as a [`Link`].

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use maru_protocol::{PublicKey, wire::CloseCode};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{certificate::key_of, config::Speaks};
use crate::link::{
    BoxFuture, CloseReason, Incoming, IncomingStream, Link, LinkError, Outgoing, OutgoingStream, Path,
};

/// Longest reason of a peer that is kept, in characters.
const MAX_REASON_CHARACTERS: usize = 200;

/// What a stream is reset or stopped with. A stream has no reasons of its own: answers carry them.
const GIVEN_UP: VarInt = VarInt::from_u32(0);

/// One QUIC connection.
pub(super) struct QuicLink {
    connection: Connection,
    peer_key: PublicKey,
    speaks: Speaks,
}

impl QuicLink {
    /// Takes an established connection, whose certificate the verifier has seen.
    pub(super) fn new(connection: Connection, speaks: Speaks) -> Result<Self, LinkError> {
        let peer_key = peer_key(&connection)
            .ok_or_else(|| LinkError::Setup("the connection carries no certificate".into()))?;
        Ok(Self {
            connection,
            peer_key,
            speaks,
        })
    }
}

/// The authenticated key at the other end.
fn peer_key(connection: &Connection) -> Option<PublicKey> {
    let chain = connection.peer_identity()?;
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let (first, rest) = chain.split_first()?;
    key_of(first, rest).ok()
}

impl Link for QuicLink {
    fn peer_key(&self) -> PublicKey {
        self.peer_key
    }

    fn path(&self) -> Path {
        let address = self.connection.remote_address();
        // A socket that serves both families sees IPv4 as a part of IPv6.
        Path::Direct(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.connection.rtt())
    }

    /// Sends an empty datagram, which says nothing and yet has to be acknowledged.
    fn probe(&self) {
        // Fails only where the connection is closed, and then there is no more to learn.
        let _ = self.connection.send_datagram(Bytes::new());
    }

    fn admit(&self) {
        self.connection
            .set_receive_window(VarInt::from_u32(self.speaks.connection_window()));
        self.connection
            .set_max_concurrent_bi_streams(VarInt::from_u32(self.speaks.requests()));
    }

    fn open_log(&self) -> BoxFuture<'_, Result<OutgoingStream, LinkError>> {
        Box::pin(async {
            let stream = self.connection.open_uni().await?;
            // The log goes before requests: bulk never holds it up. Fails only for a closed stream.
            let _ = stream.set_priority(1);
            Ok(Box::new(Sender::new(stream)) as OutgoingStream)
        })
    }

    fn accept_log(&self) -> BoxFuture<'_, Result<IncomingStream, LinkError>> {
        Box::pin(async {
            let stream = self.connection.accept_uni().await?;
            Ok(Box::new(Receiver(stream)) as IncomingStream)
        })
    }

    fn open_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>> {
        Box::pin(async { Ok(pair(self.connection.open_bi().await?)) })
    }

    fn accept_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>> {
        Box::pin(async { Ok(pair(self.connection.accept_bi().await?)) })
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), LinkError> {
        self.connection
            .send_datagram(datagram)
            .map_err(|error| match error {
                quinn::SendDatagramError::ConnectionLost(reason) => LinkError::Closed(reason.into()),
                _ => LinkError::Datagram,
            })
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(async { Ok(self.connection.read_datagram().await?) })
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.connection
            .close(VarInt::from_u32(code.number()), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        Box::pin(async { CloseReason::from(self.connection.closed().await) })
    }
}

impl Drop for QuicLink {
    /// A link that nobody holds any more serves nobody, even while a stream of it is still read.
    fn drop(&mut self) {
        self.close(CloseCode::Done, "");
    }
}

fn pair((sender, receiver): (SendStream, RecvStream)) -> (OutgoingStream, IncomingStream) {
    (Box::new(Sender::new(sender)), Box::new(Receiver(receiver)))
}

/// The writing half of a stream.
struct Sender {
    stream: SendStream,
    finished: bool,
}

impl Sender {
    fn new(stream: SendStream) -> Self {
        Self {
            stream,
            finished: false,
        }
    }
}

impl Outgoing for Sender {
    fn given_up(&mut self) -> BoxFuture<'_, ()> {
        self.delivered()
    }

    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        // Of a stream that is not finished, this is that the other side has stopped it.
        let stopped = self.stream.stopped();
        Box::pin(async {
            // An error says that the connection is gone.
            let _ = stopped.await;
        })
    }
}

impl Drop for Sender {
    /// quinn would finish the stream, and what was cut short would look whole.
    fn drop(&mut self) {
        if !self.finished {
            // Fails only for a stream that is closed already.
            let _ = self.stream.reset(GIVEN_UP);
        }
    }
}

impl AsyncWrite for Sender {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

/// The reading half of a stream.
struct Receiver(RecvStream);

impl Incoming for Receiver {}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, buffer)
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        Self::Closed(error.into())
    }
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason)
                    .chars()
                    .filter(|character| !character.is_control())
                    .take(MAX_REASON_CHARACTERS)
                    .collect(),
            },
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            other => Self::Transport(other.to_string()),
        }
    }
}
