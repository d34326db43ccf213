//! Clients that have stopped: who takes nothing of what is sent, or sends nothing of what was announced, does not keep
//! its connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep};

/// Measures how long nothing has moved. Costs a pointer while things do.
#[derive(Debug)]
pub(in crate::http) struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Lets nothing stand still for longer than `limit`.
    pub(in crate::http) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Hands through what came of an attempt, or the error that it has come to nothing for too long.
    pub(in crate::http) fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.timer = None;
            return attempt;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the other side has stopped",
            ))
        })
    }
}

/// A request's body that ends in an error when its client sends no more of it.
#[derive(Debug)]
pub(in crate::http) struct Unstalled {
    body: Body,
    stall: Stall,
}

impl Unstalled {
    /// Watches a body.
    pub(in crate::http) fn new(body: Body, limit: Duration) -> Self {
        Self {
            body,
            stall: Stall::new(limit),
        }
    }
}

impl http_body::Body for Unstalled {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let frame = frame.map(|frame| frame.transpose().map_err(io::Error::other));
        self.stall.judge(cx, frame).map(Result::transpose)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
