//! The checks of a received event that need no room: form, signatures, hash (server-server specification, "Checks
//! performed on receipt of a PDU", 1 to 3).

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use maru_protocol::RoomVersion;
use maru_protocol::event::Event;
use maru_protocol::limits::LARGE_MAX_EVENT_BYTES;
use ruma::RoomId;
use tokio::task::JoinHandle;

use super::drop_counters::Dropped;
use crate::peers::identity::keyring::Keyring;
use crate::refusal::Refusal;
use crate::rooms::Room;

/// Fewest events that are worth a task of their own: about a millisecond of work.
const LEAST_SHARE: usize = 16;

/// Events that are verified where they are, and their bytes: less work than to have it done elsewhere.
const FEW: (usize, usize) = (2, 8 * 1024);

/// What may run at once. Asking for it reads files, so it is asked once.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// The room whose events are read, and the limits of its version.
#[derive(Clone, Copy, Debug)]
pub(in crate::peers) struct RoomFormat<'a> {
    pub(in crate::peers) room_id: &'a RoomId,
    pub(in crate::peers) version: RoomVersion,
    pub(in crate::peers) max_event_bytes: usize,
}

impl<'a> RoomFormat<'a> {
    /// The format of a room that is here.
    pub(in crate::peers) fn of(room: &'a Room) -> Self {
        Self {
            room_id: &room.room_id,
            version: room.version,
            max_event_bytes: room.max_event_bytes,
        }
    }

    /// The format of a room whose create event is not here: with the largest limit that there is.
    pub(in crate::peers) fn without_create(room_id: &'a RoomId, version: RoomVersion) -> Self {
        Self {
            room_id,
            version,
            max_event_bytes: LARGE_MAX_EVENT_BYTES,
        }
    }
}

/// The verifier of events, with the keys of their servers.
#[derive(Debug)]
pub(in crate::peers) struct EventVerifier {
    keyring: Arc<Keyring>,
}

impl EventVerifier {
    pub(in crate::peers) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Reads and verifies events of a room, each by itself, on as many cores as there are and off the threads that serve
    /// connections. The results stand in the order of the texts.
    ///
    /// # Errors
    /// Only when the server is ending.
    pub(in crate::peers) async fn verify_all<T>(
        &self,
        format: RoomFormat<'_>,
        mut texts: Vec<T>,
    ) -> Result<Vec<Result<Arc<Event>, Dropped>>, Refusal>
    where
        T: Deref<Target = str> + Send + 'static,
    {
        let share = texts.len().div_ceil(*CORES).max(LEAST_SHARE);
        let mut shares = Vec::new();
        while texts.len() > share {
            let rest = texts.split_off(share);
            shares.push(self.verify_blocking(format, std::mem::replace(&mut texts, rest)));
        }
        let last = self.verify_one_task(format, texts);
        let mut verified = Vec::new();
        for share in shares {
            verified.extend(share.await.map_err(Refusal::internal)?);
        }
        verified.extend(last.await?);
        Ok(verified)
    }

    /// The same on one core: whoever sends much does not take all of them. A few small ones are verified at once.
    ///
    /// # Errors
    /// Only when the server is ending.
    pub(in crate::peers) async fn verify_one_task<T>(
        &self,
        format: RoomFormat<'_>,
        texts: Vec<T>,
    ) -> Result<Vec<Result<Arc<Event>, Dropped>>, Refusal>
    where
        T: Deref<Target = str> + Send + 'static,
    {
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if texts.len() > FEW.0 || bytes > FEW.1 {
            let verified = self.verify_blocking(format, texts);
            return verified.await.map_err(Refusal::internal);
        }
        let verify = |json: &T| self.verify(json, format);
        Ok(texts.iter().map(verify).collect())
    }

    fn verify_blocking<T>(
        &self,
        format: RoomFormat<'_>,
        texts: Vec<T>,
    ) -> JoinHandle<Vec<Result<Arc<Event>, Dropped>>>
    where
        T: Deref<Target = str> + Send + 'static,
    {
        let (version, max_event_bytes) = (format.version, format.max_event_bytes);
        let (keyring, room_id) = (Arc::clone(&self.keyring), format.room_id.to_owned());
        tokio::task::spawn_blocking(move || {
            let format = RoomFormat {
                room_id: &room_id,
                version,
                max_event_bytes,
            };
            let verify = |json: &T| verify(&keyring, json, format);
            texts.iter().map(verify).collect()
        })
    }

    /// Reads and verifies an event of a room. Costs a signature check, about 40 µs.
    pub(in crate::peers) fn verify(&self, json: &str, format: RoomFormat<'_>) -> Result<Arc<Event>, Dropped> {
        verify(&self.keyring, json, format)
    }
}

fn verify(keyring: &Keyring, json: &str, format: RoomFormat<'_>) -> Result<Arc<Event>, Dropped> {
    let sent_at = sent_at(json);
    let received = Event::receive(
        json,
        format.version,
        format.max_event_bytes,
        |server_name, key_id| keyring.event_key(server_name, key_id, sent_at),
    )?;
    if received.event.room_id != format.room_id {
        return Err(Dropped::OtherRoom);
    }
    Ok(Arc::new(received.event))
}

/// When the event says it was sent; signed by the key that this decides about.
fn sent_at(json: &str) -> u64 {
    #[derive(serde::Deserialize)]
    struct Sent {
        origin_server_ts: u64,
    }
    serde_json::from_str::<Sent>(json).map_or(u64::MAX, |sent| sent.origin_server_ts)
}
