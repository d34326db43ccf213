//! The tables of nodes: which processes serve this database, and what one of them does alone.
//!
//! | file | what |
//! |---|---|
//! | `registry.rs` | who serves, with the beat by which others see that it lives |
//! | `notifications.rs` | what they tell each other beside the log, by PostgreSQL |
//! | `leases.rs` | what is held by one run at a time, with the fencing number that its effects are checked by |

mod leases;
mod notifications;
mod registry;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

pub(in crate::store) use leases::check_lease;
pub use leases::{Claim, Lease, StoredLease};
pub use notifications::Notification;
pub use registry::{NewNode, StoredNode};

/// One start of a node, by a random number. A node that starts again under the same name is another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub i64);

/// The tables of nodes.
#[derive(Debug)]
pub struct NodeTables {
    readers: Readers,
    log: Arc<Log>,
}

impl NodeTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }

    /// Whether this process has the database to itself: then nothing beats, and every other run is dead.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.readers.is_sqlite()
    }
}
