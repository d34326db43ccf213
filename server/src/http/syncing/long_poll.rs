//! Sync by long-poll (client-server API, "Syncing").

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Version, header};
use ruma::api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions, RoomEventFilter};
use ruma::api::client::sync::sync_events::v3 as sync_events;
use tokio::time::Instant;

use crate::accounts::{Caller, WatchedToken};
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Call, PresentedToken};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;
use crate::sync::{EventFilter, Filter, Session, StatePart, SyncRequest, SyncResponse};

/// Longest wait for something new.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(90);

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<sync_events::Request, _>(sync)
}

async fn sync(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Response> {
    // Boxed: a device that waits must not hold the memory of a request being read, which is much larger.
    let version = request.version();
    let mut poll = Box::pin(begin(&server, request)).await?;
    let answer = poll.answer(&server).await.map_err(IntoResponse::into_response)?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], answer.json).into_response();
    // The next connection may reach a node that stays. HTTP/2 says it in another way.
    if version < Version::HTTP_2 && server.notifier.is_leaving() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}

/// A device that polls.
struct Poll<'s> {
    session: Session<'s>,
    token: WatchedToken,
    deadline: Instant,
}

/// Reads a request.
async fn begin(server: &Arc<Server>, request: Request) -> Result<Poll<'_>, Response> {
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map(str::to_owned);
    let token = PresentedToken::from_request_parts(&mut parts, server).await;
    let token = token.map_err(IntoResponse::into_response)?;
    let request = Request::from_parts(parts, body);
    let call = Call::<sync_events::Request>::from_request(request, server).await?;
    let begun = Poll::begin(server, query.as_deref(), token, call).await;
    begun.map_err(IntoResponse::into_response)
}

impl<'s> Poll<'s> {
    async fn begin(
        server: &'s Arc<Server>,
        query: Option<&str>,
        token: PresentedToken,
        call: Call<sync_events::Request>,
    ) -> Result<Self, ApiError> {
        let Call { request, caller } = call;
        let deadline = Instant::now() + request.timeout.unwrap_or_default().min(LONGEST_WAIT);
        let wish = wish(server, &caller, &request, query).await?;
        let since = request.since.as_deref().map(cursor).transpose()?;
        server.presence.heartbeat(&caller.user_id, &request.set_presence);
        let session = server.sync.session(caller, since, wish).await?;
        if let Some(since) = since {
            session.acknowledge(since).await?;
        }
        let token = server.accounts.watch_caller(session.caller(), token.0).await?;
        Ok(Self {
            session,
            token,
            deadline,
        })
    }

    /// Answers, as soon as there is something to say or the time is over.
    async fn answer(&mut self, server: &Server) -> Result<SyncResponse, ApiError> {
        loop {
            // The device may have been logged out while it waited.
            self.session.heed_recalls();
            server.accounts.still_valid(&mut self.token).await?;
            if let Some(answer) = self.session.next(self.deadline).await? {
                return Ok(answer);
            }
        }
    }
}

/// A cursor that a device presents.
pub(in crate::http) fn cursor(text: &str) -> Result<maru_protocol::cursor::SinceToken, Refusal> {
    text.parse()
        .map_err(|_| Refusal::invalid("this `since` is not a token of this server"))
}

/// What a device wants, by its request.
pub(in crate::http) async fn wish(
    server: &Server,
    caller: &Caller,
    request: &sync_events::Request,
    query: Option<&str>,
) -> Result<SyncRequest, Refusal> {
    let filter = match &request.filter {
        None => Filter::everything(),
        Some(asked) => {
            let name = filter_name(caller, asked, query);
            match name.as_ref().and_then(|name| server.sync.filters.get(name)) {
                Some(known) => known,
                None => {
                    let read = read_filter(server, caller, asked).await?;
                    server.sync.filters.keep(name, read)
                }
            }
        }
    };
    // The name that clients used before the specification had it.
    let unstable = query.is_some_and(|query| query.contains("org.matrix.msc4222.use_state_after=true"));
    let state = match (request.use_state_after, unstable) {
        (true, _) => StatePart::After,
        (false, true) => StatePart::AfterUnstable,
        (false, false) => StatePart::Before,
    };
    Ok(SyncRequest {
        filter,
        full_state: request.full_state,
        state,
        opening: "",
    })
}

/// What a filter is known by: a stored one by its user and id, any other by its text as it stands in the query. None
/// where that does not say it.
fn filter_name(caller: &Caller, asked: &sync_events::Filter, query: Option<&str>) -> Option<String> {
    if let sync_events::Filter::FilterId(id) = asked {
        return Some(format!("{}/{id}", caller.user_id));
    }
    let mut parameters = query?.split('&');
    let text = parameters.find_map(|parameter| parameter.strip_prefix("filter="))?;
    Some(text.to_owned())
}

async fn read_filter(
    server: &Server,
    caller: &Caller,
    asked: &sync_events::Filter,
) -> Result<Filter, Refusal> {
    match asked {
        sync_events::Filter::FilterDefinition(definition) => filter(definition),
        sync_events::Filter::FilterId(id) => filter(&stored_filter(server, caller, id).await?),
        _ => Err(Refusal::invalid("this filter cannot be read")),
    }
}

async fn stored_filter(server: &Server, caller: &Caller, id: &str) -> Result<FilterDefinition, Refusal> {
    let unknown = || Refusal::invalid("there is no filter with this id");
    let number = id.parse().map_err(|_| unknown())?;
    let json = server
        .store
        .accounts
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
    let plain = |filter: &ruma::api::client::filter::Filter| EventFilter {
        types: filter.types.clone(),
        not_types: filter.not_types.clone(),
        senders: filter.senders.as_deref().map(names),
        not_senders: names(&filter.not_senders),
        ..EventFilter::default()
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
        rooms: EventFilter {
            rooms: room.rooms.as_deref().map(names),
            not_rooms: names(&room.not_rooms),
            ..EventFilter::default()
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

pub(in crate::http) fn wanted(filter: &RoomEventFilter) -> EventFilter {
    use ruma::api::client::filter::UrlFilter;
    EventFilter {
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
