//! Reading events: strictly from strangers, quickly from our own store (server-server specification,
//! "Checks performed on receipt of a PDU", step 1).

use std::{sync::Arc, sync::OnceLock};

use ruma::{IdParseError, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    Event,
    build::{event_id, room_id_of},
    format::{FormatError, check_id, check_links, check_size},
    redact::{redacted_content, target_in_content, write_redacted},
};
use crate::{
    auth::kind_of,
    canonical::{CanonicalError, Content, Node},
    version::RoomVersion,
};

/// Why a text is no event.
#[derive(Debug, Error)]
pub enum ParseError {
    /// Not JSON, or without canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// JSON, but not of the form of an event, or too large.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A computed id is none. Does not happen.
    #[error(transparent)]
    Id(#[from] IdParseError),
}

/// Why a stored event could not be read back: the store is damaged.
#[derive(Debug, Error)]
pub enum StoredError {
    /// Not the JSON of an event.
    #[error("a stored event is damaged: {0}")]
    Json(#[from] serde_json::Error),
    /// Without canonical form.
    #[error("a stored event is damaged: {0}")]
    Canonical(#[from] CanonicalError),
}

impl Event {
    /// Reads an event that somebody else made and computes its id. Signatures and hash are not looked at:
    /// see [`Event::receive`].
    ///
    /// `unsigned` is dropped. The caller bounds the length of the text before.
    ///
    /// # Errors
    /// [`ParseError`]: the event is to be dropped.
    pub fn parse(
        json: &str,
        version: RoomVersion,
        max_event_bytes: usize,
        max_depth: usize,
    ) -> Result<Self, ParseError> {
        Ok(Pdu::parse(json, version, max_event_bytes, max_depth)?.event)
    }

    /// Reads an event back from our own store, trusting it: nothing is hashed or checked again.
    ///
    /// The target of a redaction is taken from wherever it stands, the content first, because the room
    /// version is not asked for here.
    ///
    /// # Errors
    /// [`StoredError`] when the store is damaged.
    pub fn from_stored(id: OwnedEventId, room_id: OwnedRoomId, json: Arc<str>) -> Result<Self, StoredError> {
        let stored: Stored = serde_json::from_str(&json)?;
        let redacts = if &*stored.event_type == "m.room.redaction" {
            let target: Target = serde_json::from_str(stored.content.get()).unwrap_or_default();
            target
                .redacts
                .or(stored.redacts)
                .and_then(|id| id.try_into().ok())
        } else {
            None
        };
        Ok(Self {
            id,
            room_id,
            sender: stored.sender,
            kind: kind_of(&stored.event_type),
            event_type: stored.event_type,
            state_key: stored.state_key,
            origin_server_ts: stored.origin_server_ts,
            depth: stored.depth,
            prev_events: stored.prev_events,
            auth_events: stored.auth_events,
            redacts,
            content: Content::from_stored(stored.content),
            client: OnceLock::new(),
            levels: OnceLock::new(),
            json,
        })
    }
}

#[derive(Deserialize)]
struct Stored {
    auth_events: Vec<OwnedEventId>,
    content: Box<RawValue>,
    depth: u64,
    origin_server_ts: u64,
    prev_events: Vec<OwnedEventId>,
    #[serde(default)]
    redacts: Option<String>,
    sender: OwnedUserId,
    #[serde(default)]
    state_key: Option<Box<str>>,
    #[serde(rename = "type")]
    event_type: Box<str>,
}

#[derive(Deserialize, Default)]
struct Target {
    #[serde(default)]
    redacts: Option<String>,
}

/// An event together with its parsed JSON and the text that is signed.
pub(super) struct Pdu<'a> {
    pub(super) event: Event,
    pub(super) node: Node<'a>,
    pub(super) signed: String,
}

impl<'a> Pdu<'a> {
    pub(super) fn parse(
        json: &'a str,
        version: RoomVersion,
        max_event_bytes: usize,
        max_depth: usize,
    ) -> Result<Self, ParseError> {
        let mut node = Node::parse(json, max_depth)?;
        let Node::Object(fields) = &mut node else {
            return Err(CanonicalError::NotAnObject.into());
        };
        fields.retain(|(key, _)| key != "unsigned");

        let mut canonical = String::with_capacity(json.len());
        node.write(&mut canonical);
        check_size(canonical.len(), max_event_bytes)?;

        let event_type = text(&node, "type")?.ok_or(FormatError::Missing("type"))?;
        let content = match node.field("content") {
            Some(content @ Node::Object(_)) => {
                let mut out = String::new();
                content.write(&mut out);
                out
            }
            Some(_) => return Err(FormatError::Malformed("content").into()),
            None => return Err(FormatError::Missing("content").into()),
        };
        let mut signed = String::with_capacity(canonical.len());
        let redacted = redacted_content(event_type, &content, version)?;
        write_redacted(&mut signed, &node, &redacted, version, false)?;
        let id = event_id(&signed)?;

        let content = Content::trusted(content)?;
        let event = Event {
            room_id: room_id(&node, &id, event_type, version)?,
            sender: required(&node, "sender")?,
            kind: kind_of(event_type),
            event_type: event_type.into(),
            state_key: text(&node, "state_key")?.map(Into::into),
            origin_server_ts: natural(&node, "origin_server_ts")?,
            depth: natural(&node, "depth")?,
            prev_events: ids(&node, "prev_events")?,
            auth_events: ids(&node, "auth_events")?,
            redacts: target_at_top(&node, event_type, version)
                .or_else(|| target_in_content(event_type, &content, version)),
            content,
            json: canonical.into(),
            client: OnceLock::new(),
            levels: OnceLock::new(),
            id,
        };
        check_links(event.prev_events.len(), event.auth_events.len())?;
        check_no_create_in_auth(&event, version)?;
        Ok(Self { event, node, signed })
    }
}

/// An optional text of bounded length.
fn text<'n>(node: &'n Node<'_>, field: &'static str) -> Result<Option<&'n str>, FormatError> {
    let Some(value) = node.field(field) else {
        return Ok(None);
    };
    let text = value.as_str().ok_or(FormatError::Malformed(field))?;
    check_id(field, text)?;
    Ok(Some(text))
}

/// An identifier that must be there.
fn required<T: for<'t> TryFrom<&'t str>>(node: &Node<'_>, field: &'static str) -> Result<T, FormatError> {
    let text = text(node, field)?.ok_or(FormatError::Missing(field))?;
    T::try_from(text).map_err(|_| FormatError::Malformed(field))
}

/// An integer that is not negative and must be there.
fn natural(node: &Node<'_>, field: &'static str) -> Result<u64, FormatError> {
    match node.field(field) {
        Some(Node::Integer(integer)) => u64::try_from(*integer).map_err(|_| FormatError::Malformed(field)),
        Some(_) => Err(FormatError::Malformed(field)),
        None => Err(FormatError::Missing(field)),
    }
}

/// A list of event ids that must be there. Its length is checked before the ids are made.
fn ids(node: &Node<'_>, field: &'static str) -> Result<Vec<OwnedEventId>, FormatError> {
    let items = match node.field(field) {
        Some(Node::Array(items)) => items,
        Some(_) => return Err(FormatError::Malformed(field)),
        None => return Err(FormatError::Missing(field)),
    };
    items
        .iter()
        .map(|item| {
            let id = item.as_str().ok_or(FormatError::Malformed(field))?;
            check_id(field, id)?;
            OwnedEventId::try_from(id).map_err(|_| FormatError::Malformed(field))
        })
        .collect()
}

/// The room id, which the create event of version 12 must not have and every other event must.
fn room_id(
    node: &Node<'_>,
    id: &OwnedEventId,
    event_type: &str,
    version: RoomVersion,
) -> Result<OwnedRoomId, ParseError> {
    if event_type != "m.room.create" || !version.room_id_is_hash() {
        return Ok(required(node, "room_id")?);
    }
    match node.field("room_id") {
        Some(_) => Err(FormatError::Unexpected("room_id").into()),
        None => Ok(room_id_of(id)?),
    }
}

/// The target of a redaction that names it at the top, which is before version 11.
fn target_at_top(node: &Node<'_>, event_type: &str, version: RoomVersion) -> Option<OwnedEventId> {
    if event_type != "m.room.redaction" || version.redacts_in_content() {
        return None;
    }
    text(node, "redacts")
        .ok()
        .flatten()
        .and_then(|id| id.try_into().ok())
}

/// Version 12 names the create event by the room id; naming it in `auth_events` too is an error.
fn check_no_create_in_auth(event: &Event, version: RoomVersion) -> Result<(), FormatError> {
    let create = event.room_id.strip_sigil();
    let named = version.room_id_is_hash()
        && event
            .auth_events
            .iter()
            .any(|id| id.as_str().strip_prefix('$') == Some(create));
    if named {
        Err(FormatError::Malformed("auth_events"))
    } else {
        Ok(())
    }
}
