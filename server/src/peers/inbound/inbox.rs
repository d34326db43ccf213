//! The inbox in memory: what is to be done in each room, with the rows that are ingested while they are stored.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use maru_protocol::event::Event;
use maru_protocol::gap::work::{Next, Work};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::{Notify, oneshot};

use crate::cache::Cache;
use crate::peers::backfill::gap_scheduler::{Before, GapQueue};
use crate::rooms::ingest::Incoming;
use crate::store::federation::inbox::InInbox;

/// Bytes of events that are kept verified until they are ingested, two generations of as many: 4 MiB.
const VERIFIED_BYTES: usize = 4 * 1024 * 1024;

/// Rows of one room that are handed over in memory and not looked at yet; the others are read from the database.
const HANDED_ROWS: usize = 128;

/// Bytes of the rows that are handed over, of all rooms: 4 MiB.
const HANDED_BYTES: usize = 4 * 1024 * 1024;

/// The rooms that are being worked on, with what there is to do in them.
#[derive(Debug)]
pub(in crate::peers) struct Inbox {
    rooms: Mutex<HashMap<OwnedRoomId, RoomWork>>,
    handed_bytes: AtomicUsize,
    /// Events that were verified when they came, by their rows; the others are verified when they are ingested.
    pub(in crate::peers) verified: Cache<i64, Arc<Event>>,
    since: Instant,
}

/// A room that is being worked on.
#[derive(Debug, Default)]
pub(in crate::peers) struct RoomWork {
    pub(in crate::peers) work: Work,
    gaps: GapQueue,
    wakeup: Arc<Notify>,
    handed: VecDeque<Handed>,
    /// Whether the room may have other rows than those, which have to be read.
    pub(in crate::peers) reads: bool,
}

/// Rows that are ingested while they are being stored, so that nobody waits for one commit before the other.
#[derive(Debug)]
pub(in crate::peers) struct Handed {
    pub(in crate::peers) rows: Vec<InInbox>,
    /// Tells that they are on disk; closed when they could not be stored, and their peer sends them again.
    pub(in crate::peers) stored: oneshot::Receiver<()>,
}

impl Handed {
    fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.arrived.json.len()).sum()
    }
}

/// What the worker of a room does next.
pub(in crate::peers) enum Todo {
    Ingest,
    /// Nothing before this time, unless something comes.
    Wait(Duration),
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            handed_bytes: AtomicUsize::new(0),
            verified: Cache::weighing(VERIFIED_BYTES, |event| 2 * event.json.len()),
            since: Instant::now(),
        }
    }
}

impl Inbox {
    /// Notes something to do in a room. Whether the caller is to work on it: nobody else does.
    pub(in crate::peers) fn note(&self, room_id: &OwnedRoomId, note: impl FnOnce(&mut RoomWork)) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !rooms.contains_key(room_id);
        let room = rooms.entry(room_id.clone()).or_default();
        note(room);
        room.wakeup.notify_one();
        is_new
    }

    /// Takes rows that are being stored, unless too much waits or older rows of the room have to be read first. Whether the
    /// caller is to work on the room, as in [`Inbox::note`]; none where the rows were not taken.
    pub(in crate::peers) fn hand_over(&self, room_id: &OwnedRoomId, handed: Handed) -> Option<bool> {
        let bytes = handed.bytes();
        let held = self.handed_bytes.load(Ordering::Relaxed);
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !rooms.contains_key(room_id);
        let waiting = rooms.get(room_id).map_or(0, |room| match room.reads {
            true => HANDED_ROWS,
            false => room.handed.iter().map(|handed| handed.rows.len()).sum(),
        });
        if waiting + handed.rows.len() > HANDED_ROWS || held + bytes > HANDED_BYTES {
            return None;
        }
        self.handed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = rooms.entry(room_id.clone()).or_default();
        room.handed.push_back(handed);
        room.work.arrived();
        room.wakeup.notify_one();
        Some(is_new)
    }

    /// The oldest rows of a room that were handed over.
    pub(in crate::peers) fn take_handed(&self, room_id: &RoomId) -> Option<Handed> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let handed = rooms.get_mut(room_id)?.handed.pop_front()?;
        self.handed_bytes.fetch_sub(handed.bytes(), Ordering::Relaxed);
        Some(handed)
    }

    /// Keeps the events of rows that were verified when they came.
    pub(in crate::peers) fn remember(&self, rows: impl Iterator<Item = (i64, Option<Arc<Event>>)>) {
        for (row, event) in rows {
            if let Some(event) = event {
                self.verified.insert(row, event);
            }
        }
    }

    /// Looks at the work of a room, if it is being worked on.
    pub(in crate::peers) fn with<T>(&self, room_id: &RoomId, look: impl FnOnce(&mut Work) -> T) -> Option<T> {
        self.with_room(room_id, |room| look(&mut room.work))
    }

    pub(in crate::peers) fn with_room<T>(
        &self,
        room_id: &RoomId,
        look: impl FnOnce(&mut RoomWork) -> T,
    ) -> Option<T> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id).map(look)
    }

    /// The time that [`Work`] counts in.
    pub(in crate::peers) fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// Takes up an event that lacks something, so that its gap is filled. False where it has to wait.
    pub(in crate::peers) fn take_up(
        &self,
        room_id: &RoomId,
        peer: &ServerName,
        incoming: Incoming,
        row: i64,
    ) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms
            .get_mut(room_id)
            .is_some_and(|room| room.work.taken_up(row, peer) && room.gaps.lacks(peer, incoming, row))
    }

    /// The next gap of a room to fill, until [`Inbox::gap_ended`].
    pub(in crate::peers) fn next_gap(&self, room_id: &RoomId) -> Option<(OwnedServerName, Before)> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id)?.gaps.next()
    }

    /// The gap of a server in a room is not being filled any more: there may be more to do.
    pub(in crate::peers) fn gap_ended(&self, room_id: &RoomId, peer: &ServerName) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get_mut(room_id) {
            room.gaps.ended(peer);
            room.wakeup.notify_one();
        }
    }

    /// The next thing to do in a room, and how to hear of more; none when there is nothing, and nobody works on it then.
    pub(in crate::peers) fn next(&self, room_id: &RoomId) -> Option<(Todo, Arc<Notify>)> {
        let now = self.now();
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.get_mut(room_id)?;
        let todo = loop {
            match room.work.next(now) {
                Next::Compare(peer, extremities) => room.gaps.announced(&peer, extremities),
                Next::Ingest => break Todo::Ingest,
                Next::Wait(until) => break Todo::Wait(until.saturating_sub(now)),
                Next::Rest if room.gaps.is_idle() => {
                    rooms.remove(room_id);
                    return None;
                }
                Next::Rest => break Todo::Wait(Duration::MAX),
            }
        };
        Some((todo, Arc::clone(&room.wakeup)))
    }
}

impl RoomWork {
    /// The room has rows that are to be read from the database.
    pub(in crate::peers) fn has_stored(&mut self) {
        self.reads = true;
        self.work.arrived();
    }
}
