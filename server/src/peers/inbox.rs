//! The inbox: what peers sent and this server acknowledged is ingested here, each room by itself, so that a difficult
//! room never holds up another.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use maru_protocol::event::Event;
use maru_protocol::gap::work::{Next, Work};
use maru_protocol::interest;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::{Notify, oneshot};

use super::Peers;
use super::dropped::Dropped;
use super::sorting::of_sender;
use crate::cache::Cache;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};
use crate::store::inbox::InInbox;
use crate::store::log::{Change, Pending, Record};

/// Events that are verified and judged together.
const TOGETHER: usize = 128;

/// Gaps of one peer that nobody helps with, of the events that are judged together, after which its other ones wait untried:
/// who makes up gaps keeps the room from nobody else.
const FAILED_GAPS: usize = 4;

/// Bytes of events that are kept verified until their turn comes, two generations of as many: 4 MiB.
const VERIFIED_BYTES: usize = 4 * 1024 * 1024;

/// The pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);

/// Rows of one room that are handed over in memory and not looked at yet; the others are read from the database.
const HANDED_ROWS: usize = TOGETHER;

/// Bytes of the rows that are handed over, of all rooms: 4 MiB.
const HANDED_BYTES: usize = 4 * 1024 * 1024;

/// An event with the server whose log it came by.
type OfPeer = (OwnedServerName, Incoming);

/// The rooms that are being worked on, with what there is to do in them.
#[derive(Debug)]
pub(super) struct Inbox {
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
    pub(super) fn remember(&self, rows: impl Iterator<Item = (i64, Option<Arc<Event>>)>) {
        for (row, event) in rows {
            if let Some(event) = event {
                self.verified.insert(row, event);
            }
        }
    }

    /// Looks at the work of a room, if it is being worked on.
    fn with<T>(&self, room_id: &RoomId, look: impl FnOnce(&mut InWork) -> T) -> Option<T> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id).map(look)
    }

    /// The next thing to do in a room, and how to hear of more; none when there is nothing, and nobody works on it then.
    fn next(&self, room_id: &RoomId) -> Option<(Next, Arc<Notify>)> {
        let now = self.since.elapsed();
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.get_mut(room_id)?;
        match room.work.next(now) {
            Next::Rest => {
                rooms.remove(room_id);
                None
            }
            next => Some((next, Arc::clone(&room.came))),
        }
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
    pub(super) async fn resume_inbox(self: &Arc<Self>) -> Result<(), Refusal> {
        let rooms = self.store.rooms_with_inbox().await?;
        rooms.into_iter().for_each(|room_id| self.ingest_stored(room_id));
        Ok(())
    }

    /// Has ingested what is on disk of a room.
    fn ingest_stored(self: &Arc<Self>, room_id: OwnedRoomId) {
        if self.inbox.note(&room_id, InWork::has_stored) {
            self.begin_work(room_id);
        }
    }

    /// Has rows ingested that come from a peer and are being stored, those of rooms with nothing else to do at once and the
    /// others after that. Answers once they are on disk.
    ///
    /// # Errors
    /// When they could not be stored.
    pub(super) async fn ingest(
        self: &Arc<Self>,
        rows: Arc<[InInbox]>,
        being_stored: Pending,
    ) -> Result<(), Refusal> {
        let mut by_room: BTreeMap<&OwnedRoomId, Vec<InInbox>> = BTreeMap::new();
        for row in rows.iter() {
            let of_room = by_room.entry(&row.arrived.room_id).or_default();
            of_room.push(row.clone());
        }
        let (mut handed_over, mut later) = (Vec::new(), Vec::new());
        for (room_id, rows) in by_room {
            // What is not verified yet is of a room that is not in memory.
            let verified = rows.iter().all(|row| self.inbox.verified.get(&row.nid).is_some());
            let (on_disk, stored) = oneshot::channel();
            let handed = verified.then(|| self.inbox.hand_over(room_id, Handed { rows, stored }));
            match handed.flatten() {
                Some(true) => self.begin_work(room_id.clone()),
                Some(false) => {}
                None => {
                    later.push(room_id.clone());
                    continue;
                }
            }
            handed_over.push(on_disk);
        }
        being_stored.wait().await?;
        for on_disk in handed_over {
            let _ = on_disk.send(());
        }
        later.into_iter().for_each(|room_id| self.ingest_stored(room_id));
        Ok(())
    }

    /// Notes something to do in a room, and has it done.
    pub(super) fn work_on(self: &Arc<Self>, room_id: OwnedRoomId, note: impl FnOnce(&mut Work)) {
        if self.inbox.note(&room_id, |room| note(&mut room.work)) {
            self.begin_work(room_id);
        }
    }

    /// Works on a room until there is nothing to do.
    fn begin_work(self: &Arc<Self>, room_id: OwnedRoomId) {
        let peers = Arc::clone(self);
        tokio::spawn(async move {
            while let Some((next, came)) = peers.inbox.next(&room_id) {
                match next {
                    Next::Ingest => {
                        if let Err(refusal) = peers.work_off(&room_id).await {
                            tracing::warn!(%room_id, %refusal, "the inbox of a room waits");
                            tokio::time::sleep(PAUSE).await;
                            peers.inbox.with(&room_id, InWork::has_stored);
                        }
                    }
                    Next::Compare(peer, extremities) => peers.compare(&room_id, &peer, extremities).await,
                    Next::Wait(until) => {
                        let pause = until.saturating_sub(peers.inbox.since.elapsed());
                        let _ = tokio::time::timeout(pause, came.notified()).await;
                    }
                    Next::Rest => return,
                }
            }
        });
    }

    /// Fetches what is missing up to where a peer's replica ends.
    async fn compare(
        self: &Arc<Self>,
        room_id: &OwnedRoomId,
        peer: &ServerName,
        extremities: Vec<OwnedEventId>,
    ) {
        let Ok(Some(room)) = self.heeded(room_id, peer).await else {
            return;
        };
        match self.close_gaps(&room, peer, extremities.clone()).await {
            Ok(true) => drop(self.inbox.with(room_id, |room| room.work.closed())),
            Ok(false) => {}
            Err(refusal) => {
                tracing::debug!(%peer, %room_id, %refusal, "a gap stays for now");
                self.compare_again(room_id.clone(), peer.to_owned(), extremities);
            }
        }
    }

    /// Tries later to fetch what could not be had, as long as the peer is there: one that comes back tells of it again.
    fn compare_again(
        self: &Arc<Self>,
        room_id: OwnedRoomId,
        peer: OwnedServerName,
        extremities: Vec<OwnedEventId>,
    ) {
        if !self.is_connected(&peer) {
            return;
        }
        let peers = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            if let Some(peers) = peers.upgrade() {
                peers.work_on(room_id, |work| work.told_before(peer, extremities));
            }
        });
    }

    /// Works until nothing of the room is due.
    async fn work_off(self: &Arc<Self>, room_id: &OwnedRoomId) -> Result<(), Refusal> {
        while let Some(Handed { rows, stored }) = self.inbox.take_handed(room_id) {
            let left = self.ingest_handed(room_id, rows).await;
            // Whatever takes longer, or failed, goes on with what is on disk.
            if !matches!(left, Ok(false)) && stored.await.is_ok() {
                self.inbox.with(room_id, InWork::has_stored);
            }
            left?;
        }
        if self.inbox.with(room_id, |room| room.reads) != Some(true) {
            return Ok(());
        }
        loop {
            let rows = self.due(room_id).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let all: Vec<_> = rows.iter().map(|row| row.nid).collect();
            let waiting = match self.settled(room_id).await? {
                Some(room) => {
                    let rows = self.admitted(&room, rows).await?;
                    let lacking = self.take_in_rows(&room, rows).await?;
                    self.fill_gaps(&room, lacking).await
                }
                None => {
                    self.outside_events(room_id, rows).await?;
                    Vec::new()
                }
            };
            self.postpone(room_id, &all, &waiting).await?;
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

    /// The oldest rows on disk whose turn it is.
    async fn due(&self, room_id: &OwnedRoomId) -> Result<Vec<InInbox>, Refusal> {
        let now = self.inbox.since.elapsed();
        let waiting = self.inbox.with(room_id, |room| room.work.waiting()).unwrap_or(0);
        let mut rows = self.store.inbox_of(room_id, TOGETHER + waiting).await?;
        self.inbox
            .with(room_id, |room| rows.retain(|row| room.work.is_due(row.nid, now)));
        rows.truncate(TOGETHER);
        Ok(rows)
    }

    /// Takes in rows of one room, oldest first. Answers what lacks its ancestors.
    async fn take_in_rows(&self, room: &Arc<Room>, rows: Vec<InInbox>) -> Result<Vec<OfPeer>, Refusal> {
        let (incoming, dropped) = self.verified(room, rows).await?;
        self.drop_rows(dropped).await?;
        let mut lacking = Vec::new();
        let events: Vec<Incoming> = incoming.iter().map(|(_, incoming)| incoming.clone()).collect();
        let taken = self.take_in(room, events).await?;
        for ((peer, incoming), taken) in incoming.into_iter().zip(taken) {
            match taken {
                Taken::Known => {}
                Taken::Stored(verdict) => {
                    if let Some(reason) = verdict.reason {
                        tracing::debug!(event = %incoming.event.id, outcome = ?verdict.outcome, %reason, "not accepted");
                    }
                }
                Taken::Broken(why) => {
                    tracing::warn!(event = %incoming.event.id, why, "dropped");
                    self.drops.count(&Dropped::Broken(why));
                    self.drop_rows(incoming.inbox.into_iter().collect()).await?;
                }
                Taken::Lacks { .. } => lacking.push((peer, incoming)),
            }
        }
        Ok(lacking)
    }

    /// Fetches what events lack, and takes them in. Answers the rows that have to wait.
    async fn fill_gaps(self: &Arc<Self>, room: &Arc<Room>, lacking: Vec<OfPeer>) -> Vec<i64> {
        let (mut waiting, mut failed) = (Vec::new(), HashMap::<_, usize>::new());
        for (peer, incoming) in lacking {
            let row = incoming.inbox;
            if failed.get(&peer).is_some_and(|failed| *failed >= FAILED_GAPS) {
                waiting.extend(row);
            } else if let Err(refusal) = self.fill_gap(room, &peer, incoming).await {
                tracing::debug!(%refusal, %peer, "a gap stays for now");
                waiting.extend(row);
                *failed.entry(peer).or_default() += 1;
            }
        }
        waiting
    }

    /// Of some rows that were tried, those that have to wait do, and those that have waited for too long are dropped.
    async fn postpone(&self, room_id: &RoomId, tried: &[i64], waiting: &[i64]) -> Result<(), Refusal> {
        let now = self.inbox.since.elapsed();
        let dropped = self.inbox.with(room_id, |room| {
            let settled = tried.iter().filter(|row| !waiting.contains(row));
            settled.for_each(|row| room.work.settled(*row));
            let mut dropped = waiting.to_vec();
            dropped.retain(|row| !room.work.postpone(*row, now));
            dropped
        });
        if let Some(dropped) = dropped.filter(|dropped| !dropped.is_empty()) {
            tracing::warn!(%room_id, events = dropped.len(), "events whose ancestors nobody gives are dropped");
            dropped
                .iter()
                .for_each(|_| self.drops.count(&Dropped::Unplaceable));
            self.drop_rows(dropped).await?;
        }
        Ok(())
    }

    /// The rows of those servers that the room's server ACL does not keep out; the others are dropped.
    async fn admitted(&self, room: &Room, rows: Vec<InInbox>) -> Result<Vec<InInbox>, Refusal> {
        let names: BTreeSet<OwnedServerName> = rows.iter().map(|row| row.server_name.clone()).collect();
        let mut kept_out = BTreeSet::new();
        for name in names {
            if !self.rooms.admits(room, &name).await? {
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
    /// Those of [`Rooms::take_in`](crate::rooms::Rooms::take_in).
    pub(super) async fn take_in(
        &self,
        room: &Arc<Room>,
        events: Vec<Incoming>,
    ) -> Result<Vec<Taken>, Refusal> {
        let known = Arc::clone(&room.head().servers);
        // By its log comes what a server has just said.
        let said = events
            .iter()
            .map(|incoming| incoming.inbox.map(|_| Arc::clone(&incoming.event)));
        let said: Vec<_> = said.collect();
        let taken = self.rooms.take_in(room, events).await?;
        let head = room.head();
        for (event, taken) in said.iter().zip(&taken) {
            if let (Some(event), Taken::Stored(verdict)) = (event, taken)
                && interest::is_stray(&head.servers, event.sender.server_name(), verdict.outcome)
            {
                self.note_stray(event.sender.server_name(), room);
            }
        }
        let own = &self.identity.server_name;
        if !known.contains_key(own) && head.servers.contains_key(own) {
            self.replicas.add(&room.room_id);
        }
        if let Some(road) = self.road.get() {
            let found = head.servers.keys().filter(|name| !known.contains_key(*name));
            found.for_each(|name| road.0.owe_extremities(name));
        }
        Ok(taken)
    }

    /// The events that pass the checks that need no room, and the rows of those that do not.
    async fn verified(&self, room: &Room, rows: Vec<InInbox>) -> Result<(Vec<OfPeer>, Vec<i64>), Refusal> {
        let known: Vec<_> = rows.iter().map(|row| self.inbox.verified.get(&row.nid)).collect();
        let unknown = rows.iter().zip(&known).filter(|(_, event)| event.is_none());
        let texts = unknown.map(|(row, _)| Arc::clone(&row.arrived.json));
        let verified = self.verify_all(self.subject(room), texts.collect()).await?;
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
                    dropped.push(row.nid);
                }
            }
        }
        Ok((incoming, dropped))
    }

    pub(super) async fn drop_rows(&self, rows: Vec<i64>) -> Result<(), Refusal> {
        if !rows.is_empty() {
            let records = rows.into_iter().map(Record::Ingested).collect();
            self.store.append(Change::new(records)).await?;
        }
        Ok(())
    }
}
