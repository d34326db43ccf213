//! Ingest: what becomes of an event that another server sent (`spec/federation.md`, "Events";
//! server-server specification, "Checks performed on receipt of a PDU").
//!
//! Pure: the caller hands in the event, whose format, signatures and hash it has verified ([`Event::receive`]), the
//! room's [`Head`] and the [`Facts`] it has loaded. The answer is a [`Step`]: facts to load before asking again, events
//! that the replica lacks and has to fetch, or the verdict with the head after it. Nothing is stored and nothing is
//! waited for here, so the server runs these steps on its database and a simulation on a model.
//!
//! The checks, in order:
//!
//! 1. the event's `auth_events` are known, none is rejected, and they allow it (`Rejected` otherwise);
//! 2. the state before it, made of the states after its `prev_events`, allows it (`Rejected` otherwise);
//! 3. the room's current state allows it (`SoftFailed` otherwise).

mod facts;
mod head;
mod judge;
mod merge;
#[cfg(test)]
mod tests;

pub use facts::{After, Facts, Known, Wanted};
pub use head::{Extremity, Head};
pub use judge::{Ingested, Outlier, Received, Step, ingest, judge_outlier};
pub use merge::merge;

use crate::auth::Denied;

/// What the rules say of an event. Stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Part of the room.
    Accepted = 0,
    /// Allowed where it was made and no longer now: kept for the graph, shown to nobody.
    SoftFailed = 1,
    /// Never allowed.
    Rejected = 2,
}

/// An outcome with its reason, unless the event is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of the event.
    pub outcome: Outcome,
    /// Why it is not accepted, for people.
    pub reason: Option<Denied>,
}

impl Verdict {
    /// Nothing speaks against it.
    #[must_use]
    pub fn accepted() -> Self {
        Self {
            outcome: Outcome::Accepted,
            reason: None,
        }
    }

    fn of(outcome: Outcome, reason: Denied) -> Self {
        Self {
            outcome,
            reason: Some(reason),
        }
    }
}
