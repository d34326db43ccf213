//! One byte stream to the target, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::LoadError;
use crate::target::Target;

/// A connected socket. TLS state is boxed, so that ten thousand plain connections stay small.
#[derive(Debug)]
pub(crate) enum Stream {
    /// `http`
    Plain(TcpStream),
    /// `https`
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects to the first of the target's addresses that accepts, and completes the TLS handshake.
    pub(crate) async fn connect(target: &Target) -> Result<Self, LoadError> {
        let failed = || format!("connecting to {}", target.authority);
        let socket = TcpStream::connect(&target.addresses[..])
            .await
            .map_err(LoadError::io(failed()))?;
        socket.set_nodelay(true).map_err(LoadError::io(failed()))?;
        match &target.tls {
            None => Ok(Self::Plain(socket)),
            Some(tls) => {
                let connecting = TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), socket);
                Ok(Self::Tls(Box::new(
                    connecting.await.map_err(LoadError::io(failed()))?,
                )))
            }
        }
    }

    /// Writes everything and flushes it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.write_all(bytes).await.map_err(LoadError::io("writing"))?;
        self.flush().await.map_err(LoadError::io("writing"))
    }

    /// Reads what has arrived, with room for `expected` more bytes; how many came, 0 at the end of the stream.
    ///
    /// Nothing is lost when the returned future is dropped.
    pub(crate) async fn receive(
        &mut self,
        buffer: &mut BytesMut,
        expected: usize,
    ) -> Result<usize, LoadError> {
        buffer.reserve(expected.clamp(READ_LEAST, READ_MOST));
        self.read_buf(buffer).await.map_err(LoadError::io("reading"))
    }
}

/// Room for one small answer.
const READ_LEAST: usize = 2 * 1024;
/// A large answer is read in few system calls, but no length that a server claims is believed beyond this.
const READ_MOST: usize = 1024 * 1024;

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
