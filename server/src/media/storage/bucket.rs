//! Objects in a bucket of storage that speaks the S3 protocol: shared by all nodes, whichever of them wrote an object.
//!
//! An object appears whole or not at all, under its name, when all of it is durable there. A large one is sent in parts, one
//! after the other; parts of one that was cut off are given up, and where that fails too (this process was killed) the
//! bucket's own rule for incomplete uploads has to remove them. Requests that fail are tried again for some seconds; a
//! download that breaks off goes on where it was.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, GetResult, MultipartId, ObjectStore,
    ObjectStoreExt, PutPayload, RetryConfig,
};
use rustls::pki_types::CertificateDer;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use super::object_name::ObjectName;
use super::spool::{Complete, new_media_id};
use super::{Begun, Pieces, Readable, refusal};
use crate::https_client::StorageConnector;
use crate::media::unknown;
use crate::observe::metrics;
use crate::refusal::Refusal;

/// Bytes of one part of a large object, which are in memory while they are sent: 8 MiB.
const PART: u64 = 8 << 20;

/// Parts that an object may have.
const MOST_PARTS: u64 = 10_000;

/// Objects that are sent at the same time; others wait.
const KEPT_AT_ONCE: usize = 8;

/// Objects that are removed at the same time.
const REMOVED_AT_ONCE: usize = 8;

/// How long a request that fails is tried again; a client waits meanwhile.
const TRIED_FOR: Duration = Duration::from_secs(15);

/// Where objects are, and how to get in.
#[derive(Clone)]
pub struct BucketSettings {
    /// The storage's address; none: Amazon's, by the region.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// The region, which is part of every signature.
    pub region: String,
    /// What all names begin with; may be empty.
    pub prefix: String,
    /// Whether the bucket stands in the path, and not in the host's name.
    pub path_style: bool,
    /// Who this is.
    pub access_key: String,
    /// What proves it.
    pub secret_key: String,
    /// Authorities that the storage's certificate may be of; empty: those of the web.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Shows no secret.
impl fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketSettings")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// A bucket.
#[derive(Clone)]
pub(in crate::media) struct Bucket {
    client: Arc<AmazonS3>,
    prefix: Arc<str>,
    keeping: Arc<Semaphore>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A bucket in which a small object was stored, read and removed.
    ///
    /// # Errors
    /// What did not work, as a sentence for the admin.
    pub(super) async fn open(settings: BucketSettings) -> Result<Self, String> {
        let place = settings
            .endpoint
            .clone()
            .unwrap_or_else(|| "Amazon S3".to_owned());
        let place = format!("bucket {} of {place}", settings.bucket);
        let unusable = |what: &str, error: &dyn fmt::Display| format!("cannot {what} {place}: {error}");
        let bucket = Self::connect(settings).map_err(|error| unusable("use", &error))?;
        let probe = bucket.named(&format!("probe-{}", new_media_id()));
        let put = bucket.client.put(&probe, PutPayload::from_static(b"maru"));
        put.await.map_err(|error| unusable("write to", &error))?;
        let read = bucket.client.get_range(&probe, 1..3).await;
        let removed = bucket.client.delete(&probe).await;
        match read.map_err(|error| unusable("read from", &error))? {
            read if read == "ar" => {}
            other => {
                return Err(unusable(
                    "read from",
                    &format!("{} other bytes came back", other.len()),
                ));
            }
        }
        removed.map_err(|error| unusable("remove from", &error))?;
        Ok(bucket)
    }

    fn connect(settings: BucketSettings) -> Result<Self, Error> {
        let connector = StorageConnector::new(settings.authorities);
        let connector = connector.map_err(|error| Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: 8,
            retry_timeout: TRIED_FOR,
        };
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(connector)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retry)
            // Removing many with one request is not what all storages know.
            .with_disable_bulk_delete(true)
            .with_region(settings.region)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_access_key_id(settings.access_key)
            .with_secret_access_key(settings.secret_key);
        if let Some(endpoint) = settings.endpoint {
            let endpoint = match (settings.path_style, endpoint.split_once("://")) {
                (false, Some((scheme, host))) => format!("{scheme}://{}.{host}", settings.bucket),
                _ => endpoint,
            };
            builder = builder.with_endpoint(endpoint);
        }
        let client = builder.with_bucket_name(settings.bucket).build()?;
        Ok(Self {
            client: Arc::new(client),
            prefix: settings.prefix.trim_matches('/').into(),
            keeping: Arc::new(Semaphore::new(KEPT_AT_ONCE)),
        })
    }

    fn named(&self, name: &str) -> Path {
        match &*self.prefix {
            "" => Path::from(name),
            prefix => Path::from(format!("{prefix}/{name}")),
        }
    }

    /// Sends a file, unless an object of its name and size is there.
    pub(super) async fn keep(&self, file: Complete, name: &ObjectName) -> Result<(), Refusal> {
        if self.size(name).await? == Some(file.size()) {
            return Ok(());
        }
        let _permit = self.keeping.acquire().await.map_err(Refusal::internal)?;
        let path = self.named(&name.path());
        if file.size() > PART {
            return self.keep_in_parts(&file, path).await;
        }
        let mut content = File::open(file.path()).await.map_err(refusal)?;
        let whole = piece(&mut content, file.size()).await?;
        let put = self.client.put(&path, whole.into()).await;
        put.map(drop).map_err(|error| not_kept(&error))
    }

    async fn keep_in_parts(&self, file: &Complete, path: Path) -> Result<(), Refusal> {
        let mut content = File::open(file.path()).await.map_err(refusal)?;
        let length = PART.max(file.size().div_ceil(MOST_PARTS));
        let id = self.client.create_multipart(&path).await;
        let upload = PartialUpload {
            client: Arc::clone(&self.client),
            id: Some(id.map_err(|error| not_kept(&error))?),
            path,
        };
        let mut parts = Vec::new();
        let mut left = file.size();
        while left > 0 {
            let part = piece(&mut content, left.min(length)).await?;
            left = left.saturating_sub(length);
            let sent = upload.send(parts.len(), part).await;
            parts.push(sent.map_err(|error| not_kept(&error))?);
        }
        upload.finish(parts).await.map_err(|error| not_kept(&error))
    }

    /// The size of an object in bytes; none where it is not there.
    pub(super) async fn size(&self, name: &ObjectName) -> Result<Option<u64>, Refusal> {
        match self.client.head(&self.named(&name.path())).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Part of an object, at least one byte.
    pub(super) async fn read(&self, name: &ObjectName, bytes: Range<u64>) -> Result<Pieces, Refusal> {
        let part = GetOptions {
            range: Some(GetRange::Bounded(bytes)),
            ..GetOptions::default()
        };
        let found = self.client.get_opts(&self.named(&name.path()), part).await;
        found.map(pieces).map_err(|error| failed(&error))
    }

    /// Begins to read an object of which nothing is known; none where it is not there.
    pub(super) async fn begin_reading(&self, name: &ObjectName) -> Result<Option<Begun>, Refusal> {
        let found = match self.client.get(&self.named(&name.path())).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let size = found.meta.size;
        let mut coming = pieces(found);
        let head = coming
            .next()
            .await
            .transpose()
            .map_err(refusal)?
            .unwrap_or_default();
        Ok(Some(Begun {
            first: head.first().copied().unwrap_or(0),
            size,
            content: Readable::Coming(stream::iter([Ok(head)]).chain(coming).boxed()),
        }))
    }

    /// Removes objects; those that are not there are gone already.
    pub(super) async fn remove(&self, names: Vec<ObjectName>) -> Result<(), Refusal> {
        let removing = stream::iter(names).map(|name| {
            let (client, path) = (Arc::clone(&self.client), self.named(&name.path()));
            async move {
                match client.delete(&path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(failed(&error)),
                }
            }
        });
        let removed: Vec<_> = removing.buffer_unordered(REMOVED_AT_ONCE).collect().await;
        removed.into_iter().collect()
    }
}

/// An upload in parts. What was sent is given up when this is dropped before all of it was.
struct PartialUpload {
    client: Arc<AmazonS3>,
    path: Path,
    id: Option<MultipartId>,
}

impl PartialUpload {
    async fn send(&self, number: usize, part: Bytes) -> Result<PartId, Error> {
        let Some(id) = &self.id else {
            return Err(Error::NotImplemented {
                operation: "a part of what was sent".to_owned(),
                implementer: "media".to_owned(),
            });
        };
        self.client.put_part(&self.path, id, number, part.into()).await
    }

    async fn finish(mut self, parts: Vec<PartId>) -> Result<(), Error> {
        if let Some(id) = &self.id {
            self.client.complete_multipart(&self.path, id, parts).await?;
        }
        self.id = None;
        Ok(())
    }
}

impl Drop for PartialUpload {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (client, path) = (Arc::clone(&self.client), self.path.clone());
        runtime.spawn(async move {
            if let Err(error) = client.abort_multipart(&path, &id).await {
                tracing::debug!(%path, %error, "parts of media were not given up");
            }
        });
    }
}

/// The next bytes of a file.
async fn piece(file: &mut File, length: u64) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).await.map_err(refusal)?;
    Ok(bytes.into())
}

fn pieces(found: GetResult) -> Pieces {
    let failing = |error: Error| {
        metrics::MEDIA_STORAGE_FAILED.add(1);
        io::Error::other(error)
    };
    found
        .into_stream()
        .map(move |piece| piece.map_err(failing))
        .boxed()
}

/// What the storage says, as a refusal.
fn failed(error: &Error) -> Refusal {
    match error {
        Error::NotFound { .. } => unknown(),
        error => not_kept(error),
    }
}

/// The same, of what was to be stored.
fn not_kept(error: &Error) -> Refusal {
    metrics::MEDIA_STORAGE_FAILED.add(1);
    Refusal::Unavailable(format!("the media storage: {error}"))
}
