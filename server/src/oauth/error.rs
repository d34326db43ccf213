//! What is wrong with a request, in the words of OAuth 2.0.

use std::time::Duration;

use thiserror::Error;

use crate::refusal::Refusal;

/// The registered names of errors (RFC 6749, 7009, 7591, 8628 and OpenID Connect's of `prompt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// A parameter is missing, is there twice, or makes no sense.
    InvalidRequest,
    /// There is no such client.
    InvalidClient,
    /// A code or refresh token is not valid, or of somebody else.
    InvalidGrant,
    /// The client has not registered for this.
    UnauthorizedClient,
    /// There is no such grant.
    UnsupportedGrantType,
    /// There is no such answer to a request.
    UnsupportedResponseType,
    /// What is asked for is not what a client can be given.
    InvalidScope,
    /// The user does not allow it.
    AccessDenied,
    /// The user would have to be asked, and may not be.
    InteractionRequired,
    /// An address is none where this client may have people sent.
    InvalidRedirectUri,
    /// What a client says of itself does not fit.
    InvalidClientMetadata,
    /// The user has not answered yet.
    AuthorizationPending,
    /// The device asks too often.
    SlowDown,
    /// The device has asked for too long.
    ExpiredToken,
    /// For now this cannot be done.
    TemporarilyUnavailable,
    /// Something that should not happen.
    ServerError,
}

impl ErrorCode {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::AccessDenied => "access_denied",
            Self::InteractionRequired => "interaction_required",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::AuthorizationPending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::ExpiredToken => "expired_token",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

/// An error with what a developer may read of it.
#[derive(Clone, Debug, Error)]
#[error("{description}")]
pub struct OAuthError {
    /// Which.
    pub code: ErrorCode,
    /// A sentence about it, in ASCII without quotes, as the specification has it.
    pub description: String,
    /// When the same may be tried again.
    pub retry_after: Option<Duration>,
}

impl OAuthError {
    /// An error.
    pub fn new(code: ErrorCode, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            retry_after: None,
        }
    }

    /// A parameter is missing or makes no sense.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, description)
    }

    /// A code or token is not valid.
    pub fn invalid_grant(description: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidGrant, description)
    }
}

/// What the server cannot do for now, or should not have met; what a user is refused is said by each caller.
impl From<Refusal> for OAuthError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LimitExceeded { retry_after } => Self {
                code: ErrorCode::TemporarilyUnavailable,
                description: "too many requests".into(),
                retry_after: Some(retry_after),
            },
            Refusal::Unavailable(cause) => {
                tracing::debug!(%cause, "a request could not be served");
                Self::new(ErrorCode::TemporarilyUnavailable, "try again later")
            }
            Refusal::Internal(cause) => {
                tracing::error!(%cause, "a request failed");
                Self::new(ErrorCode::ServerError, "internal error")
            }
            refusal => Self::invalid_request(refusal.to_string()),
        }
    }
}

impl From<crate::store::StoreError> for OAuthError {
    fn from(error: crate::store::StoreError) -> Self {
        Refusal::from(error).into()
    }
}
