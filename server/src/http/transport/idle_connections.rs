//! Connections at rest: while a request waits for its answer, as a long-poll does for minutes, its connection keeps the
//! socket and the answer in the making, and gives everything else back.
//!
//! HTTP/1.1 needs buffers to read requests and to write answers, more than a waiting device may cost altogether. So once
//! a request has waited for some seconds, the HTTP connection is taken apart. As soon as the answer is there, or
//! anything stirs on the socket, another one is put together over it: that reads a head which stands for the request
//! already taken ([`TAKEN`]), and is given the answer in the making.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use axum::routing::future::RouteFuture;
use bytes::{Buf, Bytes};
use http::{Method, Request, Version, header};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::connection::{Service, Socket};

/// Stands for the request whose answer is being made: one that leaves the connection open, as that one does.
const TAKEN: &[u8] = b"GET / HTTP/1.1\r\nHost: taken\r\n\r\n";

/// The request that has been taken from a socket and not been answered, whatever becomes of the HTTP connection over it.
#[derive(Clone, Default)]
pub(in crate::http) struct Exchange(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held while the answer is being made, by the connection's one task: nobody ever waits for it.
    taken: Mutex<Taken>,
    /// Whether the socket did not take all that was to be written.
    unwritten: AtomicBool,
}

#[derive(Default)]
struct Taken {
    answer: Option<Answer>,
    /// Whether all of the request has been read, and its answer leaves the connection open.
    may_rest: bool,
    /// How many requests there have been.
    count: u64,
}

enum Answer {
    Making(Pin<Box<RouteFuture<Infallible>>>),
    Made(Response),
}

impl Exchange {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that waits for long, if one does and its connection may rest.
    fn waiting(&self) -> Option<u64> {
        let taken = self.taken();
        let may_rest = taken.may_rest && !self.0.unwritten.load(Ordering::Relaxed);
        (may_rest && matches!(taken.answer, Some(Answer::Making(_)))).then_some(taken.count)
    }

    /// Completes when a request has waited for a time, and for twice that at most, and its connection may rest.
    pub(in crate::http) async fn waits(&self, time: Duration) {
        let mut before = None;
        loop {
            sleep(time).await;
            let now = self.waiting();
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }

    /// Completes when the answer has been made, or something stirs on the socket: bytes, an error or the end.
    pub(in crate::http) async fn rests<S: Socket>(&self, wire: &Wire<S>) {
        poll_fn(|cx| match self.poll_answer(cx) {
            Poll::Ready(answer) => {
                self.taken().answer = Some(Answer::Made(answer));
                Poll::Ready(())
            }
            Poll::Pending => wire.socket.poll_stirs(cx),
        })
        .await;
    }

    /// The answer once it has been made, which it is only once.
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Response> {
        let mut taken = self.taken();
        let answer = match taken.answer.take() {
            None => return Poll::Pending,
            Some(Answer::Made(answer)) => answer,
            Some(Answer::Making(mut making)) => match making.as_mut().poll(cx) {
                Poll::Ready(Ok(answer)) => answer,
                Poll::Pending => {
                    taken.answer = Some(Answer::Making(making));
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(answer)
    }
}

/// The client API over one socket, whose connection may rest.
#[derive(Clone)]
pub(in crate::http) struct Resting {
    pub(in crate::http) service: Service,
    pub(in crate::http) exchange: Exchange,
}

impl hyper::service::Service<Request<Incoming>> for Resting {
    type Response = Response;
    type Error = Infallible;
    type Future = Answered;

    fn call(&self, request: Request<Incoming>) -> Answered {
        let mut taken = self.exchange.taken();
        // An answer is still there only when HTTP was taken up again, and then this is the head that stands for it.
        if taken.answer.is_none() {
            taken.may_rest = is_like_taken(&request);
            taken.count += 1;
            taken.answer = Some(Answer::Making(Box::pin(self.service.answer(request))));
        }
        Answered(self.exchange.clone())
    }
}

/// Whether [`TAKEN`] can stand for a request: all of it has been read, and its answer leaves the connection open.
fn is_like_taken(request: &Request<Incoming>) -> bool {
    let kept = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.headers().get_all(header::CONNECTION).iter().all(kept)
        && request.body().is_end_stream()
}

/// The answer to the request that was taken.
pub(in crate::http) struct Answered(Exchange);

impl Future for Answered {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_answer(cx).map(Ok)
    }
}

/// A socket as an HTTP connection over it sees it: what had been read before comes first.
pub(in crate::http) struct Wire<S> {
    socket: S,
    before: Bytes,
    exchange: Exchange,
}

impl<S> Wire<S> {
    /// A socket from which nothing has been read.
    pub(in crate::http) fn new(socket: S, exchange: Exchange) -> Self {
        let before = Bytes::new();
        Self {
            socket,
            before,
            exchange,
        }
    }

    /// The same socket for another HTTP connection; `unread` was read from it and not used.
    pub(in crate::http) fn taken_up(self, unread: &[u8]) -> Self {
        let before = match unread {
            [] => Bytes::from_static(TAKEN),
            _ => [TAKEN, unread].concat().into(),
        };
        Self { before, ..self }
    }

    fn note<T>(&self, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.exchange
            .0
            .unwritten
            .store(attempt.is_pending(), Ordering::Relaxed);
        attempt
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return pin!(&mut self.socket).poll_read(cx, buffer);
        }
        let length = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before[..length]);
        self.before.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.socket).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.socket).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = pin!(&mut self.socket).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.socket).poll_shutdown(cx)
    }
}
