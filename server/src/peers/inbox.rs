//! The inbox: what peers sent and this server acknowledged is ingested here, each room by itself, so that a difficult
//! room never holds up another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ruma::{OwnedRoomId, OwnedServerName, RoomId};

use super::Peers;
use super::dropped::Dropped;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};
use crate::store::inbox::InInbox;
use crate::store::log::{Change, Record};

/// Events that are verified and judged together.
const TOGETHER: usize = 128;

/// How often an event whose ancestors cannot be had is tried before it is given up: its sender's extremities bring it back.
const ATTEMPTS: u32 = 8;

/// The first wait before an event is tried again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Which rooms are being worked on; `true` when more came meanwhile.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    working: Mutex<HashMap<OwnedRoomId, bool>>,
}

impl Inbox {
    /// Whether the caller is to work on a room: nobody else does.
    fn begin(&self, room_id: &OwnedRoomId) -> bool {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        match working.get_mut(room_id) {
            Some(more) => {
                *more = true;
                false
            }
            None => {
                working.insert(room_id.clone(), false);
                true
            }
        }
    }

    /// Ends work on a room, unless more came meanwhile.
    fn end(&self, room_id: &RoomId) -> bool {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        match working.get_mut(room_id) {
            Some(more) if *more => {
                *more = false;
                false
            }
            _ => {
                working.remove(room_id);
                true
            }
        }
    }
}

impl Peers {
    /// Goes on with what waits in the inbox since the last run.
    pub(super) async fn resume_inbox(self: &Arc<Self>) -> Result<(), Refusal> {
        let rooms = self.store.rooms_with_inbox().await?;
        rooms.into_iter().for_each(|room_id| self.work_on(room_id));
        Ok(())
    }

    /// Has a room's inbox worked off.
    pub(super) fn work_on(self: &Arc<Self>, room_id: OwnedRoomId) {
        if !self.inbox.begin(&room_id) {
            return;
        }
        let peers = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Err(refusal) = peers.work_off(&room_id).await {
                    tracing::warn!(%room_id, %refusal, "the inbox of a room waits");
                    tokio::time::sleep(FIRST_WAIT).await;
                    continue;
                }
                if peers.inbox.end(&room_id) {
                    return;
                }
            }
        });
    }

    /// Works until nothing of the room waits.
    async fn work_off(self: &Arc<Self>, room_id: &OwnedRoomId) -> Result<(), Refusal> {
        let mut attempts = 0;
        loop {
            let rows = self.store.inbox_of(room_id, TOGETHER).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let room = match self.rooms.room(room_id).await {
                Ok(room) => room,
                Err(Refusal::NotFound(_)) => {
                    self.outside_events(room_id, rows).await?;
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            let waiting = self.ingest(&room, rows).await?;
            if waiting.is_empty() {
                attempts = 0;
                continue;
            }
            attempts += 1;
            if attempts >= ATTEMPTS {
                tracing::warn!(%room_id, events = waiting.len(), "events whose ancestors nobody gives are dropped");
                waiting
                    .iter()
                    .for_each(|_| self.drops.count(&Dropped::Unplaceable));
                self.drop_rows(waiting).await?;
                attempts = 0;
                continue;
            }
            tokio::time::sleep(FIRST_WAIT * 2_u32.pow(attempts - 1)).await;
        }
    }

    /// Ingests rows of one room, oldest first. Answers the rows that have to wait.
    async fn ingest(self: &Arc<Self>, room: &Arc<Room>, rows: Vec<InInbox>) -> Result<Vec<i64>, Refusal> {
        let (incoming, dropped) = self.verified(room, rows);
        self.drop_rows(dropped).await?;
        let mut waiting = Vec::new();
        let events: Vec<Incoming> = incoming.iter().map(|(_, incoming)| incoming.clone()).collect();
        let taken = self.rooms.take_in(room, events).await?;
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
                Taken::Lacks { .. } => {
                    let row = incoming.inbox;
                    if let Err(refusal) = self.fill_gap(room, &peer, incoming).await {
                        tracing::debug!(%refusal, %peer, "a gap stays for now");
                        waiting.extend(row);
                    }
                }
            }
        }
        Ok(waiting)
    }

    /// The events that pass the checks that need no room, and the rows of those that do not.
    fn verified(&self, room: &Room, rows: Vec<InInbox>) -> (Vec<(OwnedServerName, Incoming)>, Vec<i64>) {
        let mut incoming = Vec::with_capacity(rows.len());
        let mut dropped = Vec::new();
        for row in rows {
            let event = self.verify(
                &row.arrived.json,
                &room.room_id,
                room.version,
                room.max_event_bytes,
            );
            let event = event.and_then(|event| match event.sender.server_name() == row.server_name {
                true => Ok(event),
                false => Err(Dropped::OtherServer),
            });
            match event {
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
        (incoming, dropped)
    }

    pub(super) async fn drop_rows(&self, rows: Vec<i64>) -> Result<(), Refusal> {
        if !rows.is_empty() {
            let records = rows.into_iter().map(Record::Ingested).collect();
            self.store.append(Change::new(records)).await?;
        }
        Ok(())
    }
}
