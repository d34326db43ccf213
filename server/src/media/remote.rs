//! Media of other servers: fetched when somebody asks for them, kept while there is room, the longest unused going first.
//!
//! A fetch is streamed to the spool and shown when it is complete: an answer with fewer or more bytes than it announced is
//! void. Those who ask for one file at the same time share one fetch.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use ruma::{OwnedServerName, ServerName};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use super::storage::{Arrival, Complete, ObjectName};
use super::upload::{clean_name, clean_type};
use super::{Content, Media, Source, storage, unknown};
use crate::refusal::Refusal;
use crate::store::media::remote_cache::CachedMedia;

/// Files that are fetched at the same time.
const FETCHES_AT_ONCE: usize = 32;

/// How much of the budget is left filled when it was exceeded, in hundredths: so that not every fetch has to clear up.
const FILLED_AFTER: u64 = 90;

/// How long a file may have been unused without that being noted, in milliseconds: an hour.
const USE_NOTED_AFTER: i64 = 60 * 60 * 1000;

/// The way to media of other servers.
pub trait OtherServers: Send + Sync + fmt::Debug {
    /// Asks the server of a file for it. Each step is bounded in time.
    fn fetch<'a>(
        &'a self,
        server_name: &'a ServerName,
        media_id: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, Refusal>>;
}

/// The beginning of an answer.
pub struct Fetched {
    /// Its bytes altogether, as it was announced.
    pub length: u64,
    /// Its media type, as its uploader claimed it.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
    /// The bytes. Whoever sends more or fewer than announced has sent nothing.
    pub content: BoxStream<'static, Result<Bytes, Refusal>>,
}

/// Media of other servers, as far as they are here.
#[derive(Debug)]
pub(super) struct Elsewhere {
    road: OnceLock<Weak<dyn OtherServers>>,
    fetches: Mutex<HashMap<(OwnedServerName, String), Arc<Fetch>>>,
    permits: Semaphore,
}

/// A fetch and its outcome.
type Fetch = OnceCell<Result<Content, Refusal>>;

/// A file that goes when nobody uses it any more: there is no room to keep it.
#[derive(Debug)]
pub(super) struct Passing(Complete);

impl Passing {
    /// Where it is for as long as this value lives.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self {
            road: OnceLock::new(),
            fetches: Mutex::default(),
            permits: Semaphore::new(FETCHES_AT_ONCE),
        }
    }
}

impl Elsewhere {
    fn fetches(&self) -> MutexGuard<'_, HashMap<(OwnedServerName, String), Arc<Fetch>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What objects of media of another server are named by.
fn address_hash(server_name: &ServerName, media_id: &str) -> [u8; 32] {
    Sha256::digest(format!("{server_name}/{media_id}")).into()
}

/// The path of the object of a file of another server.
fn object_of(server_name: &ServerName, media_id: &str) -> String {
    ObjectName::cached(&address_hash(server_name, media_id)).path()
}

impl Media {
    /// Says by which way other servers are asked; before, none of them can be reached. Only the first way counts.
    pub fn reach_others_by(&self, others: Weak<dyn OtherServers>) {
        let _ = self.elsewhere.road.set(others);
    }

    /// Media of another server, from here if they are kept, else from there.
    pub(super) async fn of_elsewhere(
        &self,
        server_name: &ServerName,
        media_id: &str,
    ) -> Result<Content, Refusal> {
        if let Some(kept) = self.kept(server_name, media_id).await? {
            return Ok(kept);
        }
        let key = (server_name.to_owned(), media_id.to_owned());
        let fetch = Arc::clone(self.elsewhere.fetches().entry(key.clone()).or_default());
        let fetched = fetch
            .get_or_init(|| self.fetch(server_name, media_id))
            .await
            .clone();
        let mut fetches = self.elsewhere.fetches();
        if fetches.get(&key).is_some_and(|other| Arc::ptr_eq(other, &fetch)) {
            fetches.remove(&key);
        }
        fetched
    }

    /// Media that are kept here.
    async fn kept(&self, server_name: &ServerName, media_id: &str) -> Result<Option<Content>, Refusal> {
        let Some(cached) = self.tables.cached_media(server_name, media_id).await? else {
            return Ok(None);
        };
        let hash = address_hash(server_name, media_id);
        let object = ObjectName::cached(&hash);
        // A backup does not hold what can be fetched again.
        if !self.storage.has(&object).await? {
            return Ok(None);
        }
        let now = self.now();
        if now.saturating_sub(cached.used_at) > USE_NOTED_AFTER {
            self.tables.use_cached_media(server_name, media_id, now).await?;
        }
        Ok(Some(Content {
            source: Source::Kept(object),
            thumbnails: ObjectName::cached_thumbnails(&hash),
            size: cached.size,
            content_type: cached.content_type,
            file_name: cached.file_name,
        }))
    }

    async fn fetch(&self, server_name: &ServerName, media_id: &str) -> Result<Content, Refusal> {
        let road = self.elsewhere.road.get().and_then(Weak::upgrade);
        let road = road.ok_or_else(unknown)?;
        let _permit = self
            .elsewhere
            .permits
            .acquire()
            .await
            .map_err(Refusal::internal)?;
        let fetched = road.fetch(server_name, media_id).await?;
        let largest = self.limits.largest;
        if fetched.length > largest {
            return Err(Refusal::TooLarge(format!(
                "the file has more than {largest} bytes"
            )));
        }
        let hash = address_hash(server_name, media_id);
        let mut file = self.storage.begin().await?;
        let mut content = fetched.content;
        while let Some(bytes) = content.next().await {
            let bytes = bytes?;
            if file.size() + bytes.len() as u64 > fetched.length {
                return Err(void(server_name));
            }
            file.write(bytes).await.map_err(storage::refusal)?;
        }
        if file.size() != fetched.length {
            return Err(void(server_name));
        }
        let file = file.complete().await.map_err(storage::refusal)?;
        let cached = CachedMedia {
            content_type: fetched.content_type.and_then(clean_type),
            file_name: fetched.file_name.as_deref().and_then(clean_name),
            size: fetched.length,
            used_at: self.now(),
        };
        let about = cached.clone();
        let source = if cached.size <= self.filled_after() {
            let object = self.begin_arrival(&Arrival::Cached(hash)).await?;
            self.storage.keep(file, &object).await?;
            self.note_kept(server_name, media_id, cached, &object).await?;
            Source::Kept(object)
        } else {
            Source::Passing(Arc::new(Passing(file)))
        };
        Ok(Content {
            source,
            thumbnails: ObjectName::cached_thumbnails(&hash),
            size: about.size,
            content_type: about.content_type,
            file_name: about.file_name,
        })
    }

    /// Notes a file as kept, and lets the longest unused go where there are too many bytes.
    async fn note_kept(
        &self,
        server_name: &ServerName,
        media_id: &str,
        cached: CachedMedia,
        object: &ObjectName,
    ) -> Result<(), Refusal> {
        let kept = self
            .tables
            .keep_cached_media(server_name, media_id, cached, &object.path())
            .await?;
        if kept <= self.limits.cached {
            return Ok(());
        }
        let gone = self
            .tables
            .drop_cached_media(self.filled_after(), object_of, self.now())
            .await?;
        let gone = gone
            .iter()
            .map(|(server, id)| Arrival::Cached(address_hash(server, id)));
        let gone: Vec<Arrival> = gone.collect();
        let objects = gone.iter().flat_map(Arrival::objects).collect();
        if let Err(refusal) = self.storage.remove(objects).await {
            // They are marked as leaving, and looked after again later.
            tracing::warn!(%refusal, "files of other servers were not removed");
            return Ok(());
        }
        let paths = gone.iter().map(|gone| gone.object().path()).collect();
        Ok(self.tables.removed(paths).await?)
    }

    /// Bytes of the files of other servers that are left when there were too many.
    fn filled_after(&self) -> u64 {
        self.limits.cached / 100 * FILLED_AFTER
    }
}

fn void(server_name: &ServerName) -> Refusal {
    Refusal::Unavailable(format!(
        "{server_name} sent more or fewer bytes of a file than it announced"
    ))
}
