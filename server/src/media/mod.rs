//! Media: what users upload and download (client-server API, "Content repository"). What is known of them lies in the
//! database, their content in files that are written once and never changed.

mod download;
mod files;
mod media_type;
mod remote;
mod sweep;
mod thumbnail;
mod upload;
mod uploads_in_progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedUserId, ServerName};
use tokio::sync::Notify;

pub use download::Opened;
pub use remote::{Fetched, OtherServers};
pub use thumbnail::ThumbnailSize;
pub use upload::About;

use crate::clock::Clock;
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::store::media::MediaTables;
use files::Files;
use remote::{Elsewhere, Passing};
use uploads_in_progress::Underway;

/// Thumbnails that are made at once: each holds a decoded picture in memory. Of one user one is made at a time.
const THUMBNAILS_AT_ONCE: usize = 2;

/// Requests of one user for thumbnails that may wait.
const THUMBNAILS_WAITING: usize = 100;

/// How long somebody who asks for media that are being uploaded waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Everything that media need to work.
#[derive(Debug)]
pub struct Media {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    tables: Arc<MediaTables>,
    files: Files,
    /// Largest upload, in bytes.
    largest: u64,
    /// All uploads of one user together, in bytes.
    quota: u64,
    elsewhere: Elsewhere,
    /// Tells those who wait that an upload is complete.
    uploaded: Notify,
    thumbnails: FairSemaphore<OwnedUserId>,
    underway: Arc<Underway>,
    /// One turn for each content at a time: it is noted, or its file goes.
    settling: FairSemaphore<[u8; 32]>,
}

/// A content on this disk.
#[derive(Clone, Debug)]
struct Content {
    path: PathBuf,
    /// What the files of its thumbnails are called, before their sizes.
    thumbnails: PathBuf,
    /// In bytes.
    size: u64,
    content_type: Option<String>,
    file_name: Option<String>,
    /// Held for as long as the file is used, where it is not kept.
    passing: Option<Arc<Passing>>,
}

impl Media {
    /// Media in the data folder `data`, of at most `largest` bytes each and `quota` bytes of one user. Of those of other
    /// servers at most `cache` bytes are kept. Folders are made when they are first needed.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        tables: Arc<MediaTables>,
        data: &Path,
        largest: u64,
        quota: u64,
        cache: u64,
    ) -> Self {
        Self {
            identity,
            clock,
            tables,
            files: Files::new(data),
            largest,
            quota,
            elsewhere: Elsewhere::new(cache),
            uploaded: Notify::new(),
            thumbnails: FairSemaphore::new(THUMBNAILS_AT_ONCE, 1, THUMBNAILS_WAITING),
            underway: Arc::default(),
            settling: FairSemaphore::new(usize::MAX, 1, usize::MAX),
        }
    }

    /// Largest upload, in bytes.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Refuses media of other servers, which are not uploaded here, and ids that no server gives.
    fn check_own(&self, server_name: &ServerName, media_id: &str) -> Result<(), Refusal> {
        check_id(media_id)?;
        if server_name == self.identity.name() {
            return Ok(());
        }
        Err(unknown())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }
}

fn unknown() -> Refusal {
    Refusal::not_found("this server has no such media")
}

/// Refuses ids that no server gives.
fn check_id(media_id: &str) -> Result<(), Refusal> {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !media_id.is_empty() && media_id.len() <= 255 && media_id.chars().all(safe) {
        return Ok(());
    }
    Err(unknown())
}
