//! OAuth 2.0 on the wire (client-server API, "OAuth 2.0 API"): what applications ask, and the pages that people see.
//!
//! Where it is turned off, all of it answers as paths do that are not there. Pages work without scripts and load nothing but
//! their style sheet; their forms are sent to the address that showed them.

mod account;
mod authorize;
mod device;
mod form;
mod metadata;
mod pages;
mod phrases;
mod registration;
mod sign_in;
mod token;
mod visit;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::router::Routes;
use crate::oauth::{ErrorCode, OAuth, OAuthError};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .merge(metadata::routes())
        .merge(registration::routes())
        .merge(authorize::routes())
        .merge(token::routes())
        .merge(device::routes())
        .merge(account::routes())
        .merge(pages::routes())
}

/// The authorization server, or what a path answers that is not there.
async fn turned_on(server: &Arc<Server>) -> Result<Arc<OAuth>, Response> {
    match &server.oauth {
        Some(oauth) => Ok(Arc::clone(oauth)),
        None => Err(super::router::unknown_path().await),
    }
}

/// What an application is told that is wrong (RFC 6749, section 5.2).
impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let status = match self.code {
            ErrorCode::InvalidClient => StatusCode::UNAUTHORIZED,
            ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::TemporarilyUnavailable if self.retry_after.is_some() => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.code.name(), "error_description": self.description });
        let mut response = secret_json(status, &body);
        let seconds = self.retry_after.map(|wait| wait.as_secs_f64().ceil());
        let seconds = seconds.and_then(|seconds| HeaderValue::from_str(&format!("{seconds:.0}")).ok());
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// An answer that nobody may keep.
fn secret_json(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
    ];
    (status, headers, body.to_string()).into_response()
}
