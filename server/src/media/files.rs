//! Where the contents lie. A content's file is named by its SHA-256, so that equal contents share one and none is ever
//! replaced by another; no client has a say in a path.

use std::io;
use std::path::{Path, PathBuf};

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
    unfinished: PathBuf,
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

    /// Makes the file durable under the name that it gets by its SHA-256. Its size and SHA-256.
    pub(super) async fn finish(self, name: impl FnOnce(&[u8; 32]) -> PathBuf) -> io::Result<(u64, [u8; 32])> {
        let complete = self.complete().await?;
        let (size, sha256) = (complete.size(), complete.sha256());
        complete.name(name(&sha256)).await?;
        Ok((size, sha256))
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
    use super::*;

    #[tokio::test]
    async fn a_finished_file_is_there_and_an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let mut file = files.begin().await.unwrap();
        file.write(Bytes::from_static(b"abc")).await.unwrap();
        let (size, sha256) = file.finish(|sha256| files.content(sha256)).await.unwrap();
        assert_eq!((size, sha256), (3, Sha256::digest(b"abc").into()));
        assert_eq!(std::fs::read(files.content(&sha256)).unwrap(), b"abc");
        drop(files.begin().await.unwrap());
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
