//! The tables of readers: who follows the log by itself, how far each has come, and what it went past.
//!
//! A cursor moves only from where it stood, in a transaction that checks the lease of whoever moves it: what is done in
//! the same transaction is done once, whoever was paused or came back in the meantime.
//!
//! | file | what |
//! |---|---|
//! | `cursors.rs` | where readers are, and how they move on |
//! | `set_aside.rs` | records that a reader could not deal with |
//! | `effects.rs` | what a reader does in the transaction that moves its cursor |

mod cursors;
mod effects;
mod set_aside;

use std::fmt;
use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

pub use cursors::{ALL_STORED, Advance, StoredReader, Track};
pub use effects::Effects;
pub use set_aside::{NewSetAside, SetAside};

/// A reader, or one of several that share the work of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId {
    /// The reader's name.
    pub name: Arc<str>,
    /// Which of those that share its work, from 0.
    pub shard: u32,
}

impl fmt::Display for ReaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.shard)
    }
}

/// The tables of readers.
#[derive(Debug)]
pub struct ReaderTables {
    readers: Readers,
    log: Arc<Log>,
}

impl ReaderTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
