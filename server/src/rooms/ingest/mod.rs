//! Ingest of events of other servers: the rules decide ([`maru_protocol::ingest`]), this loads what they ask for and stores the
//! outcomes.
//!
//! - [`live`]: events that move the room's head. [`backfill`]: older ones, which do not.
//! - [`outliers`]: events of auth chains and of other servers' states, which have no place in a timeline.
//! - [`join_import`]: a whole room, when a user of this server joins it through another.
//! - [`gaps`]: gaps of timelines, and what is missing in them.
//! - [`facts`]: loading what the rules ask for. [`verdict`]: the verdict. [`records`]: what it writes.
//! - [`redactions`]: what a received redaction takes away, now or later.
//! - [`room_lock`]: the lock of a room under which all of this is stored.

mod backfill;
pub(super) mod facts;
pub(super) mod gaps;
pub(super) mod join_import;
pub(super) mod live;
pub(super) mod outliers;
mod records;
mod redactions;
pub(super) mod room_lock;
mod verdict;

use std::sync::Arc;

use maru_protocol::event::Event;
use maru_protocol::ingest::{Outcome, Verdict};
use maru_protocol::state::State;
use ruma::OwnedEventId;

pub use join_import::JoinImport;
pub use room_lock::IngestLock;

/// Verdicts of one server's events that may take long and are reached at the same time.
pub(super) const OF_ONE: usize = 1;

/// Verdicts of one server's events that wait; one room has one at a time.
pub(super) const MOST_WAITING: usize = 1_000;

/// Such verdicts of all servers: half of the cores, since everybody else's work goes on beside them, but more than one
/// server's.
pub(super) fn at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(2).max(2)
}

/// An event whose format, signatures and hash are verified.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event.
    pub event: Arc<Event>,
    /// Its row in the inbox, which goes when it is dealt with.
    pub inbox: Option<i64>,
    /// The state before it, when a peer had to tell.
    pub before: Option<State>,
    /// Whether it is older than what the room goes on from.
    pub backfilled: bool,
    /// Whether a server in the room has let it in already ([`Received::accepted`](maru_protocol::ingest::Received::accepted)).
    pub accepted: bool,
    /// Whether this server made it, and is the one to send it.
    pub own: bool,
    /// The redaction that came before it and emptied it.
    pub(super) redacted_by: Option<OwnedEventId>,
}

impl Incoming {
    /// An event that the room goes on with.
    #[must_use]
    pub fn live(event: Arc<Event>) -> Self {
        Self {
            event,
            inbox: None,
            before: None,
            backfilled: false,
            accepted: false,
            own: false,
            redacted_by: None,
        }
    }
}

/// Outcome of the ingest of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestResult {
    /// It was here already, and had become this.
    Known(Outcome),
    /// It is on disk.
    Stored(Verdict),
    /// These have to come first.
    Lacks {
        /// Events before it.
        prev_events: Vec<OwnedEventId>,
        /// Events that are said to allow it.
        auth_events: Vec<OwnedEventId>,
    },
    /// Its forks cannot be resolved; it is dropped.
    Broken(String),
    /// The verdict on it needs more events than one may look at; it is dropped.
    TooCostly,
}

impl IngestResult {
    /// What the event is to the room, now or since it came first; none where that is not known yet.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Known(outcome) => Some(*outcome),
            Self::Stored(verdict) => Some(verdict.outcome),
            Self::Lacks { .. } | Self::Broken(_) | Self::TooCostly => None,
        }
    }

    /// The outcome, as metrics write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Known(_) => "known",
            Self::Stored(verdict) => match verdict.outcome {
                Outcome::Accepted => "accepted",
                Outcome::SoftFailed => "soft_failed",
                Outcome::Rejected => "rejected",
            },
            Self::Lacks { .. } => "lacking",
            Self::Broken(_) => "broken",
            Self::TooCostly => "too_costly",
        }
    }
}
