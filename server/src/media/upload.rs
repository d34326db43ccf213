//! Uploads: streamed to the spool, never held in memory, and made objects when they are complete.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ruma::{OwnedMxcUri, ServerName, UserId};

use super::storage::{self, Arrival, Complete, new_media_id};
use super::{Media, ObjectName, unknown};
use crate::refusal::Refusal;
use crate::store::media::{NewMedia, Put};

/// Longest file name that is kept, in bytes.
const NAME_BYTES: usize = 255;

/// How long the next piece of an upload may take.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Media that one user may have created and not uploaded.
const CREATED_PER_USER: i64 = 100;

/// How long created media wait for their content, in milliseconds.
const CREATED_MS: u64 = 24 * 60 * 60_000;

/// What a client says of an upload.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The media type.
    pub content_type: Option<String>,
    /// The name of the file.
    pub file_name: Option<String>,
    /// The size in bytes, where it is known beforehand.
    pub size: Option<u64>,
}

impl Media {
    /// Takes an upload; its address.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`], before anything is read where the size is known; [`Refusal::Unavailable`] when the disk is
    /// full; [`Refusal::Forbidden`] when the user has uploaded too much, [`Refusal::LimitExceeded`] when too many uploads
    /// of the user are under way.
    pub async fn upload<E: std::fmt::Display>(
        &self,
        user_id: &UserId,
        about: About,
        content: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<OwnedMxcUri, Refusal> {
        let media_id = new_media_id();
        self.receive(user_id, &media_id, about, content).await?;
        Ok(self.address(&media_id))
    }

    /// Makes an address for content that will be uploaded later, and when that must have happened (milliseconds since
    /// 1970).
    ///
    /// # Errors
    /// [`Refusal::LimitExceeded`] when too many wait for their content.
    pub async fn create(&self, user_id: &UserId) -> Result<(OwnedMxcUri, u64), Refusal> {
        let media_id = new_media_id();
        let now = self.clock.now_ms();
        let forgotten = i64::try_from(now.saturating_sub(CREATED_MS)).unwrap_or(0);
        let name = self.identity.name().as_str();
        let created = self
            .tables
            .create_media(name, &media_id, user_id, self.now(), forgotten, CREATED_PER_USER)
            .await?;
        if !created {
            return Err(Refusal::LimitExceeded {
                retry_after: Duration::from_secs(60),
            });
        }
        Ok((self.address(&media_id), now + CREATED_MS))
    }

    /// Takes the content of media that the user created before.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`] for somebody else's, [`Refusal::CannotOverwriteMedia`] when the
    /// content is there; and those of [`Media::upload`].
    pub async fn upload_created<E: std::fmt::Display>(
        &self,
        user_id: &UserId,
        server_name: &ServerName,
        media_id: &str,
        about: About,
        content: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<(), Refusal> {
        self.check_own(server_name, media_id)?;
        let stored = self.tables.media(server_name.as_str(), media_id).await?;
        let stored = stored.ok_or_else(unknown)?;
        if stored.user_id.as_deref() != Some(user_id) {
            return Err(Refusal::forbidden("this address was made for somebody else"));
        }
        if stored.size.is_some() {
            return Err(Refusal::CannotOverwriteMedia);
        }
        if stored.created_at.saturating_add_unsigned(CREATED_MS) < self.now() {
            return Err(unknown());
        }
        self.receive(user_id, media_id, about, content).await
    }

    async fn receive<E: std::fmt::Display>(
        &self,
        user_id: &UserId,
        media_id: &str,
        about: About,
        mut content: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
    ) -> Result<(), Refusal> {
        let mut underway = self.underway.begin(user_id, media_id)?;
        let largest = self.limits.largest;
        let too_large = || Refusal::TooLarge(format!("an upload has at most {largest} bytes"));
        if about.size.is_some_and(|size| size > largest) {
            return Err(too_large());
        }
        let used = self.tables.media_bytes(user_id).await?;
        let left = self.limits.of_user.saturating_sub(used);
        if about.size.is_some_and(|size| size > left) {
            return Err(self.over_quota());
        }
        let mut file = self.storage.begin().await?;
        loop {
            let next = tokio::time::timeout(LONGEST_PAUSE, content.next()).await;
            let Some(bytes) = next.map_err(|_| broken_off("it paused for too long"))? else {
                break;
            };
            let bytes = bytes.map_err(|error| broken_off(&error.to_string()))?;
            if file.size() + bytes.len() as u64 > largest {
                return Err(too_large());
            }
            if !underway.bring(bytes.len() as u64, left) {
                return Err(self.over_quota());
            }
            file.write(bytes).await.map_err(storage::refusal)?;
        }
        let file = file.complete().await.map_err(storage::refusal)?;
        let media = NewMedia {
            media_id: media_id.to_owned(),
            user_id: user_id.to_owned(),
            content_type: about.content_type.and_then(clean_type),
            file_name: about.file_name.as_deref().and_then(clean_name),
            size: file.size(),
            sha256: file.sha256(),
            created_at: self.now(),
        };
        self.settle(file, media).await?;
        self.uploaded.notify_waiters();
        Ok(())
    }

    /// Makes a complete content an object and notes it. Where it is not noted, the object goes, unless other media have the
    /// same content or are about to. What is cut off on the way is found by [`Media::sweep`].
    async fn settle(&self, file: Complete, media: NewMedia) -> Result<(), Refusal> {
        let arrival = Arrival::Content(media.sha256);
        let object = self.begin_arrival(&arrival).await?;
        self.storage.keep(file, &object).await?;
        let name = self.identity.name().as_str();
        let quota = self.limits.of_user;
        let put = self.tables.put_media(name, media, &object.path(), quota).await;
        // When the database does not say, the object stays for now: something may refer to it.
        let refused = match put? {
            Put::Stored => return Ok(()),
            Put::HasContent => Refusal::CannotOverwriteMedia,
            Put::OverQuota => self.over_quota(),
        };
        let path = object.path();
        let goes = self.tables.give_up_arrival(&path, arrival.sha256(), self.now());
        if goes.await? {
            self.remove(&arrival).await?;
        }
        Err(refused)
    }

    /// Notes that an object is about to get its name; the name.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] while it is being removed.
    pub(super) async fn begin_arrival(&self, arrival: &Arrival) -> Result<ObjectName, Refusal> {
        let object = arrival.object();
        match self.tables.begin_arrival(&object.path(), self.now()).await? {
            true => Ok(object),
            false => Err(Refusal::Unavailable(format!(
                "{} is just being removed",
                object.path()
            ))),
        }
    }

    fn over_quota(&self) -> Refusal {
        let quota = self.limits.of_user;
        Refusal::forbidden(format!("all your uploads together have at most {quota} bytes"))
    }

    fn address(&self, media_id: &str) -> OwnedMxcUri {
        format!("mxc://{}/{media_id}", self.identity.name()).into()
    }
}

fn broken_off(why: &str) -> Refusal {
    Refusal::invalid(format!("the upload broke off: {why}"))
}

/// A media type that can stand in a header.
pub(super) fn clean_type(text: String) -> Option<String> {
    let plain = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    (plain && text.len() <= NAME_BYTES).then_some(text)
}

/// A file name without what could mislead or leave a folder: control characters, separators, direction marks.
pub(super) fn clean_name(name: &str) -> Option<String> {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '/' | '\\' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut clean: String = name.chars().map(|c| if odd(c) { '_' } else { c }).collect();
    while clean.len() > NAME_BYTES {
        clean.pop();
    }
    let clean = clean.trim_matches(['.', ' ']);
    (!clean.is_empty()).then(|| clean.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_cannot_mislead() {
        let clean = |name| clean_name(name).unwrap_or_default();
        assert_eq!(clean("holiday.jpeg"), "holiday.jpeg");
        assert_eq!(clean("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(clean("a\r\nSet-Cookie: b"), "a__Set-Cookie: b");
        assert_eq!(clean("gpj.\u{202e}exe"), "gpj._exe");
        assert_eq!(clean(".."), "");
        assert!(clean(&"ä".repeat(300)).len() <= NAME_BYTES);
    }
}
