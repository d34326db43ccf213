//! The tables of media. The content itself lies in files (`server/src/media/files.rs`).
//!
//! | file | what |
//! |---|---|
//! | `uploads.rs` | media of this server's users |
//! | `remote_cache.rs` | media of other servers that are kept for a while |

pub mod remote_cache;
mod uploads;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

pub use uploads::{NewMedia, Put, StoredMedia};

/// The tables of media.
#[derive(Debug)]
pub struct MediaTables {
    readers: Readers,
    log: Arc<Log>,
}

impl MediaTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
