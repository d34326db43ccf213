//! Downloads: streamed from the storage.

use std::ops::Range;
use std::time::Duration;

use ruma::ServerName;
use tokio::time::{Instant, timeout_at};

use super::media_type::MediaType;
use super::storage::{ObjectName, Pieces, Readable};
use super::upload::clean_name;
use super::{Content, LONGEST_WAIT, Media, Source, check_id, storage, unknown};
use crate::refusal::Refusal;
use crate::store::media::StoredMedia;

/// Media types that a browser may show by itself, by the specification; everything else is saved to a file.
const SAFE_TO_SHOW: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// How long somebody who waits for an upload waits before the database is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A content, open for reading.
#[derive(Debug)]
pub struct Opened {
    /// Its size in bytes.
    pub size: u64,
    /// Its media type: one, as every reader reads it.
    pub content_type: String,
    /// The name that it is saved under.
    pub file_name: Option<String>,
    pub(super) content: Readable,
}

impl Opened {
    /// Gives it another name than that of its upload, cleaned like that one.
    #[must_use]
    pub fn named(self, file_name: &str) -> Self {
        Self {
            file_name: clean_name(file_name),
            ..self
        }
    }

    /// Some of its bytes, read as they are taken.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or when the storage cannot be read.
    pub async fn read(self, bytes: Range<u64>) -> Result<Pieces, Refusal> {
        self.content.read(bytes).await
    }

    /// Whether a browser may show it by itself.
    #[must_use]
    pub fn is_safe_to_show(&self) -> bool {
        MediaType::parse(&self.content_type)
            .is_some_and(|media_type| SAFE_TO_SHOW.iter().any(|safe| media_type.is(safe)))
    }
}

impl Media {
    /// Opens a content. Content that is being uploaded is waited for.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::NotYetUploaded`] when the wait was in vain.
    pub async fn open(
        &self,
        server_name: &ServerName,
        media_id: &str,
        wait: Duration,
    ) -> Result<Opened, Refusal> {
        let content = self.content(server_name, media_id, wait).await?;
        self.open_content(content).await
    }

    /// Opens a content for reading.
    pub(super) async fn open_content(&self, content: Content) -> Result<Opened, Refusal> {
        let readable = match &content.source {
            Source::Kept(object) => self.storage.open(object).await?,
            Source::Passing(passing) => {
                let file = tokio::fs::File::open(passing.path()).await;
                Readable::File(file.map_err(storage::refusal)?)
            }
        };
        Ok(Opened {
            content: readable,
            size: content.size,
            content_type: content
                .content_type
                .filter(|text| MediaType::parse(text).is_some())
                .unwrap_or_else(|| "application/octet-stream".to_owned()),
            file_name: content.file_name,
        })
    }

    /// A content of this server or of another one.
    pub(super) async fn content(
        &self,
        server_name: &ServerName,
        media_id: &str,
        wait: Duration,
    ) -> Result<Content, Refusal> {
        check_id(media_id)?;
        if server_name != self.identity.name() {
            return self.of_elsewhere(server_name, media_id).await;
        }
        let stored = self.find(server_name, media_id, wait).await?;
        Ok(Content {
            source: Source::Kept(ObjectName::content(&stored.sha256)),
            thumbnails: ObjectName::thumbnails(&stored.sha256),
            size: stored.size.unwrap_or(0),
            content_type: stored.content_type,
            file_name: stored.file_name,
        })
    }

    /// What is known of media whose content is there.
    async fn find(
        &self,
        server_name: &ServerName,
        media_id: &str,
        wait: Duration,
    ) -> Result<StoredMedia, Refusal> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        loop {
            let mut uploaded = std::pin::pin!(self.uploaded.notified());
            uploaded.as_mut().enable();
            let stored = self.tables.media(server_name.as_str(), media_id).await?;
            let stored = stored.ok_or_else(unknown)?;
            if stored.size.is_some() {
                return Ok(stored);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Refusal::NotYetUploaded);
            }
            // Another node may take the upload, which nobody hears of here.
            let _ = timeout_at(deadline.min(now + LOOK_AGAIN), uploaded).await;
        }
    }
}
