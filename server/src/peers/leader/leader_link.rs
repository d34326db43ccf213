//! The link to the node that leads: what a node asks there, in the frames in which it would ask a peer itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use maru_federation::link::frames::{FrameReader, FrameWriter, ReadError};
use maru_federation::link::{IncomingStream, Link, OutgoingStream};
use maru_federation::pool::{Answering, Held};
use maru_protocol::cursor::Position;
use maru_protocol::wire::nodes::{Ask, FromLeader, Join, Joined, MAX_NODE_FRAME_BYTES, Note, ToLeader};
use maru_protocol::wire::request::Call;
use maru_protocol::wire::{Named, encode};
use ruma::{OwnedServerName, RoomId, ServerName};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::fair_semaphore::Permit;

/// How long the node that leads may take to say that it does what it is asked.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// How long the end of a join waits until the node that leads knows of it.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// The node that was asked does not lead, or cannot be reached: it has done nothing, as far as can be known. Whatever is asked
/// may be asked again: an event that is sent twice is one, and of one-time keys at worst one more is gone.
#[derive(Clone, Debug, Error)]
#[error("the node that speaks with other homeservers is not reached: {0}")]
pub(in crate::peers) struct NotTaken(String);

impl NotTaken {
    fn because(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// A link to the node that leads. Clones are the same link, which ends with the last of them and of what was asked over it.
#[derive(Clone)]
pub(in crate::peers) struct LeaderLink {
    link: Arc<dyn Link>,
    notes: mpsc::Sender<Note>,
}

impl fmt::Debug for LeaderLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.link.path();
        f.debug_struct("LeaderLink")
            .field("path", &path)
            .finish_non_exhaustive()
    }
}

/// What the answer to a request that was passed on holds.
struct Passed {
    _permit: Permit<OwnedServerName>,
    _link: Arc<dyn Link>,
}

impl Held for Passed {
    /// The node that leads counts them.
    fn count(&self, _bytes: u64) {}
}

impl LeaderLink {
    /// A link whose notes are written by whoever has the other end of `notes`.
    pub(super) fn new(link: Arc<dyn Link>, notes: mpsc::Sender<Note>) -> Self {
        Self { link, notes }
    }

    /// Has the frame of a request sent to a peer, and reads the answer as if it came from there. `permit` is held until it is
    /// read.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(in crate::peers) async fn ask<C: Call>(
        &self,
        peer: &ServerName,
        frame: &[u8],
        permit: Permit<OwnedServerName>,
    ) -> Result<Answering<C>, NotTaken> {
        let ask = ToLeader::Ask(Ask {
            peer: peer.to_owned(),
        });
        let mut frames = encode(&ask).map_err(NotTaken::because)?;
        frames.extend_from_slice(frame);
        let asking = async {
            let (outgoing, incoming) = self.open(&frames).await?;
            let mut outgoing = outgoing;
            outgoing.finish().await.map_err(NotTaken::because)?;
            taken(FrameReader::new(incoming)).await
        };
        let asked = timeout(TAKEN_WITHIN, asking).await;
        let reader = asked.unwrap_or_else(|_| Err(NotTaken::because("no answer in time")))?;
        let held = Passed {
            _permit: permit,
            _link: Arc::clone(&self.link),
        };
        Ok(Answering::new(reader, peer.to_owned(), Box::new(held)))
    }

    /// Waits until nobody else of this homeserver is on the way into a room, on whatever node, and has nobody begin until the
    /// hold is ended or dropped, or the node that leads is gone.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(in crate::peers) async fn hold_join(&self, room_id: &RoomId) -> Result<JoinHold, NotTaken> {
        let join = ToLeader::Join(Join {
            room_id: room_id.to_owned(),
        });
        let frame = encode(&join).map_err(NotTaken::because)?;
        let (writer, incoming) = self.open(&frame).await?;
        let reader = taken(FrameReader::new(incoming)).await?;
        Ok(JoinHold {
            writer,
            reader,
            _link: Arc::clone(&self.link),
        })
    }

    /// Has the node that leads look after something. Nobody waits for it; where too much of it waits, it is lost.
    pub(in crate::peers) fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            tracing::debug!("a note for the node that leads is lost");
        }
    }

    async fn open(&self, frames: &[u8]) -> Result<(FrameWriter<OutgoingStream>, IncomingStream), NotTaken> {
        let (outgoing, incoming) = self.link.open_request().await.map_err(NotTaken::because)?;
        let mut writer = FrameWriter::new(outgoing);
        writer.write_encoded(frames).await.map_err(NotTaken::because)?;
        Ok((writer, incoming))
    }
}

/// Waits for word that something is done.
async fn taken(mut reader: FrameReader<IncomingStream>) -> Result<FrameReader<IncomingStream>, NotTaken> {
    match next(&mut reader).await.map_err(NotTaken::because)? {
        Some(FromLeader::Taken(_)) => Ok(reader),
        Some(FromLeader::NotLeading(_)) => Err(NotTaken::because("it does not lead")),
        None => Err(NotTaken::because("it says nothing")),
    }
}

async fn next<T: Named>(reader: &mut FrameReader<IncomingStream>) -> Result<Option<T>, ReadError> {
    reader.next(MAX_NODE_FRAME_BYTES).await
}

/// The way into a room, kept free of others.
pub(in crate::peers) struct JoinHold {
    writer: FrameWriter<OutgoingStream>,
    reader: FrameReader<IncomingStream>,
    _link: Arc<dyn Link>,
}

impl JoinHold {
    /// Ends the hold once the node that leads knows the log up to a position, so that what peers send it is for a room that it
    /// knows. Waits for that, but not for long.
    pub(in crate::peers) async fn end(mut self, at: Position) {
        let telling = async {
            self.writer.write(&ToLeader::Joined(Joined { at })).await?;
            self.writer.finish().await
        };
        let told = timeout(KNOWN_WITHIN, async {
            let _ = telling.await;
            self.reader.expect_end().await
        });
        if !matches!(told.await, Ok(Ok(()))) {
            tracing::debug!("the node that leads was not told of the end of a join");
        }
    }
}
