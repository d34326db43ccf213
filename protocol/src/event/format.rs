//! The format of events that every room version shares: sizes, counts and forbidden characters
//! (room version 10 "Event format"; client-server specification, "Size limits").

use thiserror::Error;

use crate::limits::{MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PREV_EVENTS};

/// What is wrong with the form of an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// A field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has the wrong type or is no valid identifier.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// An identifier, type or state key is longer than 255 bytes.
    #[error("{0} is longer than {MAX_ID_BYTES} bytes")]
    TooLong(&'static str),
    /// An identifier, type or state key contains NUL.
    #[error("{0} contains NUL")]
    Nul(&'static str),
    /// More previous or auth events than allowed.
    #[error("{0} has too many entries")]
    TooMany(&'static str),
    /// A field is there that this kind of event must not have.
    #[error("{0} must not be there")]
    Unexpected(&'static str),
    /// The event is larger than its room allows.
    #[error("{bytes} bytes, and the room allows {limit}")]
    TooLarge {
        /// Size of the canonical JSON with signatures.
        bytes: usize,
        /// What the room allows.
        limit: usize,
    },
}

/// Checks the length and characters of an identifier, type or state key.
pub(super) fn check_id(field: &'static str, text: &str) -> Result<(), FormatError> {
    if text.len() > MAX_ID_BYTES {
        return Err(FormatError::TooLong(field));
    }
    if text.contains('\0') {
        return Err(FormatError::Nul(field));
    }
    Ok(())
}

/// Checks the numbers of links.
pub(super) fn check_links(prev_events: usize, auth_events: usize) -> Result<(), FormatError> {
    if prev_events > MAX_PREV_EVENTS {
        return Err(FormatError::TooMany("prev_events"));
    }
    if auth_events > MAX_AUTH_EVENTS {
        return Err(FormatError::TooMany("auth_events"));
    }
    Ok(())
}

/// Checks the size of the whole event.
pub(super) fn check_size(bytes: usize, limit: usize) -> Result<(), FormatError> {
    if bytes > limit {
        Err(FormatError::TooLarge { bytes, limit })
    } else {
        Ok(())
    }
}
