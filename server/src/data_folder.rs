//! The data folder: the keys that make a server itself, the lock that keeps a second process out, and where
//! everything else lies (`spec/operations.md`, "Files").

mod keys;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use maru_protocol::record::MAX_SIGNING_KEYS;
use maru_protocol::server_name::ServerNameError;
use ruma::OwnedServerName;

pub use keys::Keys;
use keys::{OLD_SIGNING_KEYS, ROOT_KEY, SIGNING_KEY, TLS_KEY};

/// The embedded database.
const DATABASE: &str = "maru.db";
/// Uploaded media.
const MEDIA: &str = "media";
/// Socket on which a running server takes the admin's commands.
const ADMIN_SOCKET: &str = "admin.sock";
/// Stands while a restore is under way; what is beside it may be half of a server.
const UNFINISHED: &str = "restore-unfinished";
/// Locked by the process that uses the folder.
const LOCK: &str = "lock";

/// What nobody but its owner may do in a data folder: write as the group, or anything as anybody.
const OPEN_TO_OTHERS: u32 = 0o027;

/// Why a data folder cannot be used. Each is one line for the admin.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// A file or folder cannot be made, read or written.
    #[error("cannot use {}: {cause}", path.display())]
    Io {
        /// What was to be used.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Another process has the folder.
    #[error("the data folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A restore into the folder was cut off.
    #[error("a restore into {} was cut off; empty the folder and restore again", .0.display())]
    Unfinished(PathBuf),
    /// A key file does not hold a key. It is never replaced: its loss would be the loss of the server's name.
    #[error("{} does not hold a key; restore it from a backup", .0.display())]
    NotAKey(PathBuf),
    /// Another signing key would not fit the server record.
    #[error("{MAX_SIGNING_KEYS} signing keys, old ones included, are all that a server record holds")]
    TooManyKeys,
    /// The configured name is not a server name.
    #[error("`{0}` is not a server name")]
    NotAName(String),
    /// The configured name looks like a key name but is none.
    #[error("`{name}` is not a server name: {cause}")]
    NotAKeyName {
        /// The name.
        name: String,
        /// Why.
        cause: ServerNameError,
    },
    /// The configured name is the key name of another root key.
    #[error("`{name}` belongs to another root key; this data folder's is {own}")]
    OtherKey {
        /// The configured name.
        name: OwnedServerName,
        /// The name of the folder's root key.
        own: OwnedServerName,
    },
}

/// A data folder that this process alone uses, until the value is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    keys: Keys,
    /// Held for its lock, which the system lifts when the process ends in whatever way.
    _lock: File,
}

impl DataFolder {
    /// Takes a folder, which is made if it is missing, with its keys.
    ///
    /// # Errors
    ///
    /// [`DataFolderError::InUse`] when another process has it; else what went wrong with a file.
    pub fn open(path: &Path) -> Result<Self, DataFolderError> {
        make_folder(path)?;
        close_to_others(path).map_err(|cause| DataFolderError::Io {
            path: path.to_owned(),
            cause,
        })?;
        let lock = lock(path)?.ok_or_else(|| DataFolderError::InUse(path.to_owned()))?;
        if path.join(UNFINISHED).exists() {
            return Err(DataFolderError::Unfinished(path.to_owned()));
        }
        let keys = Keys::load_or_make(path)?;
        Ok(Self {
            path: path.to_owned(),
            keys,
            _lock: lock,
        })
    }

    /// Whether a process uses the folder now.
    ///
    /// # Errors
    ///
    /// When the lock cannot be tried.
    pub fn is_in_use(path: &Path) -> Result<bool, DataFolderError> {
        Ok(path.join(LOCK).exists() && lock(path)?.is_none())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The private keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Makes another signing key; what the present one has signed until now, in milliseconds since 1970, stays good.
    ///
    /// # Errors
    ///
    /// [`DataFolderError::TooManyKeys`], or what went wrong with a file.
    pub fn rotate_signing_key(&mut self, now_ms: u64) -> Result<&Keys, DataFolderError> {
        self.keys = Keys::rotate(&self.path, now_ms)?;
        Ok(&self.keys)
    }

    /// Where the embedded database lies.
    pub fn database(&self) -> PathBuf {
        Self::database_in(&self.path)
    }

    /// Where uploaded media lie.
    pub fn media(&self) -> PathBuf {
        Self::media_in(&self.path)
    }

    /// Where the admin socket of a running server is.
    pub fn admin_socket(&self) -> PathBuf {
        Self::admin_socket_in(&self.path)
    }

    /// Where the embedded database lies in a folder that is not opened.
    pub fn database_in(folder: &Path) -> PathBuf {
        folder.join(DATABASE)
    }

    /// Where uploaded media lie in a folder that is not opened.
    pub fn media_in(folder: &Path) -> PathBuf {
        folder.join(MEDIA)
    }

    /// Where the admin socket is in a folder that is not opened.
    pub fn admin_socket_in(folder: &Path) -> PathBuf {
        folder.join(ADMIN_SOCKET)
    }

    /// Where the keys lie in a folder that is not opened.
    pub fn keys_in(folder: &Path) -> [PathBuf; 3] {
        [ROOT_KEY, SIGNING_KEY, TLS_KEY].map(|key| folder.join(key))
    }

    /// Where earlier signing keys are listed in a folder that is not opened, if there are any.
    pub fn old_keys_in(folder: &Path) -> Option<PathBuf> {
        Some(folder.join(OLD_SIGNING_KEYS)).filter(|path| path.is_file())
    }
}

/// A folder that is being filled by a restore.
#[derive(Debug)]
pub struct UnfinishedFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Takes a folder and marks it, durably, as one that cannot be opened until [`UnfinishedFolder::finish`].
    ///
    /// # Errors
    ///
    /// [`DataFolderError::InUse`] when another process has it; else what went wrong with a file.
    pub fn mark_unfinished(path: &Path) -> Result<UnfinishedFolder, DataFolderError> {
        let lock = lock(path)?.ok_or_else(|| DataFolderError::InUse(path.to_owned()))?;
        let mark = path.join(UNFINISHED);
        let marked = File::create(&mark).and_then(|_| File::open(path)?.sync_all());
        marked.map_err(|cause| DataFolderError::Io { path: mark, cause })?;
        Ok(UnfinishedFolder {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

impl UnfinishedFolder {
    /// Says, durably, that the folder is whole.
    ///
    /// # Errors
    ///
    /// When the mark cannot be removed.
    pub fn finish(self) -> Result<(), DataFolderError> {
        let mark = self.path.join(UNFINISHED);
        // What was filled in must be on disk before the mark is gone.
        let done = File::open(&self.path).and_then(|folder| {
            folder.sync_all()?;
            fs::remove_file(&mark)?;
            folder.sync_all()
        });
        done.map_err(|cause| DataFolderError::Io { path: mark, cause })
    }
}

fn make_folder(path: &Path) -> Result<(), DataFolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| DataFolderError::Io {
        path: path.to_owned(),
        cause,
    })
}

/// Takes from others what they may do in a folder that was there before: whoever can write there can put other keys
/// in place. The group may go on reading it, as backups do. A folder that holds something else is only warned of.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    let closed = mode & !OPEN_TO_OTHERS;
    if closed == mode {
        return Ok(());
    }
    let folder = path.display();
    let mut entries = fs::read_dir(path)?;
    let is_own = entries.all(|entry| entry.is_ok_and(|entry| is_ours(&entry.file_name())));
    if is_own && fs::set_permissions(path, Permissions::from_mode(closed)).is_ok() {
        tracing::warn!(%folder, "the data folder was open to others, mode {mode:o}; it is {closed:o} now");
    } else {
        tracing::warn!(%folder, "the data folder is open to others, mode {mode:o}; {closed:o} would be right");
    }
    Ok(())
}

/// Whether a name in a data folder is one of this program's.
fn is_ours(name: &OsStr) -> bool {
    let names = [
        MEDIA,
        ADMIN_SOCKET,
        UNFINISHED,
        LOCK,
        ROOT_KEY,
        SIGNING_KEY,
        OLD_SIGNING_KEYS,
        TLS_KEY,
    ];
    names.iter().any(|ours| name == *ours) || name.to_string_lossy().starts_with(DATABASE)
}

/// Locks the folder; `None` when another process has.
fn lock(folder: &Path) -> Result<Option<File>, DataFolderError> {
    let path = folder.join(LOCK);
    let failed = |cause| DataFolderError::Io {
        path: path.clone(),
        cause,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        let first = DataFolder::open(&path).unwrap().keys().clone();
        let second = DataFolder::open(&path).unwrap().keys().clone();
        assert_eq!(first.root.to_seed(), second.root.to_seed());
        assert_eq!(first.signing.id, second.signing.id);
        assert_ne!(first.root.to_seed(), first.signing.secret.to_seed());
        for file in DataFolder::keys_in(&path) {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let left_over = fs::read_dir(&path)
            .unwrap()
            .filter(|f| f.as_ref().unwrap().path().display().to_string().contains(".new-"));
        assert_eq!(left_over.count(), 0);
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_closed_unless_it_is_somebody_else_s() {
        let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o777;
        let open = || {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
            folder
        };
        let (own, shared) = (open(), open());
        fs::write(shared.path().join("letter"), "").unwrap();
        for folder in [&own, &shared] {
            drop(DataFolder::open(folder.path()).unwrap());
        }
        assert_eq!(mode(own.path()), 0o750);
        assert_eq!(mode(shared.path()), 0o777, "it holds what is none of ours");
        fs::set_permissions(own.path(), Permissions::from_mode(0o755)).unwrap();
        drop(DataFolder::open(own.path()).unwrap());
        assert_eq!(mode(own.path()), 0o750);
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        assert!(matches!(
            DataFolder::open(folder.path()),
            Err(DataFolderError::InUse(_))
        ));
        assert!(DataFolder::is_in_use(folder.path()).unwrap());
        drop(first);
        assert!(!DataFolder::is_in_use(folder.path()).unwrap());
        DataFolder::open(folder.path()).unwrap();
    }
}
