//! Unread counts of the rooms in a window: from memory where the inbox knows them, else counted in one query.

use std::collections::HashMap;

use maru_protocol::cursor::Place;
use ruma::UserId;

use super::Sync;
use super::window::JoinedWindow;
use crate::live::{RoomUnread, UserInbox};
use crate::refusal::Refusal;
use crate::store::rooms::notifications::ReadUpTo;

/// The counts of these rooms for a user, by local number.
pub(super) async fn counts<'w>(
    sync: &Sync,
    user_id: &UserId,
    inbox: &UserInbox,
    rooms: impl Iterator<Item = &'w JoinedWindow> + Send,
) -> Result<HashMap<i64, RoomUnread>, Refusal> {
    let mut counts = HashMap::new();
    let since = inbox.begin_counting();
    let mut unknown: HashMap<i64, (ReadUpTo, Place)> = HashMap::new();
    for joined in rooms {
        let nid = joined.room.nid;
        match inbox.unread(nid) {
            Some(known) => drop(counts.insert(nid, known)),
            None => drop(unknown.insert(nid, (ReadUpTo::default(), joined.room.head().last_place))),
        }
    }
    if unknown.is_empty() {
        return Ok(counts);
    }
    read_up_to(sync, user_id, &mut unknown).await?;
    let mut stored = sync.store.rooms.unread(user_id, &unknown).await?;
    for (nid, (_, up_to)) in unknown {
        let threads = stored.remove(&nid).unwrap_or_default();
        counts.insert(
            nid,
            inbox.remember_unread(nid, RoomUnread::new(up_to, threads), since),
        );
    }
    Ok(counts)
}

/// How far the user has read, by the user's receipts, or since joining.
async fn read_up_to(
    sync: &Sync,
    user_id: &UserId,
    rooms: &mut HashMap<i64, (ReadUpTo, Place)>,
) -> Result<(), Refusal> {
    let nids: Vec<i64> = rooms.keys().copied().collect();
    for (room, place) in sync.store.rooms.joined_places(user_id, nids.clone()).await? {
        if let Some((read, _)) = rooms.get_mut(&room) {
            read.all = place;
        }
    }
    for receipt in sync.store.rooms.receipts_of(user_id, nids).await? {
        let Some((read, _)) = rooms.get_mut(&receipt.room) else {
            continue;
        };
        if receipt.thread.is_empty() {
            read.all = read.all.max(receipt.place);
        } else {
            let place = read.threads.entry(receipt.thread).or_default();
            *place = (*place).max(receipt.place);
        }
    }
    Ok(())
}
