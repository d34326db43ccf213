//! Events: the entries of a room's history (client-server and room-version specifications, "Events").
//!
//! An [`Event`] is immutable and shared as `Arc<Event>`. It comes to be in one of four ways: built here
//! from checked fields ([`build()`]), read from a stranger and verified ([`Event::receive`]), read back
//! from our own store ([`Event::from_stored`]), or as the redacted form of another ([`redact()`]).

pub mod build;
mod client;
mod countersign;
mod format;
pub mod parse;
pub mod redact;
pub mod verify;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType, state_res,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use build::{BuildError, Draft, Links, build};
pub use countersign::countersign;
pub use format::FormatError;
pub use parse::{ParseError, StoredError};
pub use redact::redact;
pub use verify::{Received, Verified, VerifyError, verify};

use crate::{auth::Levels, canonical::Content};

/// One event, parsed, with the canonical JSON that its hash and signatures are made over.
///
/// The fields agree with each other because only this crate makes events.
#[derive(Debug, Clone)]
pub struct Event {
    /// The reference hash, as `$` and URL-safe base64.
    pub id: OwnedEventId,
    /// The room. For a version 12 create event it follows from the id and is not in the JSON.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The type, such as `m.room.message`; at most 255 bytes, no NUL.
    pub event_type: Box<str>,
    /// The state key if this is a state event; at most 255 bytes, no NUL.
    pub state_key: Option<Box<str>>,
    /// When the sender's server says it was sent, in milliseconds since 1970.
    pub origin_server_ts: u64,
    /// One more than the deepest previous event; informative, since a stranger may claim anything.
    pub depth: u64,
    /// The forward extremities that its sender's server knew.
    pub prev_events: Vec<OwnedEventId>,
    /// The state that allows it, by the sender's server's account.
    pub auth_events: Vec<OwnedEventId>,
    /// The target, if this is a redaction that names one.
    pub redacts: Option<OwnedEventId>,
    /// The content.
    pub content: Content,
    /// The whole event in canonical JSON with hashes and signatures, without `unsigned`.
    pub json: Arc<str>,
    kind: TimelineEventType,
    client: OnceLock<Arc<str>>,
    levels: OnceLock<Option<Arc<Levels>>>,
}

impl Event {
    /// Whether this is a state event.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// Whether this is the state event of this type and key.
    pub fn is_state_at(&self, event_type: &str, state_key: &str) -> bool {
        &*self.event_type == event_type && self.state_key.as_deref() == Some(state_key)
    }

    /// The type as ruma's enum.
    pub fn kind(&self) -> &TimelineEventType {
        &self.kind
    }

    /// Reads the content as a type.
    ///
    /// # Errors
    /// When the content does not fit the type: a stranger may have sent anything.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.content.get()
    }

    /// The content as power levels, parsed once; `None` if it is malformed.
    pub(crate) fn levels(&self) -> Option<Arc<Levels>> {
        self.levels
            .get_or_init(|| self.content_as().ok().map(Arc::new))
            .clone()
    }

    /// Whether this create event gives its room its id and therefore has none in its JSON.
    fn names_its_room(&self) -> bool {
        self.kind == TimelineEventType::RoomCreate && self.room_id.server_name().is_none()
    }
}

impl state_res::Event for Event {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        (!self.names_its_room()).then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.origin_server_ts).unwrap_or(UInt::MAX))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        self.content.as_raw()
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    /// Rejected events are never handed to the rules: whoever fetches for them answers `None`.
    fn rejected(&self) -> bool {
        false
    }
}
