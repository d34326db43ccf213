//! Requests whose body is a stream: the typed rest of the request, and whoever makes it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use ruma::api::auth_scheme::AccessToken;
use ruma::api::{IncomingRequest, IncomingRequestExt};

use super::call::{Authenticated, arguments};
use super::error::plain;
use super::stall::Unstalled;
use crate::accounts::Caller;
use crate::server::Server;

/// An authenticated request of type `R`, parsed but for its body.
#[derive(Debug)]
pub(super) struct Upload<R> {
    /// What is asked for, with an empty body.
    pub(super) request: R,
    /// Who asks.
    pub(super) caller: Caller,
    /// The body.
    pub(super) body: Body,
    /// The body's length, where the client says it.
    pub(super) length: Option<u64>,
}

impl<R> FromRequest<Arc<Server>> for Upload<R>
where
    R: IncomingRequest<Authentication = AccessToken> + Send + 'static,
{
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let judged = Authenticated::<AccessToken>::judge(request, server).await?;
        let length = judged.parts.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let stalled = Duration::from_secs(server.limits.stalled_seconds.into());
        let empty: &[u8] = b"";
        let head = http::Request::from_parts(judged.parts, empty);
        let typed = R::try_from_http_request(head, &arguments(&judged.path)?);
        let request =
            typed.map_err(|error| plain(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", &error.to_string()))?;
        Ok(Self {
            request,
            caller: judged.caller,
            body: Body::new(Unstalled::new(judged.body, stalled)),
            length,
        })
    }
}
