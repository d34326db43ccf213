//! What the machine of a reader wants done, and what it is told.

use std::time::Duration;

use maru_protocol::cursor::Position;

/// How a reader works.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Positions that are handed on together at most.
    pub positions: usize,
    /// Bytes of the events that are handed on together at most, but for a single position that has more.
    pub bytes: usize,
    /// How many times as long as a part took it is idle after it, so that it takes no more than its share of the machine and the
    /// database while there is much to do; some seconds at most.
    pub idle: u32,
    /// How long after a page to read the next one, so that pages become fuller, unless the last one was full.
    pub linger: Duration,
    /// How often to look when nobody says that there is something new.
    pub poll: Duration,
    /// How long what was dealt with without effects may stay unstored.
    pub store_after: Duration,
    /// How often one position is tried.
    pub tries: u32,
    /// The pause after a first failure; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            positions: 500,
            bytes: 4 << 20,
            idle: 0,
            linger: Duration::from_millis(50),
            poll: Duration::from_secs(3),
            store_after: Duration::from_secs(2),
            tries: 5,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the cursor as it is stored.
    Load,
    /// Read the log after a position.
    Read(Position),
    /// Hand on what stands in the page after one position and up to another.
    Handle(Part),
    /// Store the effects of what was handed on last, if any, and move the stored cursor from one position to another.
    Advance(Step),
    /// Move the stored cursor past the position at its end, which is set aside.
    GoPast(Step, String),
    /// Store that the reader has failed so many times in a row, and why.
    NoteFailure {
        /// Where the stored cursor stands.
        at: Position,
        /// How many times in a row.
        failures: u32,
        /// Why.
        why: String,
    },
    /// Store that the reader is paused where the stored cursor stands, and why.
    Rest(Position, String),
}

/// A part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Positions after this one.
    pub after: Position,
    /// Up to this one.
    pub up_to: Position,
}

/// A move of the stored cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it stands.
    pub from: Position,
    /// Where it stands afterwards.
    pub to: Position,
    /// Records between, as far as this machine has read them.
    pub records: u64,
}

/// Why an action did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Something that is needed does not answer: the same again later.
    ForNow(String),
    /// Perhaps what was handed on cannot be dealt with.
    ForGood(String),
    /// The stored cursor stands elsewhere, or is paused.
    CursorMoved,
    /// The lease is not held any more.
    LeaseLost,
    /// Too much is set aside already: the reader was paused instead.
    TooMuchSetAside,
    /// Nothing that this reader does will help: it has to be looked at.
    Stuck(String),
}

/// The cursor as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where it stands.
    pub position: Position,
    /// Whether the reader is to rest.
    pub paused: bool,
}

/// What came of a read: the positions of its records in order, each as often as it has records, and up to where
/// everything is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The positions.
    pub positions: Vec<Position>,
    /// At least the last of them, or the position that was read after.
    pub end: Position,
}

/// What an admin sees of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Up to where everything is dealt with; none while that is not known.
    pub reached: Option<Position>,
    /// Whether it holds its lease.
    pub leads: bool,
    /// Whether it is paused.
    pub paused: bool,
}
