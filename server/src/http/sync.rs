//! Sync by long-poll (client-server API, "Syncing").

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header;
use ruma::api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions, RoomEventFilter};
use ruma::api::client::sync::sync_events::v3 as sync_events;
use tokio::time::Instant;

use super::call::{Call, PresentedToken};
use super::error::ApiError;
use super::router::{Endpoints, Routes};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::sync::{Filter, Wanted, Wish};

/// Longest wait for something new.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<sync_events::Request, _>(sync)
}

async fn sync(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
    token: PresentedToken,
    call: Call<sync_events::Request>,
) -> Result<Response, ApiError> {
    let deadline = Instant::now() + call.request.timeout.unwrap_or_default().min(LONGEST_WAIT);
    let wish = Box::pin(wish(&server, &call.caller, &call.request, query.as_deref())).await?;
    let since = call.request.since.as_deref().map(cursor).transpose()?;
    server
        .presence
        .heartbeat(&call.caller.user_id, &call.request.set_presence);
    let mut session = server.sync.session(call.caller, since, wish);
    if let Some(since) = since {
        Box::pin(session.acknowledge(since)).await?;
    }
    let (_, mut token) = server.accounts.watch(token.0).await?;
    let answer = loop {
        // The device may have been logged out while it waited.
        session.heed_recalls();
        server.accounts.still_valid(&mut token).await?;
        if let Some(answer) = session.next(deadline).await? {
            break answer;
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], answer.json).into_response())
}

/// A cursor that a device presents.
pub(super) fn cursor(text: &str) -> Result<maru_protocol::cursor::SinceToken, Refusal> {
    text.parse()
        .map_err(|_| Refusal::invalid("this `since` is not a token of this server"))
}

/// What a device wants, by its request.
pub(super) async fn wish(
    server: &Server,
    caller: &Caller,
    request: &sync_events::Request,
    query: Option<&str>,
) -> Result<Wish, Refusal> {
    let filter = match &request.filter {
        None => Arc::default(),
        Some(sync_events::Filter::FilterDefinition(definition)) => Arc::new(filter(definition)?),
        Some(sync_events::Filter::FilterId(id)) => {
            Arc::new(filter(&stored_filter(server, caller, id).await?)?)
        }
        Some(_) => return Err(Refusal::invalid("this filter cannot be read")),
    };
    // The name that clients used before the specification had it.
    let unstable = query.is_some_and(|query| query.contains("org.matrix.msc4222.use_state_after=true"));
    Ok(Wish {
        filter,
        full_state: request.full_state,
        state_after: request.use_state_after || unstable,
        opening: "",
    })
}

async fn stored_filter(server: &Server, caller: &Caller, id: &str) -> Result<FilterDefinition, Refusal> {
    let unknown = || Refusal::invalid("there is no filter with this id");
    let number = id.parse().map_err(|_| unknown())?;
    let json = server
        .store
        .filter(&caller.user_id, number)
        .await?
        .ok_or_else(unknown)?;
    serde_json::from_str(&json).map_err(|error| Refusal::BadJson(error.to_string()))
}

/// The domain's form of a filter.
fn filter(definition: &FilterDefinition) -> Result<Filter, Refusal> {
    if definition.event_format == EventFormat::Federation {
        return Err(Refusal::invalid("events are given in the client format only"));
    }
    let plain = |filter: &ruma::api::client::filter::Filter| Wanted {
        types: filter.types.clone(),
        not_types: filter.not_types.clone(),
        senders: filter.senders.as_deref().map(names),
        not_senders: names(&filter.not_senders),
        ..Wanted::default()
    };
    let room = &definition.room;
    let lazy = [&room.state.lazy_load_options, &room.timeline.lazy_load_options];
    let redundant = |options: &&LazyLoadOptions| {
        matches!(
            options,
            LazyLoadOptions::Enabled {
                include_redundant_members: true
            }
        )
    };
    Ok(Filter {
        presence: plain(&definition.presence),
        account_data: plain(&definition.account_data),
        rooms: Wanted {
            rooms: room.rooms.as_deref().map(names),
            not_rooms: names(&room.not_rooms),
            ..Wanted::default()
        },
        timeline: wanted(&room.timeline),
        state: wanted(&room.state),
        ephemeral: wanted(&room.ephemeral),
        room_account_data: wanted(&room.account_data),
        include_leave: room.include_leave,
        lazy_load_members: lazy.iter().any(|options| !options.is_disabled()),
        include_redundant_members: lazy.iter().any(redundant),
        unread_thread_notifications: room.timeline.unread_thread_notifications,
    })
}

pub(super) fn wanted(filter: &RoomEventFilter) -> Wanted {
    use ruma::api::client::filter::UrlFilter;
    Wanted {
        types: filter.types.clone(),
        not_types: filter.not_types.clone(),
        senders: filter.senders.as_deref().map(names),
        not_senders: names(&filter.not_senders),
        rooms: filter.rooms.as_deref().map(names),
        not_rooms: names(&filter.not_rooms),
        contains_url: filter
            .url_filter
            .as_ref()
            .map(|url| *url == UrlFilter::EventsWithUrl),
        limit: filter
            .limit
            .map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)),
    }
}

/// Ids as plain text.
fn names(ids: &[impl ToString]) -> HashSet<String> {
    ids.iter().map(ToString::to_string).collect()
}
