//! Media of other servers: fetched when somebody asks for them, kept while there is room, the longest unused going first.
//!
//! A fetch is streamed to disk and shown when it is complete: an answer with fewer or more bytes than it announced is
//! void. Those who ask for one file at the same time share one fetch.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use ruma::{OwnedServerName, ServerName};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use super::files;
use super::files::{Complete, Unnoted};
use super::upload::{clean_name, clean_type};
use super::{Content, Media, unknown};
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
    /// Bytes that may be kept.
    budget: u64,
    /// Bytes that are kept; read from the database when it is first needed.
    kept: OnceCell<AtomicU64>,
    fetches: Mutex<HashMap<(OwnedServerName, String), Arc<Fetch>>>,
    permits: Semaphore,
}

/// A fetch and its outcome.
type Fetch = OnceCell<Result<Content, Refusal>>;

/// A file that goes when nobody uses it any more: there is no room to keep it.
#[derive(Debug)]
pub(super) struct Passing(#[expect(dead_code, reason = "held for as long as it is used")] Complete);

impl Elsewhere {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            road: OnceLock::new(),
            budget,
            kept: OnceCell::new(),
            fetches: Mutex::default(),
            permits: Semaphore::new(FETCHES_AT_ONCE),
        }
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<(OwnedServerName, String), Arc<Fetch>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the files of media of another server are named by.
fn address_hash(server_name: &ServerName, media_id: &str) -> [u8; 32] {
    Sha256::digest(format!("{server_name}/{media_id}")).into()
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
        let path = self.files.cached(&hash);
        // A backup does not hold what can be fetched again.
        if !tokio::fs::try_exists(&path).await.map_err(files::refusal)? {
            return Ok(None);
        }
        let now = self.now();
        if now.saturating_sub(cached.used_at) > USE_NOTED_AFTER {
            self.tables.use_cached_media(server_name, media_id, now).await?;
        }
        Ok(Some(Content {
            path,
            thumbnails: self.files.cached_thumbnails(&hash),
            size: cached.size,
            content_type: cached.content_type,
            file_name: cached.file_name,
            passing: None,
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
        if fetched.length > self.largest {
            return Err(Refusal::TooLarge(format!(
                "the file has more than {} bytes",
                self.largest
            )));
        }
        let hash = address_hash(server_name, media_id);
        let path = self.files.cached(&hash);
        let mut file = self.files.begin().await.map_err(files::refusal)?;
        let mut content = fetched.content;
        while let Some(bytes) = content.next().await {
            let bytes = bytes?;
            if file.size() + bytes.len() as u64 > fetched.length {
                return Err(void(server_name));
            }
            file.write(bytes).await.map_err(files::refusal)?;
        }
        if file.size() != fetched.length {
            return Err(void(server_name));
        }
        let file = file.complete().await.map_err(files::refusal)?;
        let cached = CachedMedia {
            content_type: fetched.content_type.and_then(clean_type),
            file_name: fetched.file_name.as_deref().and_then(clean_name),
            size: fetched.length,
            used_at: self.now(),
        };
        let mut content = Content {
            thumbnails: self.files.cached_thumbnails(&hash),
            size: cached.size,
            content_type: cached.content_type.clone(),
            file_name: cached.file_name.clone(),
            passing: None,
            path,
        };
        if cached.size <= self.elsewhere.budget / 100 * FILLED_AFTER {
            let unnoted = Unnoted::Cached(hash);
            self.files.mark(unnoted).await.map_err(files::refusal)?;
            file.name(content.path.clone()).await.map_err(files::refusal)?;
            self.keep(server_name, media_id, cached).await?;
            self.files.noted(unnoted).await;
        } else {
            content.path = file.path().unwrap_or_default();
            content.passing = Some(Arc::new(Passing(file)));
        }
        Ok(content)
    }

    /// Notes a file as kept, and lets the longest unused go where there are too many bytes.
    async fn keep(
        &self,
        server_name: &ServerName,
        media_id: &str,
        cached: CachedMedia,
    ) -> Result<(), Refusal> {
        let Elsewhere { kept, budget, .. } = &self.elsewhere;
        let size = cached.size;
        let all = kept
            .get_or_try_init(async || self.tables.cached_media_bytes().await.map(AtomicU64::new))
            .await?;
        self.tables
            .keep_cached_media(server_name, media_id, cached)
            .await?;
        if all.fetch_add(size, Ordering::Relaxed) + size <= *budget {
            return Ok(());
        }
        let gone = self
            .tables
            .drop_cached_media(*budget / 100 * FILLED_AFTER)
            .await?;
        for (server_name, media_id) in gone {
            self.files
                .remove_cached(&address_hash(&server_name, &media_id))
                .await;
        }
        all.store(self.tables.cached_media_bytes().await?, Ordering::Relaxed);
        Ok(())
    }
}

fn void(server_name: &ServerName) -> Refusal {
    Refusal::Unavailable(format!(
        "{server_name} sent more or fewer bytes of a file than it announced"
    ))
}
