//! The one mapping from refusals to the wire (client-server API, "Standard error response").

use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::observe::rate_limited_log::Seldom;
use crate::refusal::{Challenge, Refusal, Stage};

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct ApiError(pub Refusal);

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Status and errcode of a refusal.
pub(in crate::http) fn on_the_wire(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        Refusal::NotFound(_) => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        Refusal::BadJson(_) => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        Refusal::InvalidParam(_) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
        Refusal::MissingParam(_) => (StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
        Refusal::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        Refusal::LimitExceeded { .. } => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
        Refusal::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
        Refusal::UnknownToken { .. } => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
        Refusal::InteractiveAuth(_) => (StatusCode::UNAUTHORIZED, "M_FORBIDDEN"),
        Refusal::GuestAccessForbidden => (StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
        Refusal::ProfileTooLarge(_) => (StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE"),
        Refusal::KeyTooLarge(_) => (StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE"),
        Refusal::UnknownKind(_) => (StatusCode::BAD_REQUEST, "M_UNKNOWN"),
        Refusal::UserInUse => (StatusCode::BAD_REQUEST, "M_USER_IN_USE"),
        Refusal::Exclusive(_) => (StatusCode::BAD_REQUEST, "M_EXCLUSIVE"),
        Refusal::UnknownDevice(_) => (StatusCode::BAD_REQUEST, "M_UNKNOWN_DEVICE"),
        Refusal::UrlNotSet => (StatusCode::BAD_REQUEST, "M_URL_NOT_SET"),
        Refusal::ConnectionFailed(_) => (StatusCode::BAD_GATEWAY, "M_CONNECTION_FAILED"),
        Refusal::ConnectionTimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, "M_CONNECTION_TIMEOUT"),
        Refusal::BadStatus { .. } => (StatusCode::BAD_GATEWAY, "M_BAD_STATUS"),
        Refusal::InvalidUsername(_) => (StatusCode::BAD_REQUEST, "M_INVALID_USERNAME"),
        Refusal::WeakPassword(_) => (StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
        Refusal::RoomInUse(_) => (StatusCode::BAD_REQUEST, "M_ROOM_IN_USE"),
        Refusal::AliasTaken => (StatusCode::CONFLICT, "M_UNKNOWN"),
        Refusal::UnsupportedRoomVersion(_) => (StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION"),
        Refusal::InvalidRoomState(_) => (StatusCode::BAD_REQUEST, "M_INVALID_ROOM_STATE"),
        Refusal::BadAlias(_) => (StatusCode::BAD_REQUEST, "M_BAD_ALIAS"),
        Refusal::DuplicateAnnotation => (StatusCode::BAD_REQUEST, "M_DUPLICATE_ANNOTATION"),
        Refusal::BadState(_) => (StatusCode::BAD_REQUEST, "M_BAD_STATE"),
        Refusal::UnableToAuthoriseJoin(_) => (StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN"),
        Refusal::ResourceLimitExceeded(_) => (StatusCode::FORBIDDEN, "M_RESOURCE_LIMIT_EXCEEDED"),
        Refusal::CannotOverwriteMedia => (StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
        Refusal::NotYetUploaded => (StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
        Refusal::WrongRoomKeysVersion { .. } => (StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION"),
        Refusal::UnknownPos => (StatusCode::BAD_REQUEST, "M_UNKNOWN_POS"),
        Refusal::ServerControlled(_) => (StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
        Refusal::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        Refusal::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
    }
}

/// Whoever asks for what another server does not give causes a line.
static UNSERVED: Seldom = Seldom::new(Duration::from_secs(10));

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Refusal::InteractiveAuth(challenge) = &self.0 {
            return answer(StatusCode::UNAUTHORIZED, asked_for(challenge));
        }
        let (status, errcode) = on_the_wire(&self.0);
        match &self.0 {
            Refusal::Internal(cause) => tracing::error!(%cause, "a request failed"),
            Refusal::Unavailable(cause) => {
                tracing::debug!(%cause, "a request could not be served");
                if let Some(left_out) = UNSERVED.due(Instant::now()) {
                    tracing::warn!(%cause, left_out, "a request could not be served");
                }
            }
            _ => {}
        }
        let mut body = json!({ "errcode": errcode, "error": self.0.to_string() });
        let mut retry_after = None;
        match self.0 {
            Refusal::LimitExceeded { retry_after: wait } => {
                body["retry_after_ms"] = json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                retry_after = Some(wait.as_secs_f64().ceil());
            }
            Refusal::UnknownToken { soft_logout } => body["soft_logout"] = json!(soft_logout),
            Refusal::Unavailable(_) => retry_after = Some(1.0),
            Refusal::BadStatus { status, body: answer } => {
                body["status"] = json!(status);
                body["body"] = json!(answer);
            }
            Refusal::WrongRoomKeysVersion { current } => body["current_version"] = json!(current.to_string()),
            _ => {}
        }
        let mut response = answer(status, body.to_string());
        let seconds = retry_after.and_then(|seconds| HeaderValue::from_str(&format!("{seconds:.0}")).ok());
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// What a client must prove, in the words of user-interactive authentication.
fn asked_for(challenge: &Challenge) -> String {
    let stage = |stage: &Stage| match stage {
        Stage::Dummy => "m.login.dummy",
        Stage::Password => "m.login.password",
        Stage::RegistrationToken => "m.login.registration_token",
        Stage::Page => "m.oauth",
        Stage::CrossSigningReset => "org.matrix.cross_signing_reset",
    };
    let flow = |alone| json!({ "stages": [stage(alone)] });
    let flows: Vec<_> = challenge.flows.iter().map(flow).collect();
    let mut params = serde_json::Map::new();
    if let Some(page) = &challenge.page {
        let of_stage = |alone| (stage(alone).to_owned(), json!({ "url": page }));
        params.extend(challenge.flows.iter().map(of_stage));
    }
    let mut body = json!({ "flows": flows, "completed": [], "params": params, "session": challenge.session });
    if let Some(error) = &challenge.error {
        body["errcode"] = json!(on_the_wire(error).1);
        body["error"] = json!(error.to_string());
    }
    body.to_string()
}

/// An error that is about HTTP itself, for example an unknown path.
pub fn plain(status: StatusCode, errcode: &str, message: &str) -> Response {
    answer(
        status,
        json!({ "errcode": errcode, "error": message }).to_string(),
    )
}

fn answer(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
