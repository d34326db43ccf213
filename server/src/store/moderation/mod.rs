//! The tables of moderation: what the admin is to look at.
//!
//! | file | what |
//! |---|---|
//! | `reports.rs` | what users have reported |

pub mod reports;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

/// The tables of moderation.
#[derive(Debug)]
pub struct ModerationTables {
    readers: Readers,
    log: Arc<Log>,
}

impl ModerationTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
