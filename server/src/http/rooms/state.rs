//! Reading a room's state and members (client-server API, "Getting events for a room").

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedMxcUri;
use ruma::api::client::membership::get_member_events::v3 as get_members;
use ruma::api::client::membership::joined_members::v3 as get_joined_members;
use ruma::api::client::state::get_state_event_for_key::v3 as get_state_event;
use ruma::api::client::state::get_state_events::v3 as get_state;

use super::history::token;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::raw_json::{Written, reader, write_state};
use crate::http::router::{Endpoints, Routes};
use crate::rooms::timeline::client_event_format::Recency;
use crate::server::Server;

/// The paths of a state event whose key is empty, which clients write with and without the last slash.
pub(super) const EMPTY_STATE_KEY: [&str; 4] = [
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
];

pub(in crate::http) fn routes() -> Routes {
    let routes = Routes::new()
        .endpoint::<get_state::Request, _>(state)
        .endpoint::<get_state_event::Request, _>(state_event)
        .endpoint::<get_members::Request, _>(members)
        .endpoint::<get_joined_members::Request, _>(joined_members);
    EMPTY_STATE_KEY.into_iter().fold(routes, |routes, path| {
        routes.serve(http::Method::GET, path, state_event)
    })
}

async fn state(
    State(server): State<Arc<Server>>,
    call: Call<get_state::Request>,
) -> Result<Written, ApiError> {
    let room = server
        .rooms
        .repository
        .room_to_read(&call.request.room_id)
        .await?;
    let events = server
        .rooms
        .state_reader
        .all_state(&call.caller.user_id, &room)
        .await?;
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&call.caller), &events, Recency::Live)
        .await?;
    let mut body = String::new();
    write_state(&mut body, &view, &events);
    Ok(Written::from(body))
}

async fn state_event(
    State(server): State<Arc<Server>>,
    call: Call<get_state_event::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let event_type = request.event_type.to_string();
    let stored = server
        .rooms
        .state_reader
        .one_state_event(&caller.user_id, &room, &event_type, &request.state_key)
        .await?;
    if request.format != get_state_event::StateEventFormat::Event {
        return Ok(Written::from(stored.event.content.as_str().to_owned()));
    }
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&caller), [&stored], Recency::Stored)
        .await?;
    let mut body = String::new();
    view.write(&mut body, &stored, None, true);
    Ok(Written::from(body))
}

async fn members(
    State(server): State<Arc<Server>>,
    call: Call<get_members::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let at = request.at.as_deref().map(token).transpose()?;
    let (membership, not_membership) = (request.membership, request.not_membership);
    let events = server
        .rooms
        .state_reader
        .member_events(
            &caller.user_id,
            &room,
            at,
            membership.as_ref().map(AsRef::as_ref),
            not_membership.as_ref().map(AsRef::as_ref),
        )
        .await?;
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&caller), &events, Recency::Live)
        .await?;
    let mut body = Written::new();
    body.state("chunk", &view, &events);
    Ok(body.finish())
}

async fn joined_members(
    State(server): State<Arc<Server>>,
    call: Call<get_joined_members::Request>,
) -> Reply<get_joined_members::Response> {
    let room = server
        .rooms
        .repository
        .room_to_read(&call.request.room_id)
        .await?;
    let members = server
        .rooms
        .state_reader
        .joined_members(&call.caller.user_id, &room)
        .await?;
    let joined: BTreeMap<_, _> = members
        .into_iter()
        .map(|(user_id, profile)| {
            let mut member = get_joined_members::RoomMember::new();
            member.display_name = profile.displayname;
            member.avatar_url = profile.avatar_url.map(OwnedMxcUri::from);
            (user_id, member)
        })
        .collect();
    Ok(Answer(get_joined_members::Response::new(joined)))
}
