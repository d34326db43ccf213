//! Whose devices changed, and whose need no longer be followed (client-server API, "Tracking the device list for a
//! user").

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use super::window::Window;
use super::{Sync, members};
use crate::accounts::Caller;
use crate::refusal::Refusal;

/// Users whose device lists changed, and those with whom no room is shared any more.
#[derive(Debug, Default)]
pub struct DeviceLists {
    /// Users whose devices or keys changed, or who now share a room with the caller.
    pub changed: BTreeSet<OwnedUserId>,
    /// Users who share no room with the caller any more.
    pub left: Vec<OwnedUserId>,
}

/// The device lists of a window; empty for a first sync, in which a client asks for all keys anyway.
pub(super) async fn of(sync: &Sync, caller: &Caller, window: &Window) -> Result<DeviceLists, Refusal> {
    if window.since.is_none() {
        return Ok(DeviceLists::default());
    }
    let mut changed: BTreeSet<_> = window.device_lists.iter().cloned().collect();
    let mut gone = BTreeSet::new();
    for joined in window.joined.values() {
        if joined.entire {
            joined
                .room
                .for_each_member(|user_id| changed.extend([user_id.to_owned()]));
            continue;
        }
        for stored in joined.state_events() {
            let Some(user_id) = members::subject(&stored.event) else {
                continue;
            };
            if members::is_join(&stored.event) {
                changed.insert(user_id.to_owned());
            } else {
                gone.insert(user_id.to_owned());
            }
        }
    }
    for seen in window.left.iter().filter_map(|left| left.seen.as_ref()) {
        seen.room
            .for_each_member(|user_id| gone.extend([user_id.to_owned()]));
    }
    gone.remove(&caller.user_id);
    let gone: Vec<_> = gone.into_iter().collect();
    let left = sync.store.rooms.strangers_to(&caller.user_id, &gone).await?;
    changed.retain(|user_id| !left.contains(user_id));
    Ok(DeviceLists { changed, left })
}
