//! The inbox: what peers sent and this server acknowledged is ingested here, each room by itself, so that a difficult
//! room never holds up another. What lacks something is left to [`filling`](crate::peers::backfill::gap_scheduler), so that within a room a
//! difficult event never holds up others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use maru_protocol::destinations;
use maru_protocol::event::Event;
use maru_protocol::gap::work::{Next, Work};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::{Notify, oneshot};

use super::drop_counters::Dropped;
use super::pdu_precheck::of_sender;
use crate::cache::Cache;
use crate::peers::Peers;
use crate::peers::backfill::gap_scheduler::{Before, GapQueue};
use crate::peers::inbound::verify::RoomFormat;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};
use crate::store::federation::inbox::InInbox;
use crate::store::log::inbound_commit::Receiving;
use crate::store::log::{Change, Record};

/// Events that are verified and judged together.
const TOGETHER: usize = 128;

/// Bytes of them after which no more are.
const BYTES_TOGETHER: usize = 8 * 1024 * 1024;

/// Bytes of events that are kept verified until their turn comes, two generations of as many: 4 MiB.
const VERIFIED_BYTES: usize = 4 * 1024 * 1024;

/// The pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);

/// Rows of one room that are handed over in memory and not looked at yet; the others are read from the database.
const HANDED_ROWS: usize = TOGETHER;

/// Bytes of the rows that are handed over, of all rooms: 4 MiB.
const HANDED_BYTES: usize = 4 * 1024 * 1024;

/// How long what a peer sent waits for the first of its events to be ingested, to be stored with it.
const FIRST_EVENT: Duration = Duration::from_millis(5);

/// An event with the server whose log it came by.
type OfPeer = (OwnedServerName, Incoming);

/// The rooms that are being worked on, with what there is to do in them.
#[derive(Debug)]
pub(in crate::peers) struct Inbox {
    rooms: Mutex<HashMap<OwnedRoomId, InWork>>,
    handed_bytes: AtomicUsize,
    /// Events that were verified when they came, by their rows; the others are verified when their turn comes.
    verified: Cache<i64, Arc<Event>>,
    since: Instant,
}

/// A room that is being worked on.
#[derive(Debug, Default)]
struct InWork {
    work: Work,
    filling: GapQueue,
    came: Arc<Notify>,
    handed: VecDeque<Handed>,
    /// Whether the room may have other rows than those, which have to be read.
    reads: bool,
}

/// Rows that are ingested while they are being stored, so that nobody waits for one commit before the other.
#[derive(Debug)]
struct Handed {
    rows: Vec<InInbox>,
    /// Tells that they are on disk; closed when they could not be stored, and their peer sends them again.
    stored: oneshot::Receiver<()>,
}

impl Handed {
    fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.arrived.json.len()).sum()
    }
}

/// What the worker of a room does next.
enum Todo {
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
    fn note(&self, room_id: &OwnedRoomId, note: impl FnOnce(&mut InWork)) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !rooms.contains_key(room_id);
        let room = rooms.entry(room_id.clone()).or_default();
        note(room);
        room.came.notify_one();
        is_new
    }

    /// Takes rows that are being stored, unless too much waits or older rows of the room have to be read first. Whether the
    /// caller is to work on the room, as in [`Inbox::note`]; none where the rows were not taken.
    fn hand_over(&self, room_id: &OwnedRoomId, handed: Handed) -> Option<bool> {
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
        room.came.notify_one();
        Some(is_new)
    }

    /// The oldest rows of a room that were handed over.
    fn take_handed(&self, room_id: &RoomId) -> Option<Handed> {
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

    fn with_room<T>(&self, room_id: &RoomId, look: impl FnOnce(&mut InWork) -> T) -> Option<T> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id).map(look)
    }

    /// The time that [`Work`] counts in.
    pub(in crate::peers) fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// Takes up an event that lacks something, so that its gap is filled. False where it has to wait.
    fn take_up(&self, room_id: &RoomId, peer: &ServerName, incoming: Incoming, row: i64) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms
            .get_mut(room_id)
            .is_some_and(|room| room.work.taken_up(row, peer) && room.filling.lacks(peer, incoming, row))
    }

    /// The next gap of a room to fill, until [`Inbox::gap_ended`].
    pub(in crate::peers) fn next_gap(&self, room_id: &RoomId) -> Option<(OwnedServerName, Before)> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id)?.filling.next()
    }

    /// The gap of a server in a room is not being filled any more: there may be more to do.
    pub(in crate::peers) fn gap_ended(&self, room_id: &RoomId, peer: &ServerName) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get_mut(room_id) {
            room.filling.ended(peer);
            room.came.notify_one();
        }
    }

    /// The next thing to do in a room, and how to hear of more; none when there is nothing, and nobody works on it then.
    fn next(&self, room_id: &RoomId) -> Option<(Todo, Arc<Notify>)> {
        let now = self.now();
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.get_mut(room_id)?;
        let todo = loop {
            match room.work.next(now) {
                Next::Compare(peer, extremities) => room.filling.told(&peer, extremities),
                Next::Ingest => break Todo::Ingest,
                Next::Wait(until) => break Todo::Wait(until.saturating_sub(now)),
                Next::Rest if room.filling.is_idle() => {
                    rooms.remove(room_id);
                    return None;
                }
                Next::Rest => break Todo::Wait(Duration::MAX),
            }
        };
        Some((todo, Arc::clone(&room.came)))
    }
}

impl InWork {
    /// The room has rows that are to be read from the database.
    fn has_stored(&mut self) {
        self.reads = true;
        self.work.arrived();
    }
}

impl Peers {
    /// Goes on with what waits in the inbox since the last run.
    pub(in crate::peers) async fn resume_inbox(self: &Arc<Self>) -> Result<(), Refusal> {
        let rooms = self.store.federation.rooms_with_inbox().await?;
        rooms.into_iter().for_each(|room_id| self.ingest_stored(room_id));
        Ok(())
    }

    /// Has ingested what is on disk of a room.
    fn ingest_stored(self: &Arc<Self>, room_id: OwnedRoomId) {
        if self.inbox.note(&room_id, InWork::has_stored) {
            self.begin_work(room_id);
        }
    }

    /// Has what a peer sent ingested, in rooms with little else to do at once and in the others when it is stored. Answers
    /// once all is on disk.
    ///
    /// # Errors
    /// When it could not be stored.
    pub(in crate::peers) async fn ingest(self: &Arc<Self>, receiving: Receiving<'_>) -> Result<(), Refusal> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<InInbox>> = BTreeMap::new();
        for row in receiving.rows().iter() {
            let of_room = by_room.entry(row.arrived.room_id.clone()).or_default();
            of_room.push(row.clone());
        }
        let (mut handed_over, mut later) = (Vec::new(), Vec::new());
        for (room_id, rows) in by_room {
            // What is not verified yet is of a room that is not in memory.
            let verified = rows.iter().all(|row| self.inbox.verified.get(&row.nid).is_some());
            let (on_disk, stored) = oneshot::channel();
            let handed = verified.then(|| self.inbox.hand_over(&room_id, Handed { rows, stored }));
            match handed.flatten() {
                Some(true) => self.begin_work(room_id),
                Some(false) => {}
                None => {
                    later.push(room_id);
                    continue;
                }
            }
            handed_over.push(on_disk);
        }
        let patience = match handed_over.is_empty() {
            true => Duration::ZERO,
            false => FIRST_EVENT,
        };
        receiving.stored(patience).await?;
        for on_disk in handed_over {
            let _ = on_disk.send(());
        }
        later.into_iter().for_each(|room_id| self.ingest_stored(room_id));
        Ok(())
    }

    /// Notes something to do in a room, and has it done.
    pub(in crate::peers) fn work_on(self: &Arc<Self>, room_id: OwnedRoomId, note: impl FnOnce(&mut Work)) {
        if self.inbox.note(&room_id, |room| note(&mut room.work)) {
            self.begin_work(room_id);
        }
    }

    /// Works on a room until there is nothing to do.
    fn begin_work(self: &Arc<Self>, room_id: OwnedRoomId) {
        let peers = Arc::clone(self);
        tokio::spawn(async move {
            while let Some((todo, came)) = peers.inbox.next(&room_id) {
                peers.begin_filling(&room_id);
                match todo {
                    Todo::Ingest => {
                        if let Err(refusal) = peers.work_off(&room_id).await {
                            tracing::warn!(%room_id, %refusal, "the inbox of a room waits");
                            tokio::time::sleep(PAUSE).await;
                            peers.inbox.with_room(&room_id, InWork::has_stored);
                        }
                    }
                    Todo::Wait(pause) => drop(tokio::time::timeout(pause, came.notified()).await),
                }
            }
        });
    }

    /// Works until nothing of the room is due.
    async fn work_off(self: &Arc<Self>, room_id: &OwnedRoomId) -> Result<(), Refusal> {
        while let Some(Handed { rows, stored }) = self.inbox.take_handed(room_id) {
            let first = rows.first().map(|row| row.nid);
            let left = self.ingest_handed(room_id, rows).await;
            // Whatever takes longer, or failed, goes on with what is on disk.
            if !matches!(left, Ok(false)) {
                first
                    .into_iter()
                    .for_each(|row| self.store.log.store_received(row));
                if stored.await.is_ok() {
                    self.inbox.with_room(room_id, InWork::has_stored);
                }
            }
            left?;
        }
        if self.inbox.with_room(room_id, |room| room.reads) != Some(true) {
            return Ok(());
        }
        loop {
            let now = self.inbox.now();
            let resting = self.inbox.with(room_id, |work| work.resting(now));
            let (resting, tables) = (resting.unwrap_or_default(), &self.store.federation);
            let rows = tables.inbox_of(room_id, resting, TOGETHER, BYTES_TOGETHER);
            let rows = rows.await?;
            if rows.is_empty() {
                return Ok(());
            }
            let all: Vec<_> = rows.iter().map(|row| row.nid).collect();
            let lacking = match self.settled(room_id).await? {
                Some(room) => {
                    let rows = self.admitted(&room, rows).await?;
                    self.take_in_rows(&room, rows).await?
                }
                None => {
                    self.outside_events(room_id, rows).await?;
                    Vec::new()
                }
            };
            self.inbox.with(room_id, |work| {
                let settled = all
                    .iter()
                    .filter(|row| !lacking.iter().any(|(_, _, lacks)| lacks == *row));
                settled.for_each(|row| work.settled(*row));
            });
            let mut waiting = Vec::new();
            for (peer, incoming, row) in lacking {
                if !self.inbox.take_up(room_id, &peer, incoming, row) {
                    waiting.push((row, peer));
                }
            }
            self.begin_filling(room_id);
            self.postpone(room_id, waiting).await;
        }
    }

    /// Ingests rows that were handed over, as far as that asks nobody else. Whether any are left.
    async fn ingest_handed(
        self: &Arc<Self>,
        room_id: &OwnedRoomId,
        rows: Vec<InInbox>,
    ) -> Result<bool, Refusal> {
        let Some(room) = self.settled(room_id).await? else {
            return Ok(true);
        };
        let rows = self.admitted(&room, rows).await?;
        Ok(!self.take_in_rows(&room, rows).await?.is_empty())
    }

    /// Takes in rows of one room, oldest first. Answers those that lack something, with their servers and events.
    async fn take_in_rows(
        &self,
        room: &Arc<Room>,
        rows: Vec<InInbox>,
    ) -> Result<Vec<(OwnedServerName, Incoming, i64)>, Refusal> {
        let (incoming, dropped) = self.verified(room, rows).await?;
        self.drop_rows(dropped).await?;
        let mut lacking = Vec::new();
        let events: Vec<Incoming> = incoming.iter().map(|(_, incoming)| incoming.clone()).collect();
        let taken = self.take_in(room, events).await?;
        for ((peer, incoming), taken) in incoming.into_iter().zip(taken) {
            match taken {
                Taken::Known(_) => {}
                Taken::Stored(verdict) => {
                    if let Some(reason) = verdict.reason {
                        tracing::debug!(event = %incoming.event.id, outcome = ?verdict.outcome, %reason, "not accepted");
                    }
                }
                Taken::Broken(why) => self.drop_judged(&peer, &incoming, Dropped::Broken(why)).await?,
                Taken::TooCostly => self.drop_judged(&peer, &incoming, Dropped::TooCostly).await?,
                Taken::Lacks { .. } => {
                    lacking.extend(incoming.inbox.map(|row| (peer, incoming.clone(), row)));
                }
            }
        }
        Ok(lacking)
    }

    /// The rows of those servers that the room's server ACL does not keep out; the others are dropped.
    async fn admitted(&self, room: &Room, rows: Vec<InInbox>) -> Result<Vec<InInbox>, Refusal> {
        let names: BTreeSet<OwnedServerName> = rows.iter().map(|row| row.server_name.clone()).collect();
        let mut kept_out = BTreeSet::new();
        for name in names {
            if !self.rooms.repository.admits(room, &name).await? {
                kept_out.insert(name);
            }
        }
        let (dropped, kept): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .partition(|row| kept_out.contains(&row.server_name));
        for row in &dropped {
            tracing::debug!(peer = %row.server_name, room = %room.room_id, "a peer that the room keeps out sent an event");
            self.drops.count(&Dropped::KeptOut);
        }
        self.drop_rows(dropped.iter().map(|row| row.nid).collect())
            .await?;
        Ok(kept)
    }

    /// Takes events into a room. A server that is found to be in it is told where it ends: what was sent while this server
    /// did not know of it was not meant for it. Where that is this server, what it missed meanwhile is fetched. One that
    /// says something and is not in it is told that it has left.
    ///
    /// # Errors
    /// Those of [`Ingest::ingest`](crate::rooms::Ingest::ingest).
    pub(in crate::peers) async fn take_in(
        &self,
        room: &Arc<Room>,
        events: Vec<Incoming>,
    ) -> Result<Vec<Taken>, Refusal> {
        // What is filled beside the inbox may bring the same events.
        let turn = self.rooms.ingest_locks.lock(&room.room_id).await;
        let known = Arc::clone(&room.head().servers);
        // By its log comes what a server has just said, also where that was fetched a moment before.
        let said = events
            .iter()
            .map(|incoming| incoming.inbox.map(|_| Arc::clone(&incoming.event)));
        let said: Vec<_> = said.collect();
        let taken = self.rooms.ingest.ingest(&turn, room, events).await?;
        let head = room.head();
        for (event, taken) in said.iter().zip(&taken) {
            if let (Some(event), Some(outcome)) = (event, taken.outcome())
                && destinations::is_stray(&head.servers, event.sender.server_name(), Some(outcome))
            {
                self.note_stray(event.sender.server_name(), room);
            }
        }
        let own = &self.identity.server_name;
        let came_in = !known.contains_key(own) && head.servers.contains_key(own);
        if room.take_new_gap() || came_in {
            // What is missing there is left to backfill.
            self.replicas.add(&room.room_id);
        }
        destinations::found(&known, &head.servers).for_each(|name| self.rpc.announce_extremities(name));
        Ok(taken)
    }

    /// The events that pass the checks that need no room, and the rows of those that do not.
    async fn verified(&self, room: &Room, rows: Vec<InInbox>) -> Result<(Vec<OfPeer>, Vec<i64>), Refusal> {
        let known: Vec<_> = rows.iter().map(|row| self.inbox.verified.get(&row.nid)).collect();
        let unknown = rows.iter().zip(&known).filter(|(_, event)| event.is_none());
        let texts = unknown.map(|(row, _)| Arc::clone(&row.arrived.json));
        let verified = self
            .verifier
            .verify_all(RoomFormat::of(room), texts.collect())
            .await?;
        let mut verified = verified.into_iter();
        let mut incoming = Vec::with_capacity(rows.len());
        let mut dropped = Vec::new();
        for (row, known) in rows.into_iter().zip(known) {
            let event = known.map(Ok).or_else(|| verified.next());
            let event = event.ok_or_else(|| Refusal::internal("fewer verdicts than events"))?;
            match event.and_then(|event| of_sender(event, &row.server_name)) {
                Ok(event) => {
                    let mut event = Incoming::live(event);
                    event.inbox = Some(row.nid);
                    incoming.push((row.server_name, event));
                }
                Err(why) => {
                    tracing::debug!(peer = %row.server_name, %why, "a peer sent an event that is dropped");
                    self.drops.count(&why);
                    self.throttle.dropped(&row.server_name);
                    dropped.push(row.nid);
                }
            }
        }
        Ok((incoming, dropped))
    }

    pub(in crate::peers) async fn drop_rows(&self, rows: Vec<i64>) -> Result<(), Refusal> {
        if !rows.is_empty() {
            let records = rows.into_iter().map(Record::Ingested).collect();
            self.store.log.append(Change::new(records)).await?;
        }
        Ok(())
    }
}
