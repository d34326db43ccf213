//! Locks of rooms by id, held over I/O: what is done to a room through other servers is done once at a time, so that two
//! users who join together make one replica, and an event that comes by two ways is stored once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

/// Locks of rooms that are held or waited for. As many as there are requests in flight, at most.
#[derive(Debug, Default)]
pub struct RoomLocks {
    rooms: Mutex<HashMap<OwnedRoomId, Weak<tokio::sync::Mutex<()>>>>,
}

/// A held lock of a room, released when dropped.
#[derive(Debug)]
pub struct RoomLock(#[expect(dead_code, reason = "held for as long as it lives")] OwnedMutexGuard<()>);

impl RoomLocks {
    /// Waits for the lock of a room; those who wait get it in order.
    pub async fn take(&self, room_id: &RoomId) -> RoomLock {
        let lock = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            match rooms.get(room_id).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    rooms.retain(|_, lock| lock.strong_count() > 0);
                    let lock = Arc::default();
                    rooms.insert(room_id.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        RoomLock(lock.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use crate::rooms::room_locks::*;

    #[tokio::test]
    async fn a_room_has_one_holder_at_a_time_and_leaves_nothing_behind() {
        let locks = RoomLocks::default();
        let first = locks.take(room_id!("!a:x")).await;
        let other = locks.take(room_id!("!b:x")).await;
        let second = locks.take(room_id!("!a:x"));
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        drop(locks.take(room_id!("!c:x")).await);
        assert_eq!(locks.rooms.lock().unwrap().len(), 1);
    }
}
