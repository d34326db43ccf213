//! Full replicas: the past of a room that this server has come into is fetched in the background, so that it outlives the
//! servers that have it now.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use maru_protocol::gap::page::{PAGE, pause};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::Notify;

use super::{MOST_WAITING, Peers};
use crate::fair_share::FairShare;
use crate::refusal::Refusal;
use crate::rooms::Room;

/// Events that the past of one room may cost, with those of the states that are told for each page. What lies beyond is
/// fetched when somebody reads there.
const MOST_EVENTS: usize = 500_000;

/// A room whose past is not whole.
#[derive(Clone, Debug)]
struct Partial {
    room_id: OwnedRoomId,
    events_left: usize,
    failures: u32,
}

/// Pages that are fetched at the same time in the background, each of up to 8 MiB.
const AT_ONCE: usize = 8;

/// Those of them that one server is asked for first.
const OF_ONE: usize = 2;

/// Rooms whose past is being fetched, a page of each in turn. Bounded by the rooms of this server.
#[derive(Debug)]
pub(super) struct Replicas {
    rooms: Mutex<Partials>,
    came: Notify,
    shares: FairShare<OwnedServerName>,
}

#[derive(Debug, Default)]
struct Partials {
    waiting: VecDeque<Partial>,
    /// Rooms of which a page is being fetched, and whether they are to be looked at again after that.
    running: HashMap<OwnedRoomId, bool>,
    /// Rooms of which a page was fetched in vain, with the number of their pause.
    paused: HashMap<OwnedRoomId, (u64, Partial)>,
    pauses: u64,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            came: Notify::new(),
            shares: FairShare::new(AT_ONCE, OF_ONE, MOST_WAITING),
        }
    }
}

impl Replicas {
    /// Adds a room that this server has come into, or in which something is missing.
    pub(super) fn add(&self, room_id: &RoomId) {
        let mut rooms = self.lock();
        if let Some(again) = rooms.running.get_mut(room_id) {
            *again = true;
            return;
        }
        rooms.paused.remove(room_id);
        if !rooms.waiting.iter().any(|other| other.room_id == room_id) {
            rooms.waiting.push_back(Partial::new(room_id));
            self.came.notify_one();
        }
    }

    /// The next room. It is being worked on until [`Replicas::ended`].
    async fn take(&self) -> Partial {
        loop {
            let next = {
                let mut rooms = self.lock();
                let next = rooms.waiting.pop_front();
                next.inspect(|next| {
                    rooms.running.insert(next.room_id.clone(), false);
                })
            };
            match next {
                Some(partial) => return partial,
                None => self.came.notified().await,
            }
        }
    }

    /// A page of a room was fetched, or was not given; what is left to do then. Answers how long the room is to rest before
    /// [`Replicas::rested`] if it was not.
    fn ended(&self, room_id: &RoomId, left: Option<Partial>) -> Option<(u64, Duration)> {
        let mut rooms = self.lock();
        let again = rooms.running.remove(room_id) == Some(true);
        let failures = left.as_ref().map_or(0, |left| left.failures);
        match left {
            _ if again => rooms.waiting.push_back(Partial::new(room_id)),
            None => return None,
            Some(left) if left.failures == 0 => rooms.waiting.push_back(left),
            Some(left) => {
                rooms.pauses += 1;
                let number = rooms.pauses;
                rooms.paused.insert(room_id.to_owned(), (number, left));
                return Some((number, pause(failures)));
            }
        }
        self.came.notify_one();
        None
    }

    /// A pause is over, unless something came in between.
    fn rested(&self, room_id: &RoomId, number: u64) {
        let mut rooms = self.lock();
        if rooms
            .paused
            .get(room_id)
            .is_some_and(|(paused, _)| *paused == number)
            && let Some((_, partial)) = rooms.paused.remove(room_id)
        {
            rooms.waiting.push_back(partial);
            self.came.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Partials> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    fn new(room_id: &RoomId) -> Self {
        Self {
            room_id: room_id.to_owned(),
            events_left: MOST_EVENTS,
            failures: 0,
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

    /// Fetches one page of a room's past, once it is its turn: few rooms at a time, and the servers that are asked first take
    /// turns, so that one that answers slowly holds up no rooms but its own. None when that is all for now.
    async fn next_page(self: &Arc<Self>, mut partial: Partial) -> Option<Partial> {
        match self.try_page(&mut partial).await {
            Ok(true) => return Some(partial),
            Ok(false) => return None,
            Err(refusal @ (Refusal::Unavailable(_) | Refusal::NotFound(_) | Refusal::Forbidden(_))) => {
                tracing::debug!(room_id = %partial.room_id, %refusal, "the past of a room is not fetched for now");
            }
            Err(refusal) => {
                tracing::warn!(room_id = %partial.room_id, %refusal, "the past of a room is not fetched for now");
            }
        }
        partial.failures = partial.failures.saturating_add(1);
        Some(partial)
    }

    /// Whether there is more to fetch.
    async fn try_page(self: &Arc<Self>, partial: &mut Partial) -> Result<bool, Refusal> {
        let Some(room) = self.present(&partial.room_id).await? else {
            return Ok(false);
        };
        let helpers = self.helpers(&room, None);
        let Some(first) = helpers.first() else {
            return Ok(false);
        };
        let share = self.replicas.shares.place(first.clone()).await;
        let _share = share.map_err(|_| Refusal::Unavailable(format!("too much of {first} waits")))?;
        let Some(gap) = self.newest_gap(&room).await? else {
            return Ok(false);
        };
        if !self.backfill(&room, &gap).await? {
            return Err(Refusal::Unavailable("nobody has what is missing".into()));
        }
        partial.failures = 0;
        let left = partial.events_left.checked_sub(cost(&room));
        partial.events_left = left.unwrap_or_default();
        Ok(left.is_some())
    }
}

/// Roughly what a page of a room's past costs: its events, and the state that is told for the earliest of them.
fn cost(room: &Room) -> usize {
    let members = usize::try_from(room.head().joined).unwrap_or(usize::MAX);
    members.saturating_mul(2).saturating_add(PAGE as usize)
}

/// Has a page of each room that is not whole fetched, and then the next. Each room is a task that waits for its turn.
async fn make_whole(peers: Weak<Peers>) {
    loop {
        let Some(replicas) = peers.upgrade().map(|peers| Arc::clone(&peers.replicas)) else {
            return;
        };
        let partial = replicas.take().await;
        let Some(peers) = peers.upgrade() else { return };
        tokio::spawn(async move {
            let room_id = partial.room_id.clone();
            let left = peers.next_page(partial).await;
            drop(peers);
            if let Some((number, pause)) = replicas.ended(&room_id, left) {
                tokio::time::sleep(pause).await;
                replicas.rested(&room_id, number);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[tokio::test]
    async fn a_room_is_worked_on_once_at_a_time_and_not_forgotten_meanwhile() {
        let (replicas, room) = (Replicas::default(), room_id!("!a:x"));
        replicas.add(room);
        let partial = replicas.take().await;
        replicas.add(room);
        assert!(replicas.lock().waiting.is_empty());
        // What was said meanwhile is heeded, though all was done by then.
        replicas.ended(room, None);
        assert_eq!(replicas.take().await.room_id, partial.room_id);
        replicas.ended(room, None);
        assert!(replicas.lock().running.is_empty());
    }

    #[tokio::test]
    async fn a_room_whose_past_nobody_gives_rests_until_something_comes() {
        let (replicas, room) = (Replicas::default(), room_id!("!a:x"));
        let in_vain = || Partial {
            failures: 3,
            ..Partial::new(room)
        };
        replicas.add(room);
        drop(replicas.take().await);
        let (first, _) = replicas.ended(room, Some(in_vain())).unwrap();
        assert!(replicas.lock().waiting.is_empty());
        replicas.rested(room, first);
        assert_eq!(replicas.take().await.failures, 3);
        let (second, _) = replicas.ended(room, Some(in_vain())).unwrap();
        replicas.add(room);
        assert_eq!(replicas.take().await.failures, 0);
        replicas.rested(room, second);
        assert!(replicas.lock().waiting.is_empty(), "that pause is over already");
    }
}
