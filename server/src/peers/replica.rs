//! Full replicas: the past of a room that this server has come into is fetched in the background, so that it outlives the
//! servers that have it now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use maru_protocol::gap::page::{PAGE, pause};
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::Notify;

use super::Peers;
use crate::refusal::Refusal;
use crate::rooms::Room;

/// Events that the past of one room may cost, with those of the states that are told for each page. What lies beyond is
/// fetched when somebody reads there.
const MOST_EVENTS: usize = 500_000;

/// A room whose past is not whole.
#[derive(Debug)]
struct Partial {
    room_id: OwnedRoomId,
    events_left: usize,
    failures: u32,
}

/// Rooms whose past is being fetched, a page of each in turn. Bounded by the rooms of this server.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    waiting: Mutex<VecDeque<Partial>>,
    came: Notify,
}

impl Replicas {
    /// Adds a room that this server has come into.
    pub(super) fn add(&self, room_id: &RoomId) {
        self.push(Partial {
            room_id: room_id.to_owned(),
            events_left: MOST_EVENTS,
            failures: 0,
        });
    }

    fn push(&self, partial: Partial) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.room_id == partial.room_id) {
            waiting.push_back(partial);
            self.came.notify_one();
        }
    }

    async fn take(&self) -> Partial {
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match next {
                Some(partial) => return partial,
                None => self.came.notified().await,
            }
        }
    }
}

impl Peers {
    /// Begins to make replicas whole, those of all rooms with other servers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn replicate(self: &Arc<Self>) -> Result<(), Refusal> {
        for room_id in self.store.rooms_with_others().await? {
            self.replicas.add(&room_id);
        }
        let peers = Arc::downgrade(self);
        tokio::spawn(make_whole(peers));
        Ok(())
    }

    /// Fetches one page of a room's past. None when that is all for now.
    async fn next_page(self: &Arc<Self>, mut partial: Partial) -> Result<Option<Partial>, Refusal> {
        let Some(room) = self.present(&partial.room_id).await? else {
            return Ok(None);
        };
        if room.head().servers.len() < 2 {
            return Ok(None);
        }
        let Some(gap) = self.newest_gap(&room).await? else {
            return Ok(None);
        };
        match self.backfill(&room, &gap).await {
            Ok(true) => {
                let Some(left) = partial.events_left.checked_sub(cost(&room)) else {
                    return Ok(None);
                };
                (partial.events_left, partial.failures) = (left, 0);
            }
            Ok(false) | Err(Refusal::Unavailable(_) | Refusal::NotFound(_) | Refusal::Forbidden(_)) => {
                partial.failures = partial.failures.saturating_add(1);
            }
            Err(refusal) => return Err(refusal),
        }
        Ok(Some(partial))
    }
}

/// Roughly what a page of a room's past costs: its events, and the state that is told for the earliest of them.
fn cost(room: &Room) -> usize {
    let members = usize::try_from(room.head().joined).unwrap_or(usize::MAX);
    members.saturating_mul(2).saturating_add(PAGE as usize)
}

async fn make_whole(peers: Weak<Peers>) {
    loop {
        let Some(replicas) = peers.upgrade().map(|peers| Arc::clone(&peers.replicas)) else {
            return;
        };
        let partial = replicas.take().await;
        let Some(peers) = peers.upgrade() else { return };
        let room_id = partial.room_id.clone();
        match peers.next_page(partial).await {
            Ok(Some(partial)) if partial.failures == 0 => replicas.push(partial),
            Ok(Some(partial)) => {
                tokio::spawn(async move {
                    tokio::time::sleep(pause(partial.failures)).await;
                    replicas.push(partial);
                });
            }
            Ok(None) => {}
            Err(refusal) => tracing::warn!(%room_id, %refusal, "the past of a room is not fetched"),
        }
    }
}
