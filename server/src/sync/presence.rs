//! The presence that a device is told (client-server API, "Presence").

use std::collections::HashSet;

use ruma::OwnedUserId;

use super::window::{JoinedWindow, Window};
use super::{Sync, Wish, members};

/// The presence of members of larger rooms is not told when the room is, nor that of those who come into one.
const MEMBERS: usize = 200;

/// Presence events of users whose presence is news, of those who have come into a room, and of all who are in a room that
/// is new to the device.
pub(super) fn events(sync: &Sync, wish: &Wish, window: &Window) -> Vec<String> {
    let mut users: HashSet<OwnedUserId> = window.presence.iter().cloned().collect();
    let is_small = |joined: &&JoinedWindow| joined.room.member_count() <= MEMBERS;
    for joined in window.joined.values().filter(is_small) {
        if joined.entire {
            joined
                .room
                .for_each_member(|user_id| users.extend([user_id.to_owned()]));
            continue;
        }
        let members = joined.state_events().filter_map(|stored| {
            let user_id = members::subject(&stored.event)?;
            members::is_join(&stored.event).then(|| user_id.to_owned())
        });
        users.extend(members);
    }
    if users.is_empty() {
        return Vec::new();
    }
    let filter = &wish.filter.presence;
    let wanted = users
        .iter()
        .filter(|user_id| filter.wants("m.presence", Some(user_id.as_str())));
    let known = sync.presence.presence_of(wanted.map(|user_id| &**user_id));
    let event = |(sender, content)| {
        serde_json::json!({ "type": "m.presence", "sender": sender, "content": content }).to_string()
    };
    known.into_iter().map(event).collect()
}
