//! The tables of media. The content itself lies in objects (`server/src/media/storage/`).
//!
//! | file | what |
//! |---|---|
//! | `arrivals.rs` | objects that nothing may refer to yet |
//! | `uploads.rs` | media of this server's users |
//! | `remote_cache.rs` | media of other servers that are kept for a while |

mod arrivals;
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
