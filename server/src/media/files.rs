//! Where the contents lie. A content's file is named by its SHA-256, so that equal contents share one and none is ever
//! replaced by another; no client has a say in a path.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::ThumbnailSize;
use crate::data_folder::DataFolder;
use crate::refusal::Refusal;

/// Letters of media ids: no two look alike to a computer, and none means anything in a path.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Letters of a media id: 144 random bits.
const ID_LENGTH: usize = 24;

/// The folders of contents, thumbnails and unfinished files.
#[derive(Debug)]
pub(super) struct Files {
    contents: PathBuf,
    thumbnails: PathBuf,
    /// Files of other servers and their thumbnails.
    cached: PathBuf,
    /// Files that are being written, and an empty file for each [`Unnoted`].
    unfinished: PathBuf,
}

/// A file that has its lasting name while nothing may be known of it in the database yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unnoted {
    /// A content, by its SHA-256.
    Content([u8; 32]),
    /// A content of another server, by the SHA-256 of its address.
    Cached([u8; 32]),
}

/// What a process that ended in the middle of something has left in the folder of unfinished files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// A file was given its lasting name.
    Unnoted(Unnoted),
    /// A file was being written.
    Unfinished(PathBuf),
}

impl Unnoted {
    /// What the empty file is called that stands for it.
    fn mark(&self) -> String {
        match self {
            Self::Content(sha256) => hex(sha256),
            Self::Cached(address) => format!("{}.cached", hex(address)),
        }
    }

    fn read(mark: &str) -> Option<Self> {
        match mark.strip_suffix(".cached") {
            Some(address) => unhex(address).map(Self::Cached),
            None => unhex(mark).map(Self::Content),
        }
    }
}

/// A file that is being written. It has no lasting name before it is finished, and goes when it is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: Option<PathBuf>,
    file: File,
    digest: Sha256,
    size: u64,
}

/// A new media id.
pub(super) fn new_media_id() -> String {
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte % 64)]);
    rand::random::<[u8; ID_LENGTH]>().map(letter).iter().collect()
}

/// What the operating system says, as a refusal.
pub(super) fn refusal(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Unavailable(error.to_string()),
        io::ErrorKind::NotFound => super::unknown(),
        _ => Refusal::internal(error),
    }
}

impl Files {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            contents: DataFolder::media_in(data),
            thumbnails: data.join("thumbnails"),
            cached: data.join("media-cache"),
            unfinished: data.join("media-unfinished"),
        }
    }

    /// The file of a content.
    pub(super) fn content(&self, sha256: &[u8]) -> PathBuf {
        let name = hex(sha256);
        self.contents.join(fan(&name)).join(&name)
    }

    /// What the files of a content's thumbnails are called, before their sizes.
    pub(super) fn thumbnails(&self, sha256: &[u8]) -> PathBuf {
        let name = hex(sha256);
        self.thumbnails.join(fan(&name)).join(name)
    }

    /// The file of a content of another server, by the SHA-256 of its address.
    pub(super) fn cached(&self, address: &[u8; 32]) -> PathBuf {
        let name = hex(address);
        self.cached.join(fan(&name)).join(name)
    }

    /// What the files of its thumbnails are called, before their sizes.
    pub(super) fn cached_thumbnails(&self, address: &[u8; 32]) -> PathBuf {
        self.cached(address).with_extension("thumbnail")
    }

    /// Removes a content of another server and its thumbnails.
    pub(super) async fn remove_cached(&self, address: &[u8; 32]) {
        let thumbnails = self.cached_thumbnails(address);
        let thumbnails = ThumbnailSize::all_names().map(|size| sized(&thumbnails, &size));
        for path in thumbnails.chain([self.cached(address)]) {
            let _ = fs::remove_file(path).await;
        }
    }

    /// Removes the file of a content that nothing refers to.
    pub(super) async fn remove_content(&self, sha256: &[u8; 32]) {
        let _ = fs::remove_file(self.content(sha256)).await;
    }

    /// Says that a file is about to get its lasting name, until [`Files::noted`]: also to the process after a crash.
    pub(super) async fn mark(&self, unnoted: Unnoted) -> io::Result<()> {
        fs::create_dir_all(&self.unfinished).await?;
        File::create(self.unfinished.join(unnoted.mark())).await?;
        Ok(())
    }

    /// The database knows of a file, or it is gone.
    pub(super) async fn noted(&self, unnoted: Unnoted) {
        let _ = fs::remove_file(self.unfinished.join(unnoted.mark())).await;
    }

    /// What has lain among the unfinished files unchanged since before a time; at most `most`.
    pub(super) async fn leftovers(&self, before: SystemTime, most: usize) -> io::Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let mut entries = match fs::read_dir(&self.unfinished).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        while found.len() < most
            && let Some(entry) = entries.next_entry().await?
        {
            let old = match entry.metadata().await {
                Ok(metadata) => metadata.modified()? < before,
                // It has just been finished.
                Err(_) => false,
            };
            if old {
                let unnoted = entry.file_name().to_str().and_then(Unnoted::read);
                found.push(unnoted.map_or_else(|| Leftover::Unfinished(entry.path()), Leftover::Unnoted));
            }
        }
        Ok(found)
    }

    /// Begins a file.
    pub(super) async fn begin(&self) -> io::Result<Unfinished> {
        fs::create_dir_all(&self.unfinished).await?;
        let path = self.unfinished.join(new_media_id());
        let file = File::create_new(&path).await?;
        Ok(Unfinished {
            path: Some(path),
            file,
            digest: Sha256::new(),
            size: 0,
        })
    }
}

/// The file of a thumbnail of some size.
pub(super) fn sized(thumbnails: &Path, size: &str) -> PathBuf {
    let mut name = thumbnails.as_os_str().to_owned();
    name.push("-");
    name.push(size);
    name.into()
}

/// Spreads files over folders, by the first letters of their names.
fn fan(name: &str) -> &str {
    name.get(..2).unwrap_or("__")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hex`] wrote.
fn unhex(name: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if name.len() != 2 * bytes.len() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(name.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl Unfinished {
    /// Bytes written so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.digest.update(&bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(&bytes).await
    }

    /// What was written, to be read; its name goes with this value.
    pub(super) async fn reopen(mut self) -> io::Result<File> {
        self.file.flush().await?;
        File::open(self.path.as_deref().unwrap_or(Path::new(""))).await
    }

    /// Makes what was written durable.
    pub(super) async fn complete(mut self) -> io::Result<Complete> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let sha256 = std::mem::take(&mut self.digest).finalize().into();
        Ok(Complete { file: self, sha256 })
    }
}

/// A file with all of its content and no lasting name yet. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Complete {
    file: Unfinished,
    sha256: [u8; 32],
}

impl Complete {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.file.size
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Where it is for as long as it has no lasting name.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.file.path.clone()
    }

    /// Makes the file durable under a name.
    pub(super) async fn name(mut self, name: PathBuf) -> io::Result<()> {
        let folder = name.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).await?;
        if let Some(path) = &self.file.path {
            fs::rename(path, &name).await?;
        }
        self.file.path = None;
        // The name is durable when its folder is, and the folder's own name when the one above is.
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_finished_file_is_there_and_an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let mut file = files.begin().await.unwrap();
        file.write(Bytes::from_static(b"abc")).await.unwrap();
        let file = file.complete().await.unwrap();
        let (size, sha256) = (file.size(), file.sha256());
        assert_eq!((size, sha256), (3, Sha256::digest(b"abc").into()));
        file.name(files.content(&sha256)).await.unwrap();
        assert_eq!(std::fs::read(files.content(&sha256)).unwrap(), b"abc");
        drop(files.begin().await.unwrap());
        for unnoted in [Unnoted::Content(sha256), Unnoted::Cached(sha256)] {
            files.mark(unnoted).await.unwrap();
            let left = files
                .leftovers(SystemTime::now() + Duration::from_secs(1), 9)
                .await;
            assert_eq!(left.unwrap(), [Leftover::Unnoted(unnoted)]);
            assert_eq!(files.leftovers(SystemTime::UNIX_EPOCH, 9).await.unwrap(), []);
            files.noted(unnoted).await;
        }
        assert_eq!(std::fs::read_dir(&files.unfinished).unwrap().count(), 0);
    }

    #[test]
    fn ids_are_safe_in_a_path_and_in_a_url() {
        let id = new_media_id();
        assert_eq!(id.len(), ID_LENGTH);
        assert!(
            id.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        );
        assert_ne!(id, new_media_id());
    }
}
