//! Media: what users upload and download (client-server API, "Content repository"). What is known of them lies in the
//! database, their content in objects that are written once and never changed: in the data folder, or in a bucket that
//! several nodes share ([`storage`]).

mod download;
mod media_type;
mod remote;
mod storage;
mod sweep;
mod thumbnail;
mod upload;
mod uploads_in_progress;

use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedUserId, ServerName};
use tokio::sync::Notify;

pub use download::Opened;
pub use remote::{Fetched, OtherServers};
pub use storage::{BucketSettings, Pieces, Storage};
pub use thumbnail::ThumbnailSize;
pub use upload::About;

use crate::clock::Clock;
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::store::media::MediaTables;
use remote::{Elsewhere, Passing};
use storage::ObjectName;
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
    storage: Storage,
    limits: MediaLimits,
    elsewhere: Elsewhere,
    /// Tells those who wait that an upload is complete.
    uploaded: Notify,
    thumbnails: FairSemaphore<OwnedUserId>,
    underway: Arc<Underway>,
}

/// How much media may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MediaLimits {
    /// The largest upload, and the largest file of another server.
    pub largest: u64,
    /// All uploads of one user together.
    pub of_user: u64,
    /// Files of other servers that are kept.
    pub cached: u64,
}

/// A content that is here.
#[derive(Clone, Debug)]
struct Content {
    source: Source,
    /// What its thumbnails are called, before their sizes.
    thumbnails: ObjectName,
    /// In bytes.
    size: u64,
    content_type: Option<String>,
    file_name: Option<String>,
}

/// Where a content is read.
#[derive(Clone, Debug)]
enum Source {
    /// In the storage.
    Kept(ObjectName),
    /// In a file that is held for as long as it is used, and not kept.
    Passing(Arc<Passing>),
}

impl Media {
    /// Media in a storage.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        tables: Arc<MediaTables>,
        storage: Storage,
        limits: MediaLimits,
    ) -> Self {
        Self {
            identity,
            clock,
            tables,
            storage,
            limits,
            elsewhere: Elsewhere::default(),
            uploaded: Notify::new(),
            thumbnails: FairSemaphore::new(THUMBNAILS_AT_ONCE, 1, THUMBNAILS_WAITING),
            underway: Arc::default(),
        }
    }

    /// Largest upload, in bytes.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.limits.largest
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
