//! The spool: files of this process that are being written. They lie in the data folder, which no other process uses, and
//! have no lasting name; what a process before this one left there goes at the start.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

/// Letters of media ids: no two look alike to a computer, and none means anything in a path.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Letters of a media id: 144 random bits.
const ID_LENGTH: usize = 24;

/// The folder of files that are being written.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// A file that is being written. It has no lasting name before it is finished, and goes when it is dropped.
#[derive(Debug)]
pub(in crate::media) struct Unfinished {
    path: PathBuf,
    /// Whether it has its lasting name, and is not to go.
    named: bool,
    file: File,
    digest: Sha256,
    size: u64,
}

/// A new media id.
pub(in crate::media) fn new_media_id() -> String {
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte % 64)]);
    rand::random::<[u8; ID_LENGTH]>().map(letter).iter().collect()
}

impl Spool {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            folder: data.join("media-unfinished"),
        }
    }

    /// Begins a file.
    pub(super) async fn begin(&self) -> io::Result<Unfinished> {
        fs::create_dir_all(&self.folder).await?;
        let path = self.folder.join(new_media_id());
        let file = File::create_new(&path).await?;
        Ok(Unfinished {
            path,
            named: false,
            file,
            digest: Sha256::new(),
            size: 0,
        })
    }

    /// Removes all files.
    pub(super) async fn clear(&self) -> io::Result<()> {
        let mut entries = match fs::read_dir(&self.folder).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            fs::remove_file(entry.path()).await?;
        }
        Ok(())
    }
}

impl Unfinished {
    /// Bytes written so far.
    pub(in crate::media) fn size(&self) -> u64 {
        self.size
    }

    pub(in crate::media) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.digest.update(&bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(&bytes).await
    }

    /// Has what was written seen by who opens the file.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await
    }

    /// Where it is for as long as this value lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was written, to be read; its name goes with this value.
    pub(in crate::media) async fn reopen(mut self) -> io::Result<File> {
        self.file.flush().await?;
        File::open(&self.path).await
    }

    /// All has been written.
    pub(in crate::media) async fn complete(mut self) -> io::Result<Complete> {
        self.file.flush().await?;
        let sha256 = std::mem::take(&mut self.digest).finalize().into();
        Ok(Complete { file: self, sha256 })
    }
}

/// A file with all of its content and no lasting name yet. It goes when it is dropped.
#[derive(Debug)]
pub(in crate::media) struct Complete {
    file: Unfinished,
    sha256: [u8; 32],
}

impl Complete {
    /// In bytes.
    pub(in crate::media) fn size(&self) -> u64 {
        self.file.size
    }

    pub(in crate::media) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Where it is for as long as it has no lasting name.
    pub(in crate::media) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Makes the file durable under a name.
    pub(super) async fn name(mut self, name: PathBuf) -> io::Result<()> {
        self.file.file.sync_all().await?;
        let folder = name.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).await?;
        fs::rename(&self.file.path, &name).await?;
        self.file.named = true;
        // The name is durable when its folder is, and the folder's own name when the one above is.
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.named {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_finished_file_is_there_and_an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        let mut file = spool.begin().await.unwrap();
        file.write(Bytes::from_static(b"abc")).await.unwrap();
        let file = file.complete().await.unwrap();
        assert_eq!((file.size(), file.sha256()), (3, Sha256::digest(b"abc").into()));
        let name = folder.path().join("a").join("name");
        file.name(name.clone()).await.unwrap();
        assert_eq!(std::fs::read(name).unwrap(), b"abc");
        drop(spool.begin().await.unwrap());
        let files = || std::fs::read_dir(&spool.folder).unwrap().count();
        assert_eq!(files(), 0);
        std::mem::forget(spool.begin().await.unwrap());
        assert_eq!(files(), 1);
        spool.clear().await.unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn ids_are_safe_in_a_path_and_in_a_url() {
        let id = new_media_id();
        assert_eq!(id.len(), ID_LENGTH);
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
    }
}
