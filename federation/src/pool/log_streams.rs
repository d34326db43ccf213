//! The two log streams of a connection, driven side by side in one task: neither waits for the other.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use maru_protocol::wire::frame::LENGTH_BYTES;
use tokio::io::AsyncWriteExt;

use crate::{
    limits,
    link::{
        IncomingStream, Link, LinkError, OutgoingStream,
        frames::{FrameReader, ReadError},
    },
};

/// The peer's log stream, which it opens when it has something to say.
pub(super) struct LogIn {
    link: Arc<dyn Link>,
    reader: Option<FrameReader<IncomingStream>>,
}

impl LogIn {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self { link, reader: None }
    }

    /// The next frame, without its length. May be dropped and called again.
    pub(super) async fn next(&mut self, limit: usize) -> Result<BytesMut, ReadError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => empty.insert(FrameReader::new(self.link.accept_log().await.map_err(broken)?)),
        };
        // A log stream ends with its connection and not before.
        reader.next_bytes(limit).await?.ok_or(ReadError::CutShort)
    }
}

/// Our log stream, with what is still to be written to it.
pub(super) struct LogOut {
    link: Arc<dyn Link>,
    stream: Option<OutgoingStream>,
    waiting: BytesMut,
}

impl LogOut {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self {
            link,
            stream: None,
            waiting: BytesMut::new(),
        }
    }

    /// Appends a frame with its length.
    pub(super) fn push(&mut self, frame: &[u8]) {
        debug_assert!(frame.len() >= LENGTH_BYTES);
        self.waiting.extend_from_slice(frame);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether so little waits that more may be said.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < limits::MAX_LOG_WAITING
    }

    /// Writes some of what waits. May be dropped and called again.
    pub(super) async fn write_some(&mut self) -> io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => empty.insert(self.link.open_log().await.map_err(broken)?),
        };
        let written = stream.write(&self.waiting).await?;
        self.waiting.advance(written);
        if self.waiting.is_empty() {
            // A burst's memory is not kept for a quiet peer.
            self.waiting = BytesMut::new();
        }
        Ok(())
    }
}

fn broken(error: LinkError) -> io::Error {
    io::Error::other(error)
}
