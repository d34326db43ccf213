//! What other nodes have committed, shown here as this process's own commits are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use maru_protocol::cursor::Place;

use super::CommitListeners;
use crate::rooms::{Room, RoomRepository};
use crate::store::StoreError;
use crate::store::log::{Committed, Follower, LogPage, Mirror, Record};

/// Keeps what is in memory current with other nodes' commits: rooms move on, inboxes fill, sessions wake.
#[derive(Debug)]
pub struct NodeFollower {
    listeners: Arc<CommitListeners>,
    /// Gone when the server is: the log's writer, which holds this, must not keep it.
    rooms: Weak<RoomRepository>,
    mirrors: Vec<Weak<dyn Mirror>>,
}

impl NodeFollower {
    /// Shows to `listeners`, and to `mirrors` before, what other nodes commit.
    #[must_use]
    pub fn new(
        listeners: Arc<CommitListeners>,
        rooms: &Arc<RoomRepository>,
        mirrors: Vec<Weak<dyn Mirror>>,
    ) -> Self {
        Self {
            listeners,
            rooms: Arc::downgrade(rooms),
            mirrors,
        }
    }

    async fn follow_page(&self, page: &LogPage) -> Result<(), StoreError> {
        let Some(repository) = self.rooms.upgrade() else {
            return Ok(());
        };
        for mirror in self.mirrors.iter().filter_map(Weak::upgrade) {
            mirror.follow(&page.records).await?;
        }
        // Users hear of a room as its members, so it has to be in memory, and to stay there meanwhile.
        let mut rooms = page.moved_rooms.clone();
        rooms.extend(page.records.iter().filter_map(room_of));
        rooms.sort_unstable();
        rooms.dedup();
        let followed = repository.rooms_to_follow(&rooms).await;
        let followed = followed.map_err(|refusal| StoreError::Unavailable(refusal.in_full()))?;
        self.listeners.show(&page.records, page.end, || {
            recount(&followed.rooms, &page.records);
            for head in followed.heads {
                if let Some(room) = followed.rooms.get(&head.room) {
                    room.follow_head(head);
                }
            }
        });
        Ok(())
    }
}

impl Follower for NodeFollower {
    fn follow<'f>(&'f self, page: &'f LogPage) -> BoxFuture<'f, Result<(), StoreError>> {
        Box::pin(self.follow_page(page))
    }
}

/// The room whose members a record is for.
fn room_of(committed: &Committed) -> Option<i64> {
    match &committed.record {
        Record::Event(stored) if stored.place.is_some_and(Place::is_live) => Some(stored.room),
        Record::Receipt(receipt) => Some(receipt.room),
        _ => None,
    }
}

/// Has rooms count their servers whose members have changed, and note when this server's events in them were made.
fn recount(rooms: &HashMap<i64, Arc<Room>>, records: &[Committed]) {
    let mut changed = BTreeSet::new();
    for committed in records {
        match &committed.record {
            Record::Membership(membership) => drop(changed.insert(membership.room)),
            Record::Event(stored) if stored.own => {
                if let Some(room) = rooms.get(&stored.room) {
                    room.note_made(stored.event.origin_server_ts);
                }
            }
            _ => {}
        }
    }
    for room in changed.iter().filter_map(|nid| rooms.get(nid)) {
        room.follow_members();
    }
}
