//! Why a request was not done: the one vocabulary of the domain for it. `http/codec/error.rs` maps it to the wire.

mod challenge;

use std::time::Duration;

use thiserror::Error;

use crate::limits::TooMany;
use crate::store::StoreError;

pub use challenge::{Challenge, Stage};

/// A request that was refused or could not be done. Messages are sentences for the person who reads them in a client
/// and contain nothing that the person may not know.
#[derive(Clone, Debug, Error)]
pub enum Refusal {
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing, or the caller may not know of it.
    #[error("{0}")]
    NotFound(String),
    /// The JSON is valid but not what is asked for.
    #[error("{0}")]
    BadJson(String),
    /// A parameter has a value that makes no sense.
    #[error("{0}")]
    InvalidParam(String),
    /// A parameter is missing.
    #[error("{0}")]
    MissingParam(String),
    /// Something is larger than its limit.
    #[error("{0}")]
    TooLarge(String),
    /// Too many requests; the same one may be made again after the given time.
    #[error("too many requests, try again in {} seconds", retry_after.as_secs_f64().ceil())]
    LimitExceeded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The request needs an access token and has none.
    #[error("this needs an access token")]
    MissingToken,
    /// The access token is not valid, or no longer.
    #[error("this access token is not valid")]
    UnknownToken {
        /// Whether the device survives and only the token must be refreshed.
        soft_logout: bool,
    },
    /// The request must be made again with a proof of who makes it (user-interactive authentication).
    #[error("this needs a proof of who you are")]
    InteractiveAuth(Box<Challenge>),
    /// Guests may not do this, and this server has none.
    #[error("this server has no guest accounts")]
    GuestAccessForbidden,
    /// The kind of thing that is asked for does not exist here.
    #[error("{0}")]
    UnknownKind(String),
    /// A profile would be too large.
    #[error("{0}")]
    ProfileTooLarge(String),
    /// The name of a profile field is too long.
    #[error("{0}")]
    KeyTooLarge(String),
    /// The user name is taken.
    #[error("this user name is taken")]
    UserInUse,
    /// The name belongs to an application service, or to another one.
    #[error("{0}")]
    Exclusive(String),
    /// The user has no such device, and an application service wants to act on it.
    #[error("{0}")]
    UnknownDevice(String),
    /// The application service has no address.
    #[error("this application service has no url")]
    UrlNotSet,
    /// The application service could not be reached.
    #[error("{0}")]
    ConnectionFailed(String),
    /// The application service did not answer in time.
    #[error("{0}")]
    ConnectionTimedOut(String),
    /// The application service answered with another status than 200.
    #[error("the application service answered with status {status}")]
    BadStatus {
        /// The status.
        status: u16,
        /// The answer, or its beginning.
        body: String,
    },
    /// The user name cannot be used.
    #[error("{0}")]
    InvalidUsername(String),
    /// The password is too easy to guess.
    #[error("{0}")]
    WeakPassword(String),
    /// The room alias is taken.
    #[error("{0}")]
    RoomInUse(String),
    /// The alias names a room already.
    #[error("this alias names a room already")]
    AliasTaken,
    /// This server does not know the room version.
    #[error("this server does not know room version {0}")]
    UnsupportedRoomVersion(String),
    /// The initial state of a room contradicts itself.
    #[error("{0}")]
    InvalidRoomState(String),
    /// An alias does not point to the room.
    #[error("{0}")]
    BadAlias(String),
    /// The sender has annotated the event with the same key already.
    #[error("you have reacted with this already")]
    DuplicateAnnotation,
    /// The change does not fit the state of things, such as lifting a ban from somebody who is not banned.
    #[error("{0}")]
    BadState(String),
    /// The server cannot tell whether the join is allowed.
    #[error("{0}")]
    UnableToAuthoriseJoin(String),
    /// An upload limit or quota does not allow more.
    #[error("{0}")]
    ResourceLimitExceeded(String),
    /// The media have content already, and content never changes.
    #[error("these media have been uploaded already")]
    CannotOverwriteMedia,
    /// The media were created and their content has not arrived in time.
    #[error("these media have not been uploaded yet")]
    NotYetUploaded,
    /// Room keys are backed up in another version.
    #[error("your keys are backed up in version {current}")]
    WrongRoomKeysVersion {
        /// The newest version.
        current: i64,
    },
    /// The sliding sync connection is not known, or no longer: a new one must be begun.
    #[error("this connection has expired, begin a new one")]
    UnknownPos,
    /// Only the server itself writes this.
    #[error("{0}")]
    ServerControlled(String),
    /// The database is not available for now.
    #[error("the server cannot store or read this at the moment, try again later")]
    Unavailable(String),
    /// Something that should not happen; the text is for the log and never for the caller.
    #[error("internal error")]
    Internal(String),
}

impl Refusal {
    /// The caller may not do this.
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self::Forbidden(why.into())
    }

    /// There is no such thing.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    /// A parameter has a value that makes no sense.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidParam(what.into())
    }

    /// What somebody proved does not hold any more: the password has changed meanwhile, or everything was logged out.
    pub fn outdated_proof() -> Self {
        Self::forbidden("this account was changed or logged out meanwhile; begin again")
    }

    /// The reason with what only the server's own log and admin may know.
    pub fn in_full(self) -> String {
        match self {
            Self::Internal(text) | Self::Unavailable(text) => text,
            refusal => refusal.to_string(),
        }
    }

    /// Something that should not happen.
    pub fn internal(what: impl std::fmt::Display) -> Self {
        Self::Internal(what.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Nul) {
            Self::invalid("a text of this request contains a NUL character")
        } else if error.is_temporary() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}

impl From<TooMany> for Refusal {
    fn from(TooMany(retry_after): TooMany) -> Self {
        Self::LimitExceeded { retry_after }
    }
}
