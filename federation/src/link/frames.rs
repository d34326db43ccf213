//! Frames on streams: read with limits, written whole.

use std::io;

use bytes::{Buf, BytesMut};
use maru_protocol::wire::{FrameError, Named, decode, encode, frame::LENGTH_BYTES, frame_length};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::OutgoingStream;

/// Room that is made for what may come next, in bytes. A buffer grows by what has arrived and never by
/// what a stranger announces.
const STEP: usize = 16 * 1024;

/// Why no frame could be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The bytes are no frame, or none that is known here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    CutShort,
    /// The stream or its link broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// Reads frames from a stream.
pub struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
    /// Bytes of frames read so far, their lengths included.
    pub bytes: u64,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// A reader at the beginning of a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            bytes: 0,
        }
    }

    /// The next frame of at most `limit` bytes, or none where the stream ends between frames.
    ///
    /// May be dropped and called again: nothing that arrived is lost.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no use afterwards.
    pub async fn next<T: Named>(&mut self, limit: usize) -> Result<Option<T>, ReadError> {
        match self.next_bytes(limit).await? {
            Some(bytes) => Ok(Some(decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// As [`FrameReader::next`], without looking at what the bytes mean.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no use afterwards.
    pub async fn next_bytes(&mut self, limit: usize) -> Result<Option<BytesMut>, ReadError> {
        let Some(length) = self.frame_length(limit).await? else {
            return Ok(None);
        };
        let whole = LENGTH_BYTES + length;
        self.fill(whole).await?;
        self.bytes = self.bytes.saturating_add(whole as u64);
        let mut frame = self.buffer.split_to(whole);
        frame.advance(LENGTH_BYTES);
        Ok(Some(frame))
    }

    /// The length of the next frame, as soon as that is there, for a reader that makes room for it first.
    /// None where the stream ends between frames.
    ///
    /// # Errors
    /// [`ReadError`]; the stream is of no use afterwards.
    pub async fn frame_length(&mut self, limit: usize) -> Result<Option<usize>, ReadError> {
        match self.fill(LENGTH_BYTES).await {
            Err(ReadError::CutShort) if self.buffer.is_empty() => return Ok(None),
            outcome => outcome?,
        }
        let prefix = self.buffer.first_chunk().ok_or(ReadError::CutShort)?;
        Ok(Some(frame_length(*prefix, limit)?))
    }

    /// Reads until so many bytes are there.
    async fn fill(&mut self, wanted: usize) -> Result<(), ReadError> {
        while self.buffer.len() < wanted {
            self.buffer
                .reserve(STEP.min(wanted.saturating_sub(self.buffer.len())).max(1024));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ReadError::CutShort);
            }
        }
        Ok(())
    }

    /// Whether the stream ends here, as it must after a lone frame.
    ///
    /// # Errors
    /// [`ReadError`] when something follows, or the stream broke.
    pub async fn expect_end(&mut self) -> Result<(), ReadError> {
        match self.fill(1).await {
            Err(ReadError::CutShort) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(ReadError::Frame(
                maru_protocol::wire::cbor_validation::ShapeError::Trailing.into(),
            )),
        }
    }
}

/// Why a frame could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The frame is over the limits.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream or its link broke, or the reader reads no more.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// Writes frames to a stream.
pub struct FrameWriter<S> {
    stream: S,
    /// Bytes written so far.
    pub bytes: u64,
}

impl<S: AsyncWrite + Unpin> FrameWriter<S> {
    /// A writer at the beginning of a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, bytes: 0 }
    }

    /// Writes one frame, waiting while the reader is behind.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<T: Named>(&mut self, frame: &T) -> Result<(), WriteError> {
        let bytes = encode(frame)?;
        self.write_encoded(&bytes).await
    }

    /// Writes bytes that are whole frames.
    ///
    /// # Errors
    /// [`WriteError::Broken`].
    pub async fn write_encoded(&mut self, frames: &[u8]) -> Result<(), WriteError> {
        self.stream.write_all(frames).await?;
        self.bytes = self.bytes.saturating_add(frames.len() as u64);
        Ok(())
    }

    /// Ends the stream: what is written will arrive.
    ///
    /// # Errors
    /// [`WriteError::Broken`].
    pub async fn finish(&mut self) -> Result<(), WriteError> {
        Ok(self.stream.shutdown().await?)
    }
}

impl FrameWriter<OutgoingStream> {
    /// Waits until the other side has it all; see [`super::Outgoing::delivered`].
    pub async fn delivered(&mut self) {
        self.stream.delivered().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maru_protocol::wire::message::{Message, Stored};
    use tokio::io::duplex;

    fn stored(number: u64) -> Message {
        Message::Stored(Stored { number })
    }

    #[tokio::test]
    async fn frames_arrive_in_order_however_they_are_cut() {
        let bytes: Vec<u8> = (1..=50u64)
            .flat_map(|number| encode(&stored(number)).unwrap())
            .collect();
        for step in [1, 3, 7, 64, bytes.len()] {
            let (mut near, far) = duplex(8);
            let pieces: Vec<Vec<u8>> = bytes.chunks(step).map(<[u8]>::to_vec).collect();
            let writing = tokio::spawn(async move {
                for piece in pieces {
                    near.write_all(&piece).await.unwrap();
                }
            });
            let mut reader = FrameReader::new(far);
            for number in 1..=50 {
                assert_eq!(reader.next::<Message>(100).await.unwrap(), Some(stored(number)));
            }
            assert!(reader.next::<Message>(100).await.unwrap().is_none());
            assert_eq!(reader.bytes, bytes.len() as u64);
            writing.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_or_costs_nothing_until_bytes_come() {
        let (mut near, far) = duplex(64);
        near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let mut reader = FrameReader::new(far);
        let error = reader.next::<Message>(usize::MAX).await.unwrap_err();
        assert!(
            matches!(error, ReadError::Frame(FrameError::TooLong { .. })),
            "{error}"
        );

        let (mut near, far) = duplex(64);
        near.write_all(&(8u32 << 20).to_be_bytes()).await.unwrap();
        near.write_all(b"ab").await.unwrap();
        drop(near);
        let mut reader = FrameReader::new(far);
        let error = reader.next::<Message>(usize::MAX).await.unwrap_err();
        assert!(matches!(error, ReadError::CutShort), "{error}");
        assert!(
            reader.buffer.capacity() <= 2 * STEP,
            "{}",
            reader.buffer.capacity()
        );
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_while_it_waits_loses_nothing() {
        let bytes = encode(&stored(9)).unwrap();
        let (first, second) = bytes.split_at(6);
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far);
        near.write_all(first).await.unwrap();
        {
            let mut waiting = std::pin::pin!(reader.next::<Message>(100));
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        near.write_all(second).await.unwrap();
        assert_eq!(reader.next::<Message>(100).await.unwrap(), Some(stored(9)));
    }

    #[tokio::test]
    async fn what_follows_a_lone_frame_is_seen() {
        let (mut near, far) = duplex(64);
        near.write_all(&[0]).await.unwrap();
        assert!(FrameReader::new(far).expect_end().await.is_err());
        let (near, far) = duplex(64);
        drop(near);
        FrameReader::new(far).expect_end().await.unwrap();
    }
}
