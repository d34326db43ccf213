//! Sliding sync (MSC4186), in its accepted form and in the older one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, Version, header};
use maru_protocol::cursor::SlidingToken;
use ruma::api::auth_scheme::AccessToken;
use ruma::presence::PresenceState;
use tokio::time::Instant;

use super::long_poll::LONGEST_WAIT;
use super::sliding_body::{Body, Parameters};
use crate::accounts::{Caller, WatchedToken};
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Authenticated, PresentedToken, read_json};
use crate::http::router::Routes;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::sync::sliding::SlidingSession;
use crate::sync::sliding::request::Dialect;

/// The path as MSC4186 was accepted.
const PATH: &str = "/_matrix/client/v4/sync";

/// The path by which clients spoke it before.
const SIMPLIFIED_PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .serve(Method::POST, PATH, sync)
        .serve(Method::POST, SIMPLIFIED_PATH, simplified_sync)
}

async fn sync(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Response> {
    answer(&server, request, Dialect::V4).await
}

async fn simplified_sync(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Response> {
    answer(&server, request, Dialect::Simplified).await
}

async fn answer(server: &Arc<Server>, request: Request, dialect: Dialect) -> Result<Response, Response> {
    let version = request.version();
    // Boxed: a device that waits must not hold the memory of a request being read, which is much larger.
    let mut poll = Box::pin(begin(server, request, dialect)).await?;
    let json = poll.answer(server).await.map_err(IntoResponse::into_response)?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    // The next connection may reach a node that stays. HTTP/2 says it in another way.
    if version < Version::HTTP_2 && server.notifier.is_leaving() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}

/// A device that asks.
struct Poll<'s> {
    session: SlidingSession<'s>,
    token: WatchedToken,
    deadline: Instant,
}

/// Reads a request.
async fn begin(server: &Arc<Server>, request: Request, dialect: Dialect) -> Result<Poll<'_>, Response> {
    let (mut parts, body) = request.into_parts();
    let token = PresentedToken::from_request_parts(&mut parts, server).await;
    let token = token.map_err(IntoResponse::into_response)?;
    let request = Request::from_parts(parts, body);
    let judged = Authenticated::<AccessToken>::judge(request, server).await?;
    let query = Query::<Parameters>::try_from_uri(&judged.parts.uri);
    let Query(query) =
        query.map_err(|error| ApiError(Refusal::invalid(error.to_string())).into_response())?;
    let body: Body = read_json(judged.body, &server.limits).await?;
    let begun = Poll::begin(server, judged.caller, token, query, body, dialect).await;
    begun.map_err(IntoResponse::into_response)
}

impl<'s> Poll<'s> {
    async fn begin(
        server: &'s Arc<Server>,
        caller: Caller,
        token: PresentedToken,
        query: Parameters,
        body: Body,
        dialect: Dialect,
    ) -> Result<Self, ApiError> {
        let (parameters, request) = body.read(query, dialect, &caller.user_id)?;
        let wait = parameters.timeout.map_or(Duration::ZERO, Duration::from_millis);
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let pos = parameters
            .pos
            .as_deref()
            .map(str::parse::<SlidingToken>)
            .transpose();
        // What is no `pos` of this server is one of a server that was here before.
        let pos = pos.map_err(|_| Refusal::UnknownPos)?;
        let presence = match parameters.set_presence.as_deref() {
            None | Some("online") => PresenceState::Online,
            Some("unavailable") => PresenceState::Unavailable,
            Some("offline") => PresenceState::Offline,
            Some(_) => return Err(Refusal::invalid("there is no such presence").into()),
        };
        server.presence.heartbeat(&caller.user_id, &presence);
        let token = server.accounts.watch_caller(&caller, token.0).await?;
        let session = server.sync.sliding_session(caller, pos, request).await?;
        Ok(Self {
            session,
            token,
            deadline,
        })
    }

    /// Answers, as soon as there is something to say or the time is over.
    async fn answer(&mut self, server: &Server) -> Result<String, ApiError> {
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
