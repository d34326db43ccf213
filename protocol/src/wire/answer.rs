//! Answers to requests: parts while there are some, then `done` or `refused`.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    bounded::{Json, Octets, Text, list},
    limits::{MAX_EVENTS, MAX_MEDIA_PART_BYTES, MAX_NAME_BYTES, MAX_RECORDS, MAX_TEXT_BYTES},
    named::{named, names},
    request::{media::MediaInfo, state::Extent},
};
use crate::record::SignedRecord;

named! {
    /// One frame of an answer whose last frame carries `D`: see [`super::Call::Done`].
    pub enum Answer<D> {
        /// A piece of what was asked for; more frames follow.
        "part" => Part(Part),
        /// The end, with what is small.
        "done" => Done(D),
        /// The end: nothing more, and why.
        "refused" => Refused(Refused),
    }
}

/// A piece of an answer. Which fields are used depends on the request; the others are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Part {
    /// Events as canonical JSON.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_EVENTS>"
    )]
    pub events: Vec<Json>,
    /// Records of servers whose events are among those.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_RECORDS>"
    )]
    pub records: Vec<SignedRecord>,
    /// How many events a state has: in the first part of an answer that carries one, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
    /// What the media is: in the first part of an answer to `media` and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaInfo>,
    /// Bytes of media.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub data: Octets<MAX_MEDIA_PART_BYTES>,
}

fn is_empty<const MAX: usize>(bytes: &Octets<MAX>) -> bool {
    bytes.len() == 0
}

/// The end of an answer that could not be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    #[serde(deserialize_with = "code")]
    pub code: RefusedCode,
    /// Why, for people.
    pub reason: Text<MAX_TEXT_BYTES>,
}

impl Refused {
    /// A refusal; a reason that is too long is cut.
    pub fn new(code: RefusedCode, reason: &str) -> Self {
        Self {
            code,
            reason: Text::cut(reason),
        }
    }
}

names! {
    /// Why a request is refused.
    pub enum RefusedCode {
        /// What was asked for is not here, or not for this peer to know of.
        "not_found" => NotFound,
        /// The peer, or the user it speaks for, may not do or see this.
        "forbidden" => Forbidden,
        /// The room's version is none of those that the peer knows.
        "unsupported_version" => UnsupportedVersion,
        /// The event or the request breaks a rule; sending it again will not help.
        "invalid" => Invalid,
        /// The answer would be over a limit.
        "too_large" => TooLarge,
        /// Too many requests; ask again later.
        "limit_exceeded" => LimitExceeded,
        /// The request is not known here.
        "unknown_request" => UnknownRequest,
        /// It cannot be answered just now; ask again later, or ask somebody else.
        "unavailable" => Unavailable,
    }
}

/// Reads a code; one of a newer peer counts as `unavailable`.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RefusedCode, D::Error> {
    let name = Text::<MAX_NAME_BYTES>::deserialize(deserializer)?;
    Ok(RefusedCode::from_name(&name).unwrap_or(RefusedCode::Unavailable))
}
