//! The tables of rooms: their events, states, memberships, and what users have read of them.
//!
//! | file | what |
//! |---|---|
//! | `room.rs` | rooms that this server knows, published or not |
//! | `heads.rs` | heads: forward extremities and the current state of each |
//! | `memberships.rs`, `shared_rooms.rs` | who is in which room, who shares rooms with whom |
//! | `aliases.rs` | aliases of this server |
//! | `events.rs`, `event_sizes.rs`, `history.rs` | events, timelines, redactions, transaction ids; sizes and ids alone; what was when |
//! | `stream_reads.rs` | what a cursor has not seen |
//! | `gaps.rs` | gaps in timelines |
//! | `state.rs` | room states as runs, and the cache of runs |
//! | `relations.rs`, `threads.rs` | edits, reactions, replies, threads |
//! | `receipts.rs`, `notifications.rs` | read receipts, unread counts |
//! | `placeholder_rooms.rs` | rooms of which only an invitation is known |

pub mod aliases;
pub mod event_sizes;
pub mod events;
pub mod gaps;
pub mod heads;
pub(super) mod history;
pub mod memberships;
pub mod notifications;
pub(super) mod placeholder_rooms;
pub mod receipts;
pub mod relations;
pub mod room;
pub(super) mod shared_rooms;
pub mod state;
pub mod stream_reads;
pub mod threads;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

pub use aliases::NewAlias;
pub use heads::RoomHead;
pub use memberships::{Membership, StoredMembership};
pub use room::{NewRoom, StoredRoom};

/// The tables of rooms, and the room states that are in memory.
#[derive(Debug)]
pub struct RoomTables {
    readers: Readers,
    log: Arc<Log>,
    runs: state::RunCache,
}

impl RoomTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self {
            readers,
            log,
            runs: state::RunCache::default(),
        }
    }

    /// Rooms' states that are in memory.
    #[must_use]
    pub fn runs(&self) -> &state::RunCache {
        &self.runs
    }
}
