//! What was said about an event, and threads (client-server API, "Relationships API" and "Querying threads in a room").

use std::sync::Arc;

use axum::extract::State;
use ruma::OwnedRoomId;
use ruma::api::client::relations::{
    get_relating_events::v1 as get_relations, get_relating_events_with_rel_type::v1 as get_relations_of_kind,
    get_relating_events_with_rel_type_and_event_type::v1 as get_relations_of_kind_and_type,
};
use ruma::api::client::threads::get_threads::v1 as get_threads;

use super::history::{count, direction, token};
use crate::accounts::Caller;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::Call;
use crate::http::codec::raw_json::{Written, reader};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::Recency;
use crate::rooms::timeline::relations::{DEEPEST, Related, RelationsRequest};
use crate::server::Server;

/// Events on a page when the client does not say.
const DEFAULT_EVENTS: usize = 20;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_relations::Request, _>(relations)
        .endpoint::<get_relations_of_kind::Request, _>(relations_of_kind)
        .endpoint::<get_relations_of_kind_and_type::Request, _>(relations_of_kind_and_type)
        .endpoint::<get_threads::Request, _>(threads)
}

/// The part of the request that the three endpoints share.
macro_rules! asked_for {
    ($request:expr, $kind:expr, $event_type:expr) => {
        RelationsRequest {
            event_id: &$request.event_id,
            kind: $kind,
            event_type: $event_type,
            recurse: $request.recurse,
            from: $request.from.as_deref().map(token).transpose()?,
            to: $request.to.as_deref().map(token).transpose()?,
            direction: direction($request.dir),
            limit: $request.limit.map_or(DEFAULT_EVENTS, count),
        }
    };
}

async fn relations(
    State(server): State<Arc<Server>>,
    call: Call<get_relations::Request>,
) -> Result<Written, ApiError> {
    let request = &call.request;
    let asked = asked_for!(request, None, None);
    Ok(related(&server, &call.caller, &request.room_id, asked).await?)
}

async fn relations_of_kind(
    State(server): State<Arc<Server>>,
    call: Call<get_relations_of_kind::Request>,
) -> Result<Written, ApiError> {
    let request = &call.request;
    let kind = request.rel_type.to_string();
    let asked = asked_for!(request, Some(kind.as_str()), None);
    Ok(related(&server, &call.caller, &request.room_id, asked).await?)
}

async fn relations_of_kind_and_type(
    State(server): State<Arc<Server>>,
    call: Call<get_relations_of_kind_and_type::Request>,
) -> Result<Written, ApiError> {
    let request = &call.request;
    let (kind, event_type) = (request.rel_type.to_string(), request.event_type.to_string());
    let asked = asked_for!(request, Some(kind.as_str()), Some(event_type.as_str()));
    Ok(related(&server, &call.caller, &request.room_id, asked).await?)
}

async fn related(
    server: &Server,
    caller: &Caller,
    room_id: &OwnedRoomId,
    asked: RelationsRequest<'_>,
) -> Result<Written, Refusal> {
    let room = server.rooms.repository.room_to_read(room_id).await?;
    let (from, recurse) = (asked.from, asked.recurse);
    let related = server
        .rooms
        .timeline
        .related(&caller.user_id, &room, asked)
        .await?;
    let mut body = written(server, caller, &related).await?;
    if let Some(from) = from {
        body.text("prev_batch", &from.to_string());
    }
    if recurse {
        body.number("recursion_depth", DEEPEST);
    }
    Ok(body.finish())
}

async fn threads(
    State(server): State<Arc<Server>>,
    call: Call<get_threads::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let from = request.from.as_deref().map(token).transpose()?;
    let participated = request.include == get_threads::IncludeThreads::Participated;
    let limit = request.limit.map_or(DEFAULT_EVENTS, count);
    let roots = server
        .rooms
        .timeline
        .threads(&caller.user_id, &room, participated, from, limit)
        .await?;
    Ok(written(&server, &caller, &roots).await?.finish())
}

/// The fields that every list of related events has.
async fn written(server: &Server, caller: &Caller, related: &Related) -> Result<Written, Refusal> {
    let events = related.chunk.iter().map(|seen| &seen.stored);
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(caller), events, Recency::Stored)
        .await?;
    let mut body = Written::new();
    body.events("chunk", &view, &related.chunk);
    if let Some(next) = related.next {
        body.text("next_batch", &next.to_string());
    }
    Ok(body)
}
