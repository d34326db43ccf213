//! Requests of other nodes of this homeserver: sent as they come, answered with what the peer answers.

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::outbound_requests::{Held, RequestError, send};
use super::peer::Wanted;
use crate::{limits, link::OutgoingStream};

/// Why an answer was not passed on to its end.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The request got no answer; nothing was passed on.
    #[error(transparent)]
    NotAsked(#[from] RequestError),
    /// The answer, or who reads it, broke off in the middle.
    #[error("{0}")]
    Broken(String),
    /// Whoever asked does not read any more.
    #[error("nobody reads the answer")]
    NobodyReads,
}

/// Sends the frame of a request and passes the bytes of the answer on, no faster than they are read, until it ends. An answer
/// that breaks off leaves `to` unfinished: dropped, it looks cut short there as well.
pub(super) async fn relay(wanted: Wanted, frame: &[u8], to: &mut OutgoingStream) -> Result<(), RelayError> {
    let (mut from, asked) = tokio::select! {
        sent = send(wanted, frame) => sent?,
        () = to.given_up() => return Err(RelayError::NobodyReads),
    };
    let mut buffer = BytesMut::with_capacity(limits::RELAY_BUFFER);
    loop {
        let read = tokio::select! {
            read = timeout(limits::ANSWER_TIMEOUT, from.read_buf(&mut buffer)) => read,
            () = to.given_up() => return Err(RelayError::NobodyReads),
        };
        let read = read.map_err(|_| broken("no answer in time"))?.map_err(broken)?;
        asked.count(read as u64);
        let passing = async {
            match read {
                0 => to.shutdown().await,
                _ => to.write_all(&buffer).await,
            }
        };
        let passed = timeout(limits::WRITE_TIMEOUT, passing).await;
        passed.map_err(|_| broken("not read in time"))?.map_err(broken)?;
        if read == 0 {
            return Ok(());
        }
        buffer.advance(read);
        buffer.reserve(limits::RELAY_BUFFER);
    }
}

fn broken(error: impl std::fmt::Display) -> RelayError {
    RelayError::Broken(error.to_string())
}
