//! The index of full-text search: which events hold which tokens. The texts themselves are not in it.
//!
//! SQLite has it as a contentless FTS5 table, PostgreSQL as a `tsvector` with a GIN index, both without positions. What a
//! token is decides who writes the index; here they are words without spaces. Beside those of its text, a document has
//! *marks*, tokens that no text has: its room, its sender, and what of the event it is.
//!
//! | file | what |
//! |---|---|
//! | this file | what a document is, and where it stands among all |
//! | `change.rs` | documents come and go, with the cursor of the reader that writes them |
//! | `candidates.rs` | documents that may be what somebody looks for |

mod candidates;
mod change;

use std::sync::Arc;

use maru_protocol::state::EventNid;
use sha2::{Digest, Sha256};

use super::engine::Readers;
use super::log::Log;

pub use candidates::{Candidates, Scope};
pub use change::{Document, IndexChange};

/// What of an event is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The body of a message.
    Body,
    /// The name of a room.
    Name,
    /// The topic of a room.
    Topic,
}

/// Where a document stands among all of them: by the time that its event's sender claims and, of the same time, by the
/// event's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    sent_at: i64,
    event: EventNid,
}

impl DocumentKey {
    /// Bits of an event's number in the number of a row on SQLite, whose rows are walked from the newest: of events of the
    /// same millisecond, a million in a row have different ones.
    const EVENT_BITS: u32 = 20;

    /// The last millisecond that is told from later ones: in the year 2248.
    const LAST_MS: i64 = (1 << (63 - Self::EVENT_BITS)) - 1;

    /// Where an event stands that claims to be of a time, in milliseconds since 1970.
    #[must_use]
    pub fn new(origin_server_ts: u64, event: EventNid) -> Self {
        let sent_at = i64::try_from(origin_server_ts).unwrap_or(i64::MAX);
        Self::from_parts(sent_at, event)
    }

    /// Where an event stands, by the two numbers of [`DocumentKey::parts`].
    #[must_use]
    pub fn from_parts(sent_at: i64, event: EventNid) -> Self {
        Self {
            sent_at: sent_at.clamp(0, Self::LAST_MS),
            event,
        }
    }

    /// The time and the event's number.
    #[must_use]
    pub fn parts(self) -> (i64, EventNid) {
        (self.sent_at, self.event)
    }

    /// The number of its row on SQLite.
    fn row(self) -> i64 {
        (self.sent_at << Self::EVENT_BITS) | (self.event.0 & ((1 << Self::EVENT_BITS) - 1))
    }

    /// Where the document of a row stands.
    fn of_row(row: i64, event: EventNid) -> Self {
        Self::from_parts(row >> Self::EVENT_BITS, event)
    }
}

/// The index of full-text search.
#[derive(Debug)]
pub struct SearchTables {
    readers: Readers,
    log: Arc<Log>,
}

impl SearchTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}

/// The mark of a room (rooms.nid).
fn room_mark(room: i64) -> String {
    format!("¶{room}")
}

/// The mark of a sender. Two senders may have the same: the event is looked at.
fn sender_mark(sender: &str) -> String {
    let hash = Sha256::digest(sender.as_bytes());
    let digits = hash.iter().take(6).map(|byte| format!("{byte:02x}"));
    digits.fold("¤".to_owned(), |mark, digits| mark + &digits)
}

/// The mark of what of an event is searched; messages, of which there are most, have none.
fn subject_mark(subject: Subject) -> Option<&'static str> {
    match subject {
        Subject::Body => None,
        Subject::Name => Some("§name"),
        Subject::Topic => Some("§topic"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_time() {
        let key = |sent_at, event| DocumentKey::new(sent_at, EventNid(event));
        let ordered = [key(0, 5), key(1, 1), key(1, 2), key(2, 1 << 40), key(u64::MAX, 3)];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].row() < pair[1].row(), "{pair:?}");
            let (_, event) = pair[0].parts();
            assert_eq!(DocumentKey::of_row(pair[0].row(), event), pair[0]);
        }
        assert!(key(u64::MAX, i64::MAX).row() > 0);
    }

    #[test]
    fn marks_are_no_tokens_of_texts() {
        let sender = "@alice:example.org";
        for mark in [room_mark(12), sender_mark(sender), "§name".to_owned()] {
            assert!(
                mark.starts_with(|c: char| !c.is_alphanumeric() && !c.is_ascii()),
                "{mark}"
            );
        }
        assert_eq!(sender_mark(sender).len(), "¤".len() + 12);
    }
}
