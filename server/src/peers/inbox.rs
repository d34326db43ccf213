//! The inbox: what peers sent and this server acknowledged is ingested here, each room by itself, so that a difficult
//! room never holds up another.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use maru_protocol::event::Event;
use maru_protocol::gap::work::{Next, Work};
use maru_protocol::interest;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::Notify;

use super::Peers;
use super::dropped::Dropped;
use super::sorting::of_sender;
use crate::cache::Cache;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};
use crate::store::inbox::InInbox;
use crate::store::log::{Change, Record};

/// Events that are verified and judged together.
const TOGETHER: usize = 128;

/// Gaps of one peer that nobody helps with, of the events that are judged together, after which its other ones wait untried:
/// who makes up gaps keeps the room from nobody else.
const FAILED_GAPS: usize = 4;

/// Bytes of events that are kept verified until their turn comes, two generations of as many: 4 MiB.
const VERIFIED_BYTES: usize = 4 * 1024 * 1024;

/// The pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);

/// The rooms that are being worked on, with what there is to do in them.
#[derive(Debug)]
pub(super) struct Inbox {
    rooms: Mutex<HashMap<OwnedRoomId, InWork>>,
    /// Events that were verified when they came, by their rows; the others are verified when their turn comes.
    verified: Cache<i64, Arc<Event>>,
    since: Instant,
}

/// A room that is being worked on.
#[derive(Debug, Default)]
struct InWork {
    work: Work,
    came: Arc<Notify>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            verified: Cache::weighing(VERIFIED_BYTES, |event| 2 * event.json.len()),
            since: Instant::now(),
        }
    }
}

impl Inbox {
    /// Notes something to do in a room. Whether the caller is to work on it: nobody else does.
    fn note(&self, room_id: &OwnedRoomId, note: impl FnOnce(&mut Work)) -> bool {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !rooms.contains_key(room_id);
        let room = rooms.entry(room_id.clone()).or_default();
        note(&mut room.work);
        room.came.notify_one();
        is_new
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
    fn with<T>(&self, room_id: &RoomId, look: impl FnOnce(&mut Work) -> T) -> Option<T> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get_mut(room_id).map(|room| look(&mut room.work))
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

impl Peers {
    /// Goes on with what waits in the inbox since the last run.
    pub(super) async fn resume_inbox(self: &Arc<Self>) -> Result<(), Refusal> {
        let rooms = self.store.rooms_with_inbox().await?;
        rooms
            .into_iter()
            .for_each(|room_id| self.work_on(room_id, Work::arrived));
        Ok(())
    }

    /// Notes something to do in a room, and has it done.
    pub(super) fn work_on(self: &Arc<Self>, room_id: OwnedRoomId, note: impl FnOnce(&mut Work)) {
        if !self.inbox.note(&room_id, note) {
            return;
        }
        let peers = Arc::clone(self);
        tokio::spawn(async move {
            while let Some((next, came)) = peers.inbox.next(&room_id) {
                match next {
                    Next::Ingest => {
                        if let Err(refusal) = peers.work_off(&room_id).await {
                            tracing::warn!(%room_id, %refusal, "the inbox of a room waits");
                            tokio::time::sleep(PAUSE).await;
                            peers.inbox.with(&room_id, Work::arrived);
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
            Ok(true) => drop(self.inbox.with(room_id, Work::closed)),
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
        loop {
            let now = self.inbox.since.elapsed();
            let waiting = self.inbox.with(room_id, |work| work.waiting()).unwrap_or(0);
            let mut rows = self.store.inbox_of(room_id, TOGETHER + waiting).await?;
            self.inbox
                .with(room_id, |work| rows.retain(|row| work.is_due(row.nid, now)));
            rows.truncate(TOGETHER);
            if rows.is_empty() {
                return Ok(());
            }
            let all: Vec<_> = rows.iter().map(|row| row.nid).collect();
            let waiting = match self.settled(room_id).await? {
                Some(room) => {
                    let rows = self.admitted(&room, rows).await?;
                    self.ingest(&room, rows).await?
                }
                None => {
                    self.outside_events(room_id, rows).await?;
                    Vec::new()
                }
            };
            let now = self.inbox.since.elapsed();
            let dropped = self.inbox.with(room_id, |work| {
                let settled = all.iter().filter(|row| !waiting.contains(row));
                settled.for_each(|row| work.settled(*row));
                let mut dropped = waiting.clone();
                dropped.retain(|row| !work.postpone(*row, now));
                dropped
            });
            if let Some(dropped) = dropped.filter(|dropped| !dropped.is_empty()) {
                tracing::warn!(%room_id, events = dropped.len(), "events whose ancestors nobody gives are dropped");
                dropped
                    .iter()
                    .for_each(|_| self.drops.count(&Dropped::Unplaceable));
                self.drop_rows(dropped).await?;
            }
        }
    }

    /// Ingests rows of one room, oldest first. Answers the rows that have to wait.
    async fn ingest(self: &Arc<Self>, room: &Arc<Room>, rows: Vec<InInbox>) -> Result<Vec<i64>, Refusal> {
        let (incoming, dropped) = self.verified(room, rows).await?;
        self.drop_rows(dropped).await?;
        let (mut waiting, mut failed) = (Vec::new(), HashMap::<_, usize>::new());
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
                Taken::Lacks { .. } if failed.get(&peer).is_some_and(|failed| *failed >= FAILED_GAPS) => {
                    waiting.extend(incoming.inbox);
                }
                Taken::Lacks { .. } => {
                    let row = incoming.inbox;
                    if let Err(refusal) = self.fill_gap(room, &peer, incoming).await {
                        tracing::debug!(%refusal, %peer, "a gap stays for now");
                        waiting.extend(row);
                        *failed.entry(peer).or_default() += 1;
                    }
                }
            }
        }
        Ok(waiting)
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
    async fn verified(
        &self,
        room: &Room,
        mut rows: Vec<InInbox>,
    ) -> Result<(Vec<(OwnedServerName, Incoming)>, Vec<i64>), Refusal> {
        let known: Vec<_> = rows.iter().map(|row| self.inbox.verified.get(&row.nid)).collect();
        let unknown = rows.iter_mut().zip(&known).filter(|(_, event)| event.is_none());
        let texts = unknown.map(|(row, _)| std::mem::take(&mut row.arrived.json));
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
