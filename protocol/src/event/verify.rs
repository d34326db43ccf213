//! Signatures and content hashes of received events (server-server specification, "Validating hashes
//! and signatures on received events").
//!
//! Signatures are checked one by one and strictly. Batch verification accepts signatures that single
//! verification refuses, and which events share a batch differs per server: replicas could be split on
//! purpose.

use std::collections::BTreeSet;

use base64::Engine;
use ruma::{OwnedServerName, ServerName, UserId};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    Event,
    format::FormatError,
    parse::{ParseError, Pdu, StoredError},
    redact::{redact, redacted_content, write_redacted},
};
use crate::{
    canonical::{Node, write_object},
    key::{BASE64, KeyId, PublicKey, Signature},
    limits::MAX_JSON_DEPTH,
    version::RoomVersion,
};

/// How far an event whose signatures are valid may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Every field is what its sender signed.
    All,
    /// The redacted form is what the sender signed; the rest was removed or changed on the way. Only the
    /// redacted form may be used.
    ContentHashMismatch,
}

/// Why an event is to be dropped.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A server that must have signed did not, or not with a key that we know.
    #[error("no signature of {0} with a known key")]
    NoKnownSignature(OwnedServerName),
    /// A signature under a known key is wrong.
    #[error("a signature of {0} is wrong")]
    WrongSignature(OwnedServerName),
    /// `hashes` or `signatures` are malformed, or a signer cannot be told.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Not an event at all.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The event's own JSON is broken.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// A received event that may be judged by the authorisation rules.
#[derive(Debug, Clone)]
pub struct Received {
    /// The event; its redacted form if the content hash was wrong.
    pub event: Event,
    /// Whether the content was as signed.
    pub verified: Verified,
}

impl Event {
    /// Reads an event from a stranger: format, signatures, content hash, in that order.
    ///
    /// # Errors
    /// [`VerifyError`]: the event is to be dropped.
    pub fn receive(
        json: &str,
        version: RoomVersion,
        max_event_bytes: usize,
        keys: impl Fn(&ServerName, &KeyId) -> Option<PublicKey>,
    ) -> Result<Received, VerifyError> {
        let pdu = Pdu::parse(json, version, max_event_bytes, MAX_JSON_DEPTH)?;
        let verified = verify_parsed(&pdu.event, &pdu.node, &pdu.signed, version, keys)?;
        let event = match verified {
            Verified::All => pdu.event,
            Verified::ContentHashMismatch => redact(&pdu.event, version)?,
        };
        Ok(Received { event, verified })
    }
}

/// Checks the signatures and the content hash of a parsed event. `keys` gives the keys that we hold of
/// a server and that were valid when the event was sent.
///
/// # Errors
/// [`VerifyError`]: the event is to be dropped.
pub fn verify(
    event: &Event,
    version: RoomVersion,
    keys: impl Fn(&ServerName, &KeyId) -> Option<PublicKey>,
) -> Result<Verified, VerifyError> {
    let broken = |error| VerifyError::Stored(StoredError::Canonical(error));
    let node = Node::parse(&event.json, MAX_JSON_DEPTH).map_err(broken)?;
    let content = redacted_content(&event.event_type, event.content.as_str(), version).map_err(broken)?;
    let mut signed = String::with_capacity(event.json.len());
    write_redacted(&mut signed, &node, &content, version, false).map_err(broken)?;
    verify_parsed(event, &node, &signed, version, keys)
}

/// The servers whose signature an event needs: its sender's, except for an invite that came of a
/// third-party invite, and the one that vouched for a restricted join.
///
/// # Errors
/// [`FormatError::Malformed`] when the vouching user is no user id.
pub fn required_signers(event: &Event) -> Result<BTreeSet<OwnedServerName>, FormatError> {
    let mut signers = BTreeSet::new();
    let content =
        Node::parse(event.content.as_str(), MAX_JSON_DEPTH).map_err(|_| FormatError::Malformed("content"))?;
    let is_member = &*event.event_type == "m.room.member";
    let third_party = is_member
        && content.field("membership").and_then(Node::as_str) == Some("invite")
        && matches!(content.field("third_party_invite"), Some(Node::Object(_)));
    if !third_party {
        signers.insert(event.sender.server_name().to_owned());
    }
    if is_member && let Some(voucher) = content.field("join_authorised_via_users_server") {
        let malformed = FormatError::Malformed("join_authorised_via_users_server");
        let voucher = voucher
            .as_str()
            .and_then(|id| <&UserId>::try_from(id).ok())
            .ok_or(malformed)?;
        signers.insert(voucher.server_name().to_owned());
    }
    Ok(signers)
}

fn verify_parsed(
    event: &Event,
    node: &Node<'_>,
    signed: &str,
    version: RoomVersion,
    keys: impl Fn(&ServerName, &KeyId) -> Option<PublicKey>,
) -> Result<Verified, VerifyError> {
    debug_assert!(version.rules().signatures.check_join_authorised_via_users_server);
    let signatures = node
        .field("signatures")
        .ok_or(FormatError::Missing("signatures"))?;
    for server in required_signers(event)? {
        verify_signer(&server, signatures, signed, &keys)?;
    }
    let claimed = node
        .field("hashes")
        .and_then(|hashes| hashes.field("sha256"))
        .and_then(Node::as_str)
        .ok_or(FormatError::Malformed("hashes"))?;
    let matches = BASE64
        .decode(claimed)
        .is_ok_and(|claimed| claimed == content_hash(node));
    Ok(if matches {
        Verified::All
    } else {
        Verified::ContentHashMismatch
    })
}

/// Every signature of this server under a key that we know must be right, and there must be one.
fn verify_signer(
    server: &OwnedServerName,
    signatures: &Node<'_>,
    signed: &str,
    keys: &impl Fn(&ServerName, &KeyId) -> Option<PublicKey>,
) -> Result<(), VerifyError> {
    let Some(Node::Object(by_key)) = signatures.field(server.as_str()) else {
        return Err(VerifyError::NoKnownSignature(server.clone()));
    };
    let mut known = false;
    for (key_id, signature) in by_key {
        let Ok(key_id) = key_id.parse::<KeyId>() else {
            continue;
        };
        let Some(key) = keys(server, &key_id) else {
            continue;
        };
        signature
            .as_str()
            .and_then(|text| Signature::from_base64(text).ok())
            .and_then(|signature| key.verify(signed.as_bytes(), &signature).ok())
            .ok_or_else(|| VerifyError::WrongSignature(server.clone()))?;
        known = true;
    }
    if known {
        Ok(())
    } else {
        Err(VerifyError::NoKnownSignature(server.clone()))
    }
}

/// The hash over the whole event without hashes, signatures and `unsigned`.
fn content_hash(node: &Node<'_>) -> [u8; 32] {
    let mut text = String::new();
    if let Node::Object(fields) = node {
        let hashed = fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_ref(), "hashes" | "signatures" | "unsigned"))
            .map(|(key, value)| (&**key, value));
        write_object(&mut text, hashed);
    }
    Sha256::digest(text.as_bytes()).into()
}
