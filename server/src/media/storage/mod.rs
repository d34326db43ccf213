//! Where media lie: objects that are written once, never changed, and named by what is in them or whose copy they are.
//!
//! | file | what |
//! |---|---|
//! | `object_name.rs` | names of objects; no client has a say in one |
//! | `spool.rs` | files of this process that are being written and have no lasting name yet |
//! | `disk.rs` | objects in the data folder |
//! | `bucket.rs` | objects in storage that speaks the S3 protocol, shared by all nodes |
//!
//! Whatever is stored is in the spool first: it is hashed and measured there, so an upload that is cut off leaves nothing in
//! the storage, and what goes into it is sent from a file, piece by piece. Both kinds keep their objects under the same
//! names, so that a folder can be copied into a bucket as it is. `tests/tests/personal/media.rs` holds that they behave the same.

mod bucket;
mod disk;
mod object_name;
mod spool;

use std::io;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::unknown;
use crate::refusal::Refusal;
use bucket::Bucket;
use disk::Disk;

pub use bucket::BucketSettings;
pub(super) use object_name::{Arrival, ObjectName};
pub(super) use spool::new_media_id;
pub(super) use spool::{Complete, Unfinished};

/// Bytes that are read from a file at once.
const PIECE: usize = 64 * 1024;

/// Bytes of an object, as they come.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// The storage of media, and the spool before it.
#[derive(Debug)]
pub struct Storage {
    spool: spool::Spool,
    objects: Objects,
}

#[derive(Debug)]
enum Objects {
    Disk(Disk),
    Bucket(Bucket),
}

/// An object, open for reading.
pub(super) enum Readable {
    /// A file, which is read to its end even when its name is gone.
    File(File),
    /// An object of a bucket, which is asked for when it is known which part is wanted.
    Object(Bucket, ObjectName),
    /// An object of a bucket that comes already, from its first byte on.
    Coming(Pieces),
}

/// An object that is read from its beginning.
pub(super) struct Begun {
    /// Its first byte; 0 where it has none.
    pub(super) first: u8,
    /// In bytes.
    pub(super) size: u64,
    /// All of it.
    pub(super) content: Readable,
}

/// An object as a file of this machine, for as long as this value lives.
#[derive(Debug)]
pub(super) struct LocalCopy {
    path: PathBuf,
    _fetched: Option<Unfinished>,
}

impl LocalCopy {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Storage {
    /// The data folder `data`. Folders are made when they are first needed.
    #[must_use]
    pub fn on_disk(data: &Path) -> Self {
        Self {
            spool: spool::Spool::new(data),
            objects: Objects::Disk(Disk::new(data)),
        }
    }

    /// A bucket, with the spool in the data folder `data`. Stores, reads and removes a small object, so that what does not
    /// work is known before the first upload.
    ///
    /// # Errors
    /// What does not work, as a sentence for the admin.
    pub async fn in_bucket(data: &Path, settings: BucketSettings) -> Result<Self, String> {
        Ok(Self {
            spool: spool::Spool::new(data),
            objects: Objects::Bucket(Bucket::open(settings).await?),
        })
    }

    /// Removes what a process before this one has left in the spool. Nobody else may use the data folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn clear_spool(&self) -> Result<(), Refusal> {
        self.spool.clear().await.map_err(refusal)
    }

    /// Begins a file in the spool.
    pub(super) async fn begin(&self) -> Result<Unfinished, Refusal> {
        self.spool.begin().await.map_err(refusal)
    }

    /// Makes a complete file an object: it is durable under its name when this returns. Where there is an object of that
    /// name and size already, that one stays.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the disk is full or the bucket cannot be reached; what became of it is not known then.
    pub(super) async fn keep(&self, file: Complete, name: &ObjectName) -> Result<(), Refusal> {
        match &self.objects {
            Objects::Disk(disk) => disk.keep(file, name).await.map_err(refusal),
            Objects::Bucket(bucket) => bucket.keep(file, name).await,
        }
    }

    /// Opens an object for reading. One of a bucket that is not there is missed when it is read.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(super) async fn open(&self, name: &ObjectName) -> Result<Readable, Refusal> {
        match &self.objects {
            Objects::Disk(disk) => disk.open(name).await.map(Readable::File).map_err(refusal),
            Objects::Bucket(bucket) => Ok(Readable::Object(bucket.clone(), name.clone())),
        }
    }

    /// Begins to read an object of which nothing is known; none where it is not there.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub(super) async fn begin_reading(&self, name: &ObjectName) -> Result<Option<Begun>, Refusal> {
        match &self.objects {
            Objects::Disk(disk) => match disk.open(name).await {
                Ok(file) => begin_file(file).await.map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(refusal(error)),
            },
            Objects::Bucket(bucket) => bucket.begin_reading(name).await,
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub(super) async fn has(&self, name: &ObjectName) -> Result<bool, Refusal> {
        match &self.objects {
            Objects::Disk(disk) => disk.has(name).await.map_err(refusal),
            Objects::Bucket(bucket) => Ok(bucket.size(name).await?.is_some()),
        }
    }

    /// An object as a file of this machine: fetched where it lies elsewhere.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or when the storage cannot be read.
    pub(super) async fn local_copy(&self, name: &ObjectName) -> Result<LocalCopy, Refusal> {
        let bucket = match &self.objects {
            Objects::Disk(disk) => {
                return Ok(LocalCopy {
                    path: disk.path(name),
                    _fetched: None,
                });
            }
            Objects::Bucket(bucket) => bucket,
        };
        let Some(begun) = bucket.begin_reading(name).await? else {
            return Err(unknown());
        };
        let mut file = self.begin().await?;
        let mut pieces = begun.content.read(0..begun.size).await?;
        while let Some(piece) = pieces.next().await {
            file.write(piece.map_err(refusal)?).await.map_err(refusal)?;
        }
        file.flush().await.map_err(refusal)?;
        Ok(LocalCopy {
            path: file.path().to_owned(),
            _fetched: Some(file),
        })
    }

    /// Removes objects; those that are not there are gone already.
    ///
    /// # Errors
    /// When one of them may still be there.
    pub(super) async fn remove(&self, names: Vec<ObjectName>) -> Result<(), Refusal> {
        match &self.objects {
            Objects::Disk(disk) => disk.remove(&names).await.map_err(refusal),
            Objects::Bucket(bucket) => bucket.remove(names).await,
        }
    }
}

/// Begins to read a file.
pub(super) async fn begin_file(mut file: File) -> Result<Begun, Refusal> {
    let size = file.metadata().await.map_err(refusal)?.len();
    let first = match size {
        0 => 0,
        _ => file.read_u8().await.map_err(refusal)?,
    };
    file.rewind().await.map_err(refusal)?;
    Ok(Begun {
        first,
        size,
        content: Readable::File(file),
    })
}

impl Readable {
    /// Some of its bytes, read as they are taken.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or when the storage cannot be read.
    pub(super) async fn read(self, bytes: Range<u64>) -> Result<Pieces, Refusal> {
        if bytes.is_empty() {
            return Ok(stream::empty().boxed());
        }
        match self {
            Self::File(mut file) => {
                if bytes.start > 0 {
                    file.seek(SeekFrom::Start(bytes.start)).await.map_err(refusal)?;
                }
                let part = file.take(bytes.end - bytes.start);
                Ok(ReaderStream::with_capacity(part, PIECE).boxed())
            }
            Self::Object(bucket, name) => bucket.read(&name, bytes).await,
            Self::Coming(pieces) => Ok(part_of(pieces, bytes)),
        }
    }
}

impl std::fmt::Debug for Readable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readable(…)")
    }
}

/// Part of what comes: the bytes before are passed over.
fn part_of(pieces: Pieces, bytes: Range<u64>) -> Pieces {
    let part = stream::try_unfold((pieces, 0_u64), move |(mut pieces, mut at)| {
        let bytes = bytes.clone();
        async move {
            while at < bytes.end
                && let Some(piece) = pieces.next().await.transpose()?
            {
                let length = piece.len() as u64;
                let from = bytes.start.saturating_sub(at).min(length);
                let to = (bytes.end - at).min(length);
                at += length;
                if from < to {
                    let within = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
                    return Ok(Some((piece.slice(within(from)..within(to)), (pieces, at))));
                }
            }
            Ok(None)
        }
    });
    part.boxed()
}

/// What the operating system says, as a refusal.
pub(super) fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Unavailable(error.to_string()),
        io::ErrorKind::NotFound => unknown(),
        _ => Refusal::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn part_of_what_comes_is_the_part_of_the_whole() {
        let pieces =
            || stream::iter([&b"ab"[..], b"", b"cde", b"f"].map(|piece| Ok(Bytes::from(piece)))).boxed();
        for from in 0..6 {
            for to in from + 1..=6 {
                let part: Vec<_> = part_of(pieces(), from..to).map(Result::unwrap).collect().await;
                let within = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
                assert_eq!(part.concat(), b"abcdef"[within], "{from}..{to}");
            }
        }
    }
}
