//! Objects as files of the data folder.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};

use super::object_name::ObjectName;
use super::spool::Complete;

/// The data folder.
#[derive(Debug)]
pub(super) struct Disk {
    data: PathBuf,
}

impl Disk {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
        }
    }

    /// Where an object is.
    pub(super) fn path(&self, name: &ObjectName) -> PathBuf {
        self.data.join(name.path())
    }

    /// Gives a file its lasting name.
    pub(super) async fn keep(&self, file: Complete, name: &ObjectName) -> io::Result<()> {
        file.name(self.path(name)).await
    }

    pub(super) async fn open(&self, name: &ObjectName) -> io::Result<File> {
        File::open(self.path(name)).await
    }

    pub(super) async fn has(&self, name: &ObjectName) -> io::Result<bool> {
        fs::try_exists(self.path(name)).await
    }

    pub(super) async fn remove(&self, names: &[ObjectName]) -> io::Result<()> {
        for name in names {
            match fs::remove_file(self.path(name)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
