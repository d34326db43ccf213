//! What the scenarios with two homeservers share: a room of the first, with users of both, and waiting at the second.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::{Marker, Tally};
use crate::matrix::{Room, Session};
use crate::scan::Field;

/// How long everybody may take to be known on both sides.
const MEETING: Duration = Duration::from_secs(60);

/// A client that is behind gets this many events of a room at once.
const FILTER: &str = r#"{"room":{"timeline":{"limit":1000}}}"#;

/// A room of the first homeserver with users of it, and one of the second.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) room: Room,
    pub(super) senders: Vec<Session>,
    pub(super) reader: Session,
}

impl Pair {
    /// Makes the room, lets everybody join, and waits until the first homeserver knows the reader.
    pub(super) async fn meet(context: &Context, senders: usize) -> Result<Self, LoadError> {
        let mut senders = context.sessions(senders).await?;
        let room = context.room(&mut senders.iter_mut().collect::<Vec<_>>()).await?;
        let Some(first) = senders.first_mut() else {
            return Err(LoadError::Usage("a room needs a sender".into()));
        };
        let server_name = first.server_name().await?;
        let mut readers = context.other()?.sessions(1).await?;
        let mut reader = readers.remove(0);
        reader.join_through(&room, &server_name).await?;
        let (members, deadline) = (senders.len() + 1, Instant::now() + MEETING);
        for side in [senders.first_mut(), Some(&mut reader)].into_iter().flatten() {
            while side.joined(&room).await?.len() < members {
                if Instant::now() > deadline {
                    return Err(LoadError::Timeout("everybody being known on both sides".into()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(Self {
            room,
            senders,
            reader,
        })
    }
}

/// Where a user's sync stands now.
pub(super) async fn position(reader: &mut Session) -> Result<String, LoadError> {
    let first = reader
        .sync(None, Duration::ZERO, Some(r#"{"room":{"timeline":{"limit":1}}}"#))
        .await?;
    Field::new("\"next_batch\"").of(&first).map(str::to_owned)
}

/// Polls from a position until every message has come, or until nothing new has come for a while: the verdict says what
/// is missing then. When the last one came.
///
/// What a sync leaves out because it is too far behind is not seen here: the history is compared afterwards.
pub(super) async fn hear_all(
    reader: &mut Session,
    mut since: String,
    marker: &Marker,
    tally: &mut Tally,
    patience: Duration,
) -> Result<Instant, LoadError> {
    let next_batch = Field::new("\"next_batch\"");
    let mut last = Instant::now();
    reader.wait_longer(patience);
    while !tally.complete() && last.elapsed() < patience {
        let news: Bytes = reader
            .sync(Some(&since), Duration::from_secs(1), Some(FILTER))
            .await?;
        since = next_batch.of(&news)?.to_owned();
        for number in marker.find(&news) {
            if tally.note(number) {
                last = Instant::now();
            }
        }
    }
    Ok(last)
}
