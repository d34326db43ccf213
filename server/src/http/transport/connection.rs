//! One connection: HTTP over it, and the count of those that are open.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::client_address::TrustedProxies;
use super::idle_connections::{Exchange, Resting, Wire};
use super::listener::{ConnectionLimits, Place};
use super::write_timeout::Stall;
use crate::observe::metrics;

/// Read buffer of an HTTP/1 connection, and so the longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Longest head of a request over HTTP/2, in bytes.
const HTTP2_HEAD_BYTES: u32 = 16 * 1024;

/// The client API as one connection sees it: every request carries the address of its client.
#[derive(Clone)]
pub(in crate::http) struct Service {
    router: Router,
    peer: IpAddr,
    proxies: TrustedProxies,
}

impl Service {
    pub(in crate::http) fn new(router: Router, peer: IpAddr, proxies: TrustedProxies) -> Self {
        Self {
            router,
            peer,
            proxies,
        }
    }

    /// Answers a request.
    pub(in crate::http) fn answer(&self, mut request: Request<Incoming>) -> RouteFuture<Infallible> {
        let client = self.proxies.client(self.peer, request.headers());
        request.extensions_mut().insert(client);
        // A router is always ready, so it need not be asked.
        self.router.clone().call(request.map(Body::new))
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answer(request)
    }
}

/// Serves HTTP/1.1 until the connection ends. When `drain` is cancelled, the request in progress is the last. A
/// connection whose request waits for long rests ([`super::idle_connections`]).
pub(in crate::http) async fn serve_http1<S: Socket>(
    socket: S,
    service: Service,
    limits: ConnectionLimits,
    drain: CancellationToken,
) {
    let exchange = Exchange::default();
    let mut wire = Wire::new(socket, exchange.clone());
    let mut service = Resting {
        service,
        exchange: exchange.clone(),
    };
    loop {
        let connection = hyper::server::conn::http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .timer(TokioTimer::new())
            .header_read_timeout(limits.request_head)
            .serve_connection(TokioIo::new(wire), service);
        let mut connection = Box::pin(connection.with_upgrades());
        tokio::select! {
            // First the connection: it must have taken the request that is in progress before it is told of the end.
            biased;
            _ = connection.as_mut() => return,
            () = drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(limits.drain, connection).await;
                return;
            }
            () = exchange.waits(limits.rests_after) => {}
        }
        let Some(parts) = Pin::into_inner(connection).into_parts() else {
            return;
        };
        // Now, since what was read last would hold the whole buffer that it lies in.
        wire = parts.io.into_inner().taken_up(&parts.read_buf);
        drop(parts.read_buf);
        service = parts.service;
        metrics::CONNECTIONS_RESTING.add(1);
        tokio::select! {
            () = exchange.rests(&wire) => {}
            () = drain.cancelled() => {}
        }
        metrics::CONNECTIONS_RESTING.subtract(1);
    }
}

/// Serves HTTP/2, as [`serve_http1`] does HTTP/1.1.
pub(in crate::http) async fn serve_http2<S>(
    stream: S,
    service: Service,
    limits: ConnectionLimits,
    drain: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HTTP2_HEAD_BYTES)
        // An idle client that is gone without a word is noticed.
        .keep_alive_interval(limits.request_head)
        .keep_alive_timeout(limits.request_head);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(limits.drain, connection).await;
}

/// What a connection is served over.
pub(in crate::http) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Ready when there is something to read, an error or the end; nothing is taken.
    fn poll_stirs(&self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Socket for TcpStream {
    fn poll_stirs(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl Socket for Box<TlsStream<TcpStream>> {
    fn poll_stirs(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().0.poll_stirs(cx)
    }
}

impl<S: Socket> Socket for Counted<S> {
    fn poll_stirs(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_stirs(cx)
    }
}

/// A stream that holds its place among the open connections for as long as it lives, upgraded or not. It breaks when the
/// client takes nothing of what is written for too long.
pub(in crate::http) struct Counted<S> {
    stream: S,
    stall: Stall,
    _place: Place,
}

impl<S> Counted<S> {
    pub(in crate::http) fn new(stream: S, place: Place, limits: ConnectionLimits) -> Self {
        metrics::CONNECTIONS_OPEN.add(1);
        metrics::CONNECTIONS.add(1);
        Self {
            stream,
            stall: Stall::new(limits.stalled),
            _place: place,
        }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        metrics::CONNECTIONS_OPEN.subtract(1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.stream).poll_write(cx, bytes);
        self.stall.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.stream).poll_write_vectored(cx, parts);
        self.stall.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = pin!(&mut self.stream).poll_flush(cx);
        self.stall.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = pin!(&mut self.stream).poll_shutdown(cx);
        self.stall.judge(cx, shut_down)
    }
}
