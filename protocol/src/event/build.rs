//! Building an event of our own: hash, signature and id (server-server specification, "Signing
//! events"; room-version specifications, "Event IDs").
//!
//! An event is always built from checked fields. A template that a peer sent is never signed. The text
//! is written by hand in canonical order, since the hash, the signature and the id are made over
//! subsets of the same pieces.

use std::{borrow::Cow, sync::OnceLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::{IdParseError, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    Event,
    format::{FormatError, check_id, check_links, check_size},
    redact::{redacted_content, target_in_content},
};
use crate::{
    auth::kind_of,
    canonical::{CanonicalError, Content, Node, write_integer, write_text},
    key::{BASE64, SigningKey},
    limits::{MAX_INTEGER, MAX_JSON_DEPTH},
    version::RoomVersion,
};

/// Length of 64 bytes in unpadded base64.
const SIGNATURE_BASE64_BYTES: usize = 86;

/// What a user or this server wants to say.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The room; `None` exactly for the create event of a room whose id is that event's hash.
    pub room_id: Option<OwnedRoomId>,
    /// A user of this server.
    pub sender: OwnedUserId,
    /// The type.
    pub event_type: Box<str>,
    /// The state key of a state event.
    pub state_key: Option<Box<str>>,
    /// The content.
    pub content: Content,
    /// The target of a redaction; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// Now, in milliseconds since 1970.
    pub origin_server_ts: u64,
}

/// Where the event hangs in the room's graph.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// The forward extremities.
    pub prev_events: Vec<OwnedEventId>,
    /// The state events that allow it; see [`crate::auth::auth_slots`].
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the deepest of `prev_events`.
    pub depth: u64,
}

/// Why an event cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The event would break the format or the size limit.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The sender is not a user of the signing server.
    #[error("the sender is not a user of this server")]
    ForeignSender,
    /// The content cannot carry what it must.
    #[error(transparent)]
    Content(#[from] CanonicalError),
    /// A computed id is none. Does not happen.
    #[error(transparent)]
    Id(#[from] IdParseError),
}

/// Builds, hashes and signs an event.
///
/// # Errors
/// [`BuildError`]; in particular an event larger than `max_event_bytes`, signatures included, which is
/// noticed before anything is signed.
pub fn build(
    draft: Draft,
    links: Links,
    version: RoomVersion,
    max_event_bytes: usize,
    server_name: &ServerName,
    key: &SigningKey,
) -> Result<Event, BuildError> {
    check(&draft, &links, version, server_name)?;
    let content = match &draft.redacts {
        Some(target) if version.redacts_in_content() => Cow::Owned(with_redacts(&draft.content, target)?),
        _ => Cow::Borrowed(&draft.content),
    };
    let target_in_content = target_in_content(&draft.event_type, &content, version);
    let depth = links.depth.min(MAX_INTEGER.unsigned_abs());

    let pieces = Pieces::of(&draft, &links, depth, version);
    let hashes = pieces.hashes(content.as_str());
    let (before, after) = signatures_around(server_name, key);
    let bytes = pieces.len()
        + content.as_str().len()
        + hashes.len()
        + before.len()
        + SIGNATURE_BASE64_BYTES
        + after.len();
    check_size(bytes, max_event_bytes)?;

    let signed_content = redacted_content(&draft.event_type, content.as_str(), version)?;
    let signed = pieces.join(&signed_content, &hashes, "", "");
    let signatures = format!("{before}{}{after}", key.sign(signed.as_bytes()).to_base64());
    let id = event_id(&signed)?;
    let json = pieces.join(content.as_str(), &hashes, &pieces.redacts, &signatures);

    let content = match content {
        Cow::Owned(content) => content,
        Cow::Borrowed(_) => draft.content,
    };
    let room_id = match draft.room_id {
        Some(room_id) => room_id,
        None => room_id_of(&id)?,
    };
    Ok(Event {
        id,
        room_id,
        sender: draft.sender,
        kind: kind_of(&draft.event_type),
        event_type: draft.event_type,
        state_key: draft.state_key,
        origin_server_ts: draft.origin_server_ts,
        depth,
        prev_events: links.prev_events,
        auth_events: links.auth_events,
        redacts: draft.redacts.or(target_in_content),
        content,
        json: json.into(),
        client: OnceLock::new(),
        levels: OnceLock::new(),
    })
}

/// The id of an event from the text that is signed: its redacted form without signatures.
pub(super) fn event_id(signed: &str) -> Result<OwnedEventId, IdParseError> {
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(signed.as_bytes()));
    OwnedEventId::try_from(format!("${hash}"))
}

/// The room id that a create event of version 12 gives its room.
pub(super) fn room_id_of(create: &OwnedEventId) -> Result<OwnedRoomId, IdParseError> {
    let hash = create.as_str().trim_start_matches('$');
    RoomId::parse(format!("!{hash}"))
}

fn check(
    draft: &Draft,
    links: &Links,
    version: RoomVersion,
    server_name: &ServerName,
) -> Result<(), BuildError> {
    if draft.sender.server_name() != server_name {
        return Err(BuildError::ForeignSender);
    }
    // One place for the target, so that what is built reads back the same.
    if draft.redacts.is_some() && &*draft.event_type != "m.room.redaction" {
        return Err(FormatError::Unexpected("redacts").into());
    }
    check_id("sender", draft.sender.as_str())?;
    check_id("type", &draft.event_type)?;
    if let Some(state_key) = &draft.state_key {
        check_id("state_key", state_key)?;
    }
    let names_its_room = &*draft.event_type == "m.room.create" && version.room_id_is_hash();
    match &draft.room_id {
        Some(_) if names_its_room => return Err(FormatError::Unexpected("room_id").into()),
        None if !names_its_room => return Err(FormatError::Missing("room_id").into()),
        Some(room_id) => check_id("room_id", room_id.as_str())?,
        None => {}
    }
    for id in links
        .prev_events
        .iter()
        .chain(&links.auth_events)
        .chain(&draft.redacts)
    {
        check_id("event id", id.as_str())?;
    }
    if draft.origin_server_ts > MAX_INTEGER.unsigned_abs() {
        return Err(FormatError::Malformed("origin_server_ts").into());
    }
    check_links(links.prev_events.len(), links.auth_events.len())?;
    Ok(())
}

/// The content with its `redacts` field set.
fn with_redacts(content: &Content, target: &OwnedEventId) -> Result<Content, CanonicalError> {
    let Node::Object(mut fields) = Node::parse(content.as_str(), MAX_JSON_DEPTH)? else {
        return Err(CanonicalError::NotAnObject);
    };
    fields.retain(|(key, _)| key != "redacts");
    let at = fields.partition_point(|(key, _)| key.as_ref() < "redacts");
    fields.insert(at, ("redacts".into(), Node::Text(target.as_str().into())));
    let mut out = String::new();
    Node::Object(fields).write(&mut out);
    Content::trusted(out)
}

/// The text around the base64 of the one signature.
fn signatures_around(server_name: &ServerName, key: &SigningKey) -> (String, &'static str) {
    let mut before = String::with_capacity(128);
    before.push_str(",\"signatures\":{");
    write_text(&mut before, server_name.as_str());
    before.push_str(":{");
    write_text(&mut before, key.id.as_str());
    before.push_str(":\"");
    (before, "\"}}")
}

/// The stretches of an event's text between the parts that vary with its purpose.
struct Pieces {
    /// From the start to the content.
    head: String,
    /// From the content to the hashes.
    depth: String,
    /// From the hashes to the top-level target of a redaction.
    times: String,
    /// The top-level target of a redaction; may be empty.
    redacts: String,
    /// From there to the signatures.
    room: String,
    /// From the signatures to the end.
    tail: String,
}

impl Pieces {
    fn of(draft: &Draft, links: &Links, depth: u64, version: RoomVersion) -> Self {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut head = String::with_capacity(64 + 48 * links.auth_events.len());
        head.push_str("{\"auth_events\":");
        write_ids(&mut head, &links.auth_events);
        head.push_str(",\"content\":");

        let mut depth_text = ",\"depth\":".to_owned();
        write_integer(&mut depth_text, number(depth));

        let mut times = String::with_capacity(64 + 48 * links.prev_events.len());
        times.push_str(",\"origin_server_ts\":");
        write_integer(&mut times, number(draft.origin_server_ts));
        times.push_str(",\"prev_events\":");
        write_ids(&mut times, &links.prev_events);

        let mut redacts = String::new();
        if let Some(target) = &draft.redacts
            && !version.redacts_in_content()
        {
            redacts.push_str(",\"redacts\":");
            write_text(&mut redacts, target.as_str());
        }

        let mut room = String::with_capacity(128);
        if let Some(room_id) = &draft.room_id {
            room.push_str(",\"room_id\":");
            write_text(&mut room, room_id.as_str());
        }
        room.push_str(",\"sender\":");
        write_text(&mut room, draft.sender.as_str());

        let mut tail = String::with_capacity(64);
        if let Some(state_key) = &draft.state_key {
            tail.push_str(",\"state_key\":");
            write_text(&mut tail, state_key);
        }
        tail.push_str(",\"type\":");
        write_text(&mut tail, &draft.event_type);
        tail.push('}');

        Self {
            head,
            depth: depth_text,
            times,
            redacts,
            room,
            tail,
        }
    }

    fn len(&self) -> usize {
        [
            &self.head,
            &self.depth,
            &self.times,
            &self.redacts,
            &self.room,
            &self.tail,
        ]
        .map(String::len)
        .iter()
        .sum()
    }

    /// The `hashes` field: the hash of everything except itself and the signatures.
    fn hashes(&self, content: &str) -> String {
        let mut hash = Sha256::new();
        for piece in [
            &*self.head,
            content,
            &self.depth,
            &self.times,
            &self.redacts,
            &self.room,
            &self.tail,
        ] {
            hash.update(piece.as_bytes());
        }
        format!(
            ",\"hashes\":{{\"sha256\":\"{}\"}}",
            BASE64.encode(hash.finalize())
        )
    }

    fn join(&self, content: &str, hashes: &str, redacts: &str, signatures: &str) -> String {
        [
            &*self.head,
            content,
            &self.depth,
            hashes,
            &self.times,
            redacts,
            &self.room,
            signatures,
            &self.tail,
        ]
        .concat()
    }
}

fn write_ids(out: &mut String, ids: &[OwnedEventId]) {
    out.push('[');
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(out, id.as_str());
    }
    out.push(']');
}
