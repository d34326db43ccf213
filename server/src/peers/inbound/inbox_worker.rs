//! The worker that ingests the inbox: each room by itself, so that a difficult room never holds up another. What lacks
//! something is left to gap fillers beside it, so that within a room a difficult event never holds up others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use maru_protocol::event::Event;
use maru_protocol::gap::work::Work;
use maru_protocol::wire::message::RoomExtremities;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};
use tokio::sync::oneshot;

use super::drop_counters::Dropped;
use super::inbox::{Handed, RoomWork, Todo};
use super::pdu_precheck::of_sender;
use crate::fair_semaphore::FairSemaphore;
use crate::peers::MOST_WAITING;
use crate::peers::backfill::gap_scheduler::{Before, IN_ALL, OF_ONE};
use crate::peers::backfill::missing_events::GapFiller;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::drop_counters::DropCounters;
use crate::peers::inbound::inbox::Inbox;
use crate::peers::inbound::ingestor::Ingestor;
use crate::peers::inbound::outside_events::OutsideEvents;
use crate::peers::inbound::throttle::Throttle;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::ingest::{Incoming, IngestResult};
use crate::store::Store;
use crate::store::federation::inbox::InInbox;
use crate::store::log::inbound_commit::Receiving;
use crate::store::log::{Change, Record};
use crate::tasks::Tasks;

/// Events that are verified and judged together.
const TOGETHER: usize = 128;

/// Bytes of them after which no more are.
const BYTES_TOGETHER: usize = 8 * 1024 * 1024;

/// The pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(2);

/// How long what a peer sent waits for the first of its events to be ingested, to be stored with it.
const FIRST_EVENT: Duration = Duration::from_millis(5);

/// The pause before what could not be had is looked for again.
const GAP_PAUSE: Duration = Duration::from_secs(2);

/// An event with the server whose log it came by.
type OfPeer = (OwnedServerName, Incoming);

/// Tasks that ingest received events, one for each room with something to do, and those that fill its gaps.
#[derive(Debug)]
pub(in crate::peers) struct InboxWorker {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    rpc: Arc<RpcClient>,
    verifier: Arc<EventVerifier>,
    drops: Arc<DropCounters>,
    throttle: Arc<Throttle>,
    ingestor: Arc<Ingestor>,
    gap_filler: Arc<GapFiller>,
    outside: Arc<OutsideEvents>,
    inbox: Inbox,
    gap_permits: FairSemaphore<OwnedServerName>,
    tasks: Arc<Tasks>,
}

impl InboxWorker {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        throttle: Arc<Throttle>,
        ingestor: Arc<Ingestor>,
        gap_filler: Arc<GapFiller>,
        outside: Arc<OutsideEvents>,
    ) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            rpc: Arc::clone(&dependencies.rpc),
            verifier: Arc::clone(&dependencies.verifier),
            drops: Arc::clone(&dependencies.drops),
            throttle,
            ingestor,
            gap_filler,
            outside,
            inbox: Inbox::default(),
            gap_permits: FairSemaphore::new(IN_ALL, OF_ONE, MOST_WAITING),
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// Goes on with what waits in the inbox since the last run.
    pub(in crate::peers) async fn resume(self: &Arc<Self>) -> Result<(), Refusal> {
        let rooms = self.store.federation.rooms_with_inbox().await?;
        rooms.into_iter().for_each(|room_id| self.ingest_stored(room_id));
        Ok(())
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
                Some(true) => self.spawn_worker(room_id),
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

    /// Has ingested what is on disk of a room.
    fn ingest_stored(self: &Arc<Self>, room_id: OwnedRoomId) {
        if self.inbox.note(&room_id, RoomWork::has_stored) {
            self.spawn_worker(room_id);
        }
    }

    /// Keeps the events of rows that were verified when they came.
    pub(in crate::peers) fn remember(&self, rows: impl Iterator<Item = (i64, Option<Arc<Event>>)>) {
        self.inbox.remember(rows);
    }

    /// Notes something to do in a room, and has it done.
    pub(in crate::peers) fn work_on(self: &Arc<Self>, room_id: OwnedRoomId, note: impl FnOnce(&mut Work)) {
        if self.inbox.note(&room_id, |room| note(&mut room.work)) {
            self.spawn_worker(room_id);
        }
    }

    /// Has what is missing up to where a peer's replicas end fetched in the background, each room by itself.
    pub(in crate::peers) fn compare_all(self: &Arc<Self>, peer: &ServerName, rooms: Vec<RoomExtremities>) {
        for room in rooms {
            self.work_on(room.room_id, |work| work.told(peer.to_owned(), room.extremities));
        }
    }

    /// Works on a room until there is nothing to do.
    fn spawn_worker(self: &Arc<Self>, room_id: OwnedRoomId) {
        let worker = Arc::clone(self);
        self.tasks.until_stop("room_inbox", async move {
            while let Some((todo, wakeup)) = worker.inbox.next(&room_id) {
                worker.spawn_gap_fillers(&room_id);
                match todo {
                    Todo::Ingest => {
                        if let Err(refusal) = worker.drain(&room_id).await {
                            tracing::warn!(%room_id, %refusal, "the inbox of a room waits");
                            tokio::time::sleep(PAUSE).await;
                            worker.inbox.with_room(&room_id, RoomWork::has_stored);
                        }
                    }
                    Todo::Wait(pause) => drop(tokio::time::timeout(pause, wakeup.notified()).await),
                }
            }
        });
    }

    /// Works until nothing of the room is due.
    async fn drain(self: &Arc<Self>, room_id: &OwnedRoomId) -> Result<(), Refusal> {
        while let Some(Handed { rows, stored }) = self.inbox.take_handed(room_id) {
            let first = rows.first().map(|row| row.nid);
            let left = self.ingest_handed(room_id, rows).await;
            // Whatever takes longer, or failed, goes on with what is on disk.
            if !matches!(left, Ok(false)) {
                first
                    .into_iter()
                    .for_each(|row| self.store.log.store_received(row));
                if stored.await.is_ok() {
                    self.inbox.with_room(room_id, RoomWork::has_stored);
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
            let lacking = match self.local.settled(room_id).await? {
                Some(room) => {
                    let rows = self.admitted(&room, rows).await?;
                    self.take_in_rows(&room, rows).await?
                }
                None => {
                    self.outside.process(room_id, rows).await?;
                    self.drop_rows(all.clone()).await?;
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
            self.spawn_gap_fillers(room_id);
            self.postpone(room_id, waiting).await;
        }
    }

    /// Ingests rows that were handed over, as far as that asks nobody else. Whether any are left.
    async fn ingest_handed(
        self: &Arc<Self>,
        room_id: &OwnedRoomId,
        rows: Vec<InInbox>,
    ) -> Result<bool, Refusal> {
        let Some(room) = self.local.settled(room_id).await? else {
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
        let taken = self.ingestor.take_in(room, events).await?;
        for ((peer, incoming), taken) in incoming.into_iter().zip(taken) {
            match taken {
                IngestResult::Known(_) => {}
                IngestResult::Stored(verdict) => {
                    if let Some(reason) = verdict.reason {
                        tracing::debug!(event = %incoming.event.id, outcome = ?verdict.outcome, %reason, "not accepted");
                    }
                }
                IngestResult::Broken(why) => self.drop_judged(&peer, &incoming, Dropped::Broken(why)).await?,
                IngestResult::TooCostly => self.drop_judged(&peer, &incoming, Dropped::TooCostly).await?,
                IngestResult::Lacks { .. } => {
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

    /// Drops an event on which there is no verdict.
    ///
    /// # Errors
    /// When its row of the inbox stays.
    pub(in crate::peers) async fn drop_judged(
        &self,
        peer: &ServerName,
        incoming: &Incoming,
        why: Dropped,
    ) -> Result<(), Refusal> {
        tracing::warn!(%peer, event = %incoming.event.id, %why, "dropped");
        self.drops.count(&why);
        self.throttle.dropped(peer);
        self.drop_rows(incoming.inbox.into_iter().collect()).await
    }

    pub(in crate::peers) async fn drop_rows(&self, rows: Vec<i64>) -> Result<(), Refusal> {
        if !rows.is_empty() {
            let records = rows.into_iter().map(Record::Ingested).collect();
            self.store.log.append(Change::new(records)).await?;
        }
        Ok(())
    }

    /// Spawns a task for each gap of a room that may be filled now.
    pub(in crate::peers) fn spawn_gap_fillers(self: &Arc<Self>, room_id: &OwnedRoomId) {
        while let Some((peer, before)) = self.inbox.next_gap(room_id) {
            let (worker, room_id) = (Arc::clone(self), room_id.clone());
            self.tasks.until_stop("gap_filler", async move {
                match before {
                    Before::Event(incoming, row) => worker.fill_for(&room_id, &peer, incoming, row).await,
                    Before::End(extremities) => worker.compare(&room_id, &peer, extremities).await,
                }
                worker.inbox.gap_ended(&room_id, &peer);
            });
        }
    }

    /// Fills the gap before an event of the inbox.
    async fn fill_for(
        self: &Arc<Self>,
        room_id: &OwnedRoomId,
        peer: &ServerName,
        incoming: Incoming,
        row: i64,
    ) {
        let filled = async {
            let permit = self.gap_permits.acquire(peer.to_owned()).await;
            let _permit =
                permit.map_err(|_| Refusal::Unavailable("too many gaps of a server wait".into()))?;
            match self.local.settled(room_id).await? {
                Some(room) => self
                    .gap_filler
                    .fill_before(&room, peer, incoming)
                    .await
                    .map(|()| true),
                None => Ok(false),
            }
        };
        match filled.await {
            Ok(filled) => self.inbox.with(room_id, |work| {
                work.settled(row);
                if filled {
                    work.closed();
                } else {
                    work.arrived();
                }
            }),
            Err(refusal) => {
                tracing::debug!(%refusal, %peer, "a gap stays for now");
                self.postpone(room_id, vec![(row, peer.to_owned())]).await;
                None
            }
        };
    }

    /// Lets rows of the inbox wait for what they lack. Those for which there is no room are dropped.
    pub(in crate::peers) async fn postpone(
        &self,
        room_id: &OwnedRoomId,
        mut rows: Vec<(i64, OwnedServerName)>,
    ) {
        let now = self.inbox.now();
        self.inbox.with(room_id, |work| {
            rows.retain(|(row, peer)| !work.postpone(*row, peer, now));
        });
        if rows.is_empty() {
            return;
        }
        tracing::warn!(%room_id, events = rows.len(), "events whose ancestors nobody gives are dropped");
        for (_, peer) in &rows {
            self.drops.count(&Dropped::Unplaceable);
            self.throttle.dropped(peer);
        }
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        if let Err(refusal) = self.drop_rows(rows).await {
            tracing::warn!(%room_id, %refusal, "rows of the inbox stay");
        }
    }

    /// Fetches what is missing up to where a peer's replica ends.
    async fn compare(
        self: &Arc<Self>,
        room_id: &OwnedRoomId,
        peer: &ServerName,
        extremities: Vec<OwnedEventId>,
    ) {
        let Ok(_permit) = self.gap_permits.acquire(peer.to_owned()).await else {
            return self.compare_again(room_id.clone(), peer.to_owned(), extremities);
        };
        let Ok(Some(room)) = self.local.heeded(room_id, peer).await else {
            return;
        };
        match self.gap_filler.fill_up_to(&room, peer, extremities.clone()).await {
            Ok(true) => drop(self.inbox.with(room_id, Work::closed)),
            Ok(false) => {}
            Err(refusal) => {
                tracing::debug!(%peer, %room_id, %refusal, "a gap stays for now");
                self.compare_again(room_id.clone(), peer.to_owned(), extremities);
            }
        }
    }

    /// Tries later to fetch what could not be had, as long as the peer is there: one that comes back announces it again.
    fn compare_again(
        self: &Arc<Self>,
        room_id: OwnedRoomId,
        peer: OwnedServerName,
        extremities: Vec<OwnedEventId>,
    ) {
        if !self.rpc.is_connected(&peer) {
            return;
        }
        let worker = Arc::downgrade(self);
        self.tasks.until_stop("gap_pause", async move {
            tokio::time::sleep(GAP_PAUSE).await;
            if let Some(worker) = worker.upgrade() {
                worker.work_on(room_id, |work| work.told_before(peer, extremities));
            }
        });
    }
}
