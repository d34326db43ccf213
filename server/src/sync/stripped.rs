//! Rooms that the user is invited to or has knocked on, with the little that may be known of them.

use std::sync::Arc;

use super::answer::write_json;
use super::{Sync, answer};
use crate::refusal::Refusal;
use crate::store::events::StoredEvent;
use crate::store::rooms::StoredMembership;

/// The state that an invited user is shown (client-server API, "Stripped state").
const SHOWN: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.topic",
    "m.room.encryption",
    "m.room.history_visibility",
];

/// Appends `"<room id>":{"invite_state":{…}}`, or `knock_state`.
pub(super) async fn write(
    out: &mut String,
    sync: &Sync,
    membership: &StoredMembership,
) -> Result<(), Refusal> {
    let events = match &membership.membership.stripped_state {
        Some(stripped) => stripped.trim_start_matches('[').trim_end_matches(']').to_owned(),
        None => of_local_room(sync, membership).await?,
    };
    write_json(out, membership.room_id.as_str());
    let name = if membership.membership.membership == "knock" {
        "knock_state"
    } else {
        "invite_state"
    };
    out.push_str(&format!(":{{\"{name}\":{{\"events\":[{events}]}}}}"));
    Ok(())
}

/// The shown state of a room that this server is in, the user's own membership and that of who invited.
async fn of_local_room(sync: &Sync, membership: &StoredMembership) -> Result<String, Refusal> {
    let nid = membership.membership.event;
    let own = sync.rooms.events(&[nid]).await?.remove(&nid);
    let state = match (&own, sync.rooms.room_by_nid(membership.membership.room).await?) {
        (_, Some(room)) => room.head().state.clone(),
        (Some(own), None) => {
            sync.store
                .state(own.state.ok_or_else(|| Refusal::internal("no state"))?)
                .await?
        }
        (None, None) => return Ok(String::new()),
    };
    let inviter = own.as_ref().map(|own| own.event.sender.to_string());
    let slots = SHOWN
        .iter()
        .map(|event_type| (*event_type, ""))
        .chain(inviter.iter().map(|id| ("m.room.member", &**id)));
    let nids: Vec<_> = slots
        .filter_map(|(kind, key)| state.get(&maru_protocol::auth::StateSlot::new(kind, key).hash()))
        .collect();
    let mut events: Vec<Arc<StoredEvent>> = sync.rooms.events(&nids).await?.into_values().collect();
    events.sort_unstable_by_key(|stored| stored.nid);
    events.extend(own);
    let stripped: Vec<String> = events
        .iter()
        .map(|stored| {
            let mut text = String::new();
            stored.event.write_stripped(&mut text);
            text
        })
        .collect();
    let mut list = String::new();
    answer::write_list(&mut list, stripped.iter().map(String::as_str));
    Ok(list)
}
