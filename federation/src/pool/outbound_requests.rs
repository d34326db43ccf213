//! Requests of ours to a peer, and their answers while they are read.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use maru_protocol::wire::{Answer, Call, FrameError, Part, Refused, limits::MAX_FRAME_BYTES};
use ruma::OwnedServerName;
use thiserror::Error;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::peer::{InUse, Peer, Wanted};
use crate::{
    limits,
    link::{
        IncomingStream, Link, LinkError,
        frames::{FrameReader, FrameWriter, ReadError, WriteError},
    },
};

/// Why a request was not answered.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The peer could not be reached; the text says why, as far as that is known.
    #[error("not reached: {0}")]
    NotReached(String),
    /// The peer refused it.
    #[error("refused: {}: {}", .0.code, .0.reason)]
    Refused(Refused),
    /// The peer did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer breaks the protocol.
    #[error("a wrong answer: {0}")]
    WrongAnswer(String),
    /// The answer is larger than the caller allows.
    #[error("the answer is too large")]
    TooLarge,
    /// The request itself does not fit a frame.
    #[error(transparent)]
    TooLong(FrameError),
    /// There are more peers than this server keeps track of.
    #[error("too many peers")]
    TooManyPeers,
    /// The pool is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// What is held while an answer is read, and let go after its stream.
pub trait Held: Send + Sync {
    /// So many more bytes of the answer have been read.
    fn count(&self, bytes: u64);
}

/// What a request to a peer of the pool holds.
pub(super) struct Asked {
    peer: Arc<Peer>,
    _in_use: InUse,
    _permit: OwnedSemaphorePermit,
    _link: Arc<dyn Link>,
}

impl Held for Asked {
    fn count(&self, bytes: u64) {
        self.peer.counters.bytes_in.add(bytes);
    }
}

/// An answer that is being read. Dropping it tells the peer that nobody reads any more.
///
/// It is read as fast as its caller asks for it: what is not read stays at the peer.
pub struct Answering<C: Call> {
    reader: FrameReader<IncomingStream>,
    done: Option<C::Done>,
    patience: Duration,
    counted: u64,
    peer: OwnedServerName,
    /// Stands after the stream, which goes before it.
    held: Box<dyn Held>,
    _call: PhantomData<fn() -> C>,
}

impl<C: Call> fmt::Debug for Answering<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl<C: Call> Answering<C> {
    /// An answer of a peer whose frames come next on a stream, straight from it or passed on by another node.
    pub fn new(reader: FrameReader<IncomingStream>, peer: OwnedServerName, held: Box<dyn Held>) -> Self {
        Self {
            counted: reader.bytes,
            reader,
            done: None,
            patience: limits::ANSWER_TIMEOUT,
            peer,
            held,
            _call: PhantomData,
        }
    }

    /// The next part, or none once the end has been read.
    ///
    /// # Errors
    /// [`RequestError`]; there is nothing more to read afterwards.
    pub async fn part(&mut self) -> Result<Option<Part>, RequestError> {
        if self.done.is_some() {
            return Ok(None);
        }
        let frame = timeout(
            self.patience,
            self.reader.next::<Answer<C::Done>>(MAX_FRAME_BYTES),
        )
        .await;
        self.held.count(self.reader.bytes - self.counted);
        self.counted = self.reader.bytes;
        match frame {
            Err(_) => Err(RequestError::TimedOut),
            Ok(Ok(Some(Answer::Part(part)))) => Ok(Some(part)),
            Ok(Ok(Some(Answer::Done(done)))) => {
                self.done = Some(done);
                Ok(None)
            }
            Ok(Ok(Some(Answer::Refused(refused)))) => Err(RequestError::Refused(refused)),
            Ok(Ok(None)) => Err(RequestError::Broken("the answer has no end".into())),
            Ok(Err(ReadError::Frame(error))) => Err(RequestError::WrongAnswer(error.to_string())),
            Ok(Err(error)) => Err(RequestError::Broken(error.to_string())),
        }
    }

    /// The end, for an answer that should have no parts before it, or none that are still of interest:
    /// at most a thousand are passed over.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn done(mut self) -> Result<C::Done, RequestError> {
        for _ in 0..limits::MAX_PASSED_PARTS {
            if self.part().await?.is_none() {
                return self.done.ok_or(RequestError::TooLarge);
            }
        }
        Err(RequestError::TooLarge)
    }

    /// All parts and the end.
    ///
    /// # Errors
    /// [`RequestError`]; too large once more than `max_bytes` have been read.
    pub async fn collect(mut self, max_bytes: u64) -> Result<(Vec<Part>, C::Done), RequestError> {
        let mut parts = Vec::new();
        while let Some(part) = self.part().await? {
            if self.reader.bytes > max_bytes {
                return Err(RequestError::TooLarge);
            }
            parts.push(part);
        }
        let done = self.done.ok_or(RequestError::TooLarge)?;
        Ok((parts, done))
    }

    /// Waits at most so long for each frame, instead of the usual minute.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Bytes of the answer that have been read.
    pub fn bytes(&self) -> u64 {
        self.reader.bytes
    }

    /// Who answers.
    pub fn peer(&self) -> &OwnedServerName {
        &self.peer
    }
}

/// Waits until the peer is connected.
pub(super) async fn connected(wanted: &Wanted) -> Result<Arc<dyn Link>, RequestError> {
    let mut ready = wanted.ready.subscribe();
    let mut failures = wanted.failures.subscribe();
    let waiting = async {
        tokio::select! {
            biased;
            link = ready.wait_for(Option::is_some) => link.ok().and_then(|link| link.clone()),
            _ = failures.changed() => None,
        }
    };
    let link = timeout(limits::CONNECT_TIMEOUT, waiting).await.ok().flatten();
    link.ok_or_else(|| {
        RequestError::NotReached(wanted.last_error().unwrap_or_else(|| "not in time".to_owned()))
    })
}

/// Sends the frame of a request, and reads the answer.
pub(super) async fn ask<C: Call>(wanted: Wanted, frame: &[u8]) -> Result<Answering<C>, RequestError> {
    let (incoming, asked) = send(wanted, frame).await?;
    let name = asked.peer.name.clone();
    Ok(Answering::new(FrameReader::new(incoming), name, Box::new(asked)))
}

/// Sends the frame of a request once the peer is connected and has room for it. The frames of the answer come on the
/// stream, for which the rest is held.
pub(super) async fn send(wanted: Wanted, frame: &[u8]) -> Result<(IncomingStream, Asked), RequestError> {
    let link = connected(&wanted).await?;
    let peer = Arc::clone(&wanted);
    let in_use = peer.begin_use();
    let sending = async {
        let permit = peer.requests.clone().acquire_owned().await;
        let permit = permit.map_err(|_| RequestError::ShuttingDown)?;
        let (outgoing, incoming) = link.open_request().await.map_err(broken)?;
        let mut writer = FrameWriter::new(outgoing);
        writer.write_encoded(frame).await.map_err(not_written)?;
        writer.finish().await.map_err(not_written)?;
        Ok((permit, incoming))
    };
    let sent = timeout(limits::WRITE_TIMEOUT, sending).await;
    let (permit, incoming) = sent.unwrap_or(Err(RequestError::TimedOut))?;
    peer.counters.requests_out.add(1);
    peer.counters.bytes_out.add(frame.len() as u64);
    let asked = Asked {
        peer,
        _in_use: in_use,
        _permit: permit,
        _link: link,
    };
    Ok((incoming, asked))
}

fn broken(error: LinkError) -> RequestError {
    RequestError::Broken(error.to_string())
}

fn not_written(error: WriteError) -> RequestError {
    RequestError::Broken(error.to_string())
}
