//! Reading a room's history (client-server API, "Getting events for a room", "Event context" and "Jump to date").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::cursor::PageToken;
use ruma::MilliSecondsSinceUnixEpoch;
use ruma::UInt;
use ruma::api::client::context::get_context::v3 as get_context;
use ruma::api::client::filter::RoomEventFilter;
use ruma::api::client::message::get_message_events::v3 as get_messages;
use ruma::api::client::room::get_event_by_timestamp::v1 as get_event_by_timestamp;
use ruma::api::client::room::get_room_event::v3 as get_event;

use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::raw_json::{Written, reader};
use crate::http::router::{Endpoints, Routes};
use crate::http::syncing::long_poll::wanted;
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::{Recency, VisibleEvent};
use crate::rooms::timeline::history::PageRequest;
use crate::server::Server;
use crate::store::rooms::events::Direction;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_messages::Request, _>(messages)
        .endpoint::<get_context::Request, _>(context)
        .endpoint::<get_event::Request, _>(event)
        .endpoint::<get_event_by_timestamp::Request, _>(event_by_timestamp)
}

async fn messages(
    State(server): State<Arc<Server>>,
    call: Call<get_messages::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let filter = wanted(&request.filter);
    let asked = PageRequest {
        from: request.from.as_deref().map(token).transpose()?,
        to: request.to.as_deref().map(token).transpose()?,
        direction: direction(request.dir),
        limit: count(request.limit),
        wanted: &|event| filter.wants_event(event),
        lazy_members: lazy_members(&request.filter),
        passing: None,
    };
    let page = server
        .peers
        .history
        .messages(&caller.user_id, &room, asked)
        .await?;
    let events = page.chunk.iter().map(|seen| &seen.stored).chain(&page.state);
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&caller), events, Recency::Stored)
        .await?;
    let mut body = Written::new();
    body.text("start", &page.start.to_string());
    if let Some(end) = page.end {
        body.text("end", &end.to_string());
    }
    body.events("chunk", &view, &page.chunk);
    if !page.state.is_empty() {
        body.state("state", &view, &page.state);
    }
    Ok(body.finish())
}

async fn context(
    State(server): State<Arc<Server>>,
    call: Call<get_context::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let filter = wanted(&request.filter);
    let context = server
        .peers
        .history
        .context(
            &caller.user_id,
            &room,
            &request.event_id,
            count(request.limit),
            &|event| filter.wants_event(event),
            lazy_members(&request.filter),
        )
        .await?;
    let around = context
        .before
        .iter()
        .chain([&context.event])
        .chain(&context.after);
    let events = around.map(|seen| &seen.stored).chain(&context.state);
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&caller), events, Recency::Stored)
        .await?;
    let mut body = Written::new();
    body.text("start", &context.start.to_string());
    body.text("end", &context.end.to_string());
    body.events("events_before", &view, &context.before);
    body.event("event", &view, &context.event);
    body.events("events_after", &view, &context.after);
    body.state("state", &view, &context.state);
    Ok(body.finish())
}

async fn event(
    State(server): State<Arc<Server>>,
    call: Call<get_event::Request>,
) -> Result<Written, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let missing = |_| Refusal::not_found("there is no such event, or you may not see it");
    let room = server
        .rooms
        .repository
        .room_to_read(&request.room_id)
        .await
        .map_err(missing)?;
    let VisibleEvent { stored, membership } = server
        .peers
        .history
        .event(&caller.user_id, &room, &request.event_id)
        .await?;
    let view = server
        .rooms
        .client_events
        .unsigned_data(reader(&caller), [&stored], Recency::Stored)
        .await?;
    let mut body = String::new();
    view.write(&mut body, &stored, membership, true);
    Ok(Written::from(body))
}

async fn event_by_timestamp(
    State(server): State<Arc<Server>>,
    call: Call<get_event_by_timestamp::Request>,
) -> Reply<get_event_by_timestamp::Response> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room_to_read(&request.room_id).await?;
    let found = server
        .peers
        .history
        .event_at_time(
            &caller.user_id,
            &room,
            request.ts.get().into(),
            direction(request.dir),
        )
        .await?;
    let event = &found.stored.event;
    let sent = MilliSecondsSinceUnixEpoch(UInt::try_from(event.origin_server_ts).unwrap_or(UInt::MAX));
    Ok(Answer(get_event_by_timestamp::Response::new(
        event.id.clone(),
        sent,
    )))
}

/// A page token that a client presents.
pub(in crate::http) fn token(text: &str) -> Result<PageToken, Refusal> {
    text.parse()
        .map_err(|error| Refusal::invalid(format!("`{text}` is not a page token: {error}")))
}

pub(in crate::http) fn direction(asked: ruma::api::Direction) -> Direction {
    match asked {
        ruma::api::Direction::Backward => Direction::Backward,
        ruma::api::Direction::Forward => Direction::Forward,
    }
}

/// A number of events, however large.
pub(in crate::http) fn count(asked: UInt) -> usize {
    usize::try_from(u64::from(asked)).unwrap_or(usize::MAX)
}

fn lazy_members(filter: &RoomEventFilter) -> bool {
    !filter.lazy_load_options.is_disabled()
}
