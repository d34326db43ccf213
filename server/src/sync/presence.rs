//! Presence in a sync response (client-server API, "Presence").

use std::collections::HashSet;

use ruma::{OwnedUserId, UserId};

use super::window::{JoinedWindow, Window};
use super::{Sync, SyncRequest, members};
use crate::accounts::Caller;
use crate::live::Passing;
use crate::store::rooms::StoredMembership;

/// The presence of members of larger rooms is not sent when the room is, nor that of those who join one.
const MEMBERS: usize = 200;

/// Those whose presence may have changed and is told to the caller: of the caller, and of the members of the caller's
/// rooms that are not too large. Costs grow with the members of these.
pub(super) fn of_those_met(
    sync: &Sync,
    caller: &Caller,
    memberships: &[StoredMembership],
    passing: &Passing,
) -> Vec<OwnedUserId> {
    if passing.presence.is_empty() && !passing.anything {
        return Vec::new();
    }
    let is_news = |user_id: &UserId| passing.anything || passing.presence.contains(user_id);
    let mut met = HashSet::new();
    let mut meet = |user_id: &UserId| {
        if is_news(user_id) && !met.contains(user_id) {
            met.insert(user_id.to_owned());
        }
    };
    meet(&caller.user_id);
    for membership in memberships.iter().map(|stored| &stored.membership) {
        let joined = || sync.rooms.repository.cache().get(membership.room);
        let Some(room) = (membership.membership == "join").then(joined).flatten() else {
            continue;
        };
        if room.member_count() <= sync.presence.most_told() {
            room.for_each_member(&mut meet);
        }
    }
    met.into_iter().collect()
}

/// Presence events of users whose presence is news, of those who have come into a room, and of all who are in a room that
/// is new to the device. Of the latter only of those who have been here: a client takes the others to be offline, but
/// it may have been told otherwise of those of the former whom the server has forgotten since.
pub(super) fn events(sync: &Sync, wish: &SyncRequest, window: &Window) -> Vec<String> {
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
    let reported: HashSet<&OwnedUserId> = known.iter().map(|(user_id, _)| user_id).collect();
    let forgotten = window
        .presence
        .iter()
        .filter(|user_id| !reported.contains(user_id) && filter.wants("m.presence", Some(user_id.as_str())));
    let offline = || serde_json::json!({ "presence": "offline" });
    let forgotten: Vec<_> = forgotten.map(|user_id| (user_id.clone(), offline())).collect();
    let event = |(sender, content)| {
        serde_json::json!({ "type": "m.presence", "sender": sender, "content": content }).to_string()
    };
    known.into_iter().chain(forgotten).map(event).collect()
}
