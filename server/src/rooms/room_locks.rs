//! Turns: what is done to a room through other servers is done once at a time, so that two users who come in together
//! make one replica, and an event that comes by two ways is stored once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

/// Rooms that somebody has the turn at, or waits for it. Bounded by the requests in flight.
#[derive(Debug, Default)]
pub struct RoomLocks {
    rooms: Mutex<HashMap<OwnedRoomId, Weak<tokio::sync::Mutex<()>>>>,
}

/// The turn at a room, until it is dropped.
#[derive(Debug)]
pub struct RoomLock(#[expect(dead_code, reason = "held for as long as it lives")] OwnedMutexGuard<()>);

impl RoomLocks {
    /// Waits for the turn at a room.
    pub async fn take(&self, room_id: &RoomId) -> RoomLock {
        let turn = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            match rooms.get(room_id).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    rooms.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::default();
                    rooms.insert(room_id.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        RoomLock(turn.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use crate::rooms::room_locks::*;

    #[tokio::test]
    async fn a_room_has_one_turn_at_a_time_and_leaves_nothing_behind() {
        let turns = RoomLocks::default();
        let first = turns.take(room_id!("!a:x")).await;
        let other = turns.take(room_id!("!b:x")).await;
        let second = turns.take(room_id!("!a:x"));
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        drop(turns.take(room_id!("!c:x")).await);
        assert_eq!(turns.rooms.lock().unwrap().len(), 1);
    }
}
