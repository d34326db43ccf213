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

use super::error::plain;
use super::extractors::{Authenticated, arguments};
use crate::accounts::Caller;
use crate::http::transport::write_timeout::Unstalled;
use crate::server::Server;

/// An authenticated request of type `R`, parsed but for its body.
#[derive(Debug)]
pub(in crate::http) struct Upload<R> {
    /// What is asked for, with an empty body.
    pub(in crate::http) request: R,
    /// Who asks.
    pub(in crate::http) caller: Caller,
    /// The body.
    pub(in crate::http) body: Body,
    /// The body's length, where the client says it.
    pub(in crate::http) length: Option<u64>,
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
