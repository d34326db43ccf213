//! Rooms that the user is invited to or has knocked on, with the little that may be known of them.

use maru_protocol::state::State;

use super::answer::write_json;
use super::{Sync, answer};
use crate::refusal::Refusal;
use crate::store::rooms::StoredMembership;

/// Appends `"<room id>":{"invite_state":{…}}`, or `knock_state`.
pub(super) async fn write(
    out: &mut String,
    sync: &Sync,
    membership: &StoredMembership,
) -> Result<(), Refusal> {
    let events = events(sync, membership).await?;
    write_json(out, membership.room_id.as_str());
    let name = if membership.membership.membership == "knock" {
        "knock_state"
    } else {
        "invite_state"
    };
    out.push_str(&format!(":{{\"{name}\":{{\"events\":[{events}]}}}}"));
    Ok(())
}

/// What may be known of a room: stripped state events as JSON, with commas between.
pub(super) async fn events(sync: &Sync, membership: &StoredMembership) -> Result<String, Refusal> {
    match &membership.membership.stripped_state {
        Some(stripped) => Ok(stripped.trim_start_matches('[').trim_end_matches(']').to_owned()),
        None => of_local_room(sync, membership).await,
    }
}

/// The shown state of a room that this server is in, the user's own membership and that of who invited.
async fn of_local_room(sync: &Sync, membership: &StoredMembership) -> Result<String, Refusal> {
    let nid = membership.membership.event;
    let own = sync.rooms.repository.events(&[nid]).await?.remove(&nid);
    let state = match (
        &own,
        sync.rooms
            .repository
            .room_by_nid(membership.membership.room)
            .await?,
    ) {
        (_, Some(room)) => room.head().state.clone(),
        (Some(own), None) => match own.state {
            Some(nid) => sync.store.rooms.state(nid).await?,
            None => State::default(),
        },
        (None, None) => return Ok(String::new()),
    };
    let inviter = own.as_ref().map(|own| own.event.sender.clone());
    let mut events = sync
        .rooms
        .summaries
        .shown_state(&state, inviter.as_deref())
        .await?;
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
