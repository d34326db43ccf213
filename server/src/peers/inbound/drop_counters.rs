//! What peers sent and no room ever sees: why, and how often.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use maru_protocol::event::{FormatError, ParseError, VerifyError};
use thiserror::Error;

/// Why an event is dropped before any room sees it (`spec/federation.md`, "On receipt").
#[derive(Debug, Error)]
pub(in crate::peers) enum Dropped {
    /// Form, signature or hash.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It belongs to another room than it was sent for.
    #[error("the event belongs to another room")]
    OtherRoom,
    /// The room's server ACL keeps the server out.
    #[error("the room does not let the server take part")]
    KeptOut,
    /// It came by the log of a server that its sender is not on.
    #[error("the event is of a user of another server")]
    OtherServer,
    /// What it names as before it cannot be had from anybody.
    #[error("nobody gives the events that it names")]
    Unplaceable,
    /// It comes in an answer that is larger than any may be, or than its peer said.
    #[error("more is told than may be")]
    TooMuch,
    /// What a server answers to somebody who wants to join its room does not hold.
    #[error("what a server tells of its room does not hold")]
    WrongAnswer,
    /// The forks that it joins cannot be resolved.
    #[error("{0}")]
    Broken(String),
    /// The verdict on it needs more events than one may look at.
    #[error("the verdict on it needs too many events")]
    TooCostly,
}

impl Dropped {
    /// The reason as metrics and the counts of [`DropCounters`] name it.
    fn name(&self) -> &'static str {
        match self {
            Self::Verify(VerifyError::NoKnownSignature(_)) => "no_known_signature",
            Self::Verify(VerifyError::WrongSignature(_)) => "wrong_signature",
            Self::Verify(VerifyError::Parse(ParseError::Format(FormatError::TooLarge { .. }))) => "too_large",
            Self::Verify(_) => "malformed",
            Self::OtherRoom => "other_room",
            Self::KeptOut => "kept_out",
            Self::OtherServer => "other_server",
            Self::Unplaceable => "unplaceable",
            Self::TooMuch => "too_much",
            Self::WrongAnswer => "wrong_answer",
            Self::Broken(_) => "broken",
            Self::TooCostly => "too_costly",
        }
    }
}

/// Counts of dropped events by reason. The reasons are our own words, hence few.
#[derive(Debug, Default)]
pub(in crate::peers) struct DropCounters(Mutex<BTreeMap<&'static str, u64>>);

impl DropCounters {
    pub(in crate::peers) fn count(&self, why: &Dropped) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(why.name()).or_default() += 1;
    }

    pub(in crate::peers) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
