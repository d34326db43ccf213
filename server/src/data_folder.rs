//! The data folder: the keys that make a server itself, the lock that keeps a second process out, and where
//! everything else lies (`spec/operations.md`, "Files").
//!
//! Keys are written once and never over: a key file appears complete and on disk, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use maru_protocol::server_name::{ServerNameError, key_name};
use maru_protocol::{KeyId, SecretKey, ServerKind, SigningKey};
use ruma::{OwnedServerName, ServerName};

/// Seed of the root key, which signs server records only and is the server's key name.
const ROOT_KEY: &str = "root.key";
/// Seed of the signing key, which signs events.
const SIGNING_KEY: &str = "signing.key";
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

/// The private keys of a server.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs server records. Its public half is the key name.
    pub root: SecretKey,
    /// Signs events.
    pub signing: SigningKey,
}

impl Keys {
    /// The keys in a folder; what is missing, the folder included, is made.
    ///
    /// Needs no lock: of two processes that make a key at once, one wins and both use its key.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or holds something else.
    pub fn load_or_make(folder: &Path) -> Result<Self, DataFolderError> {
        make_folder(folder)?;
        let root = load_or_make_key(&folder.join(ROOT_KEY))?;
        let secret = load_or_make_key(&folder.join(SIGNING_KEY))?;
        let id = signing_key_id(&secret).ok_or_else(|| DataFolderError::NotAKey(folder.join(SIGNING_KEY)))?;
        Ok(Self {
            root,
            signing: SigningKey { id, secret },
        })
    }

    /// The server's name: the configured one if it is a domain or this root key's own, else the key name.
    ///
    /// # Errors
    ///
    /// When the configured name is no server name, or is the key name of another key.
    pub fn server_name(&self, configured: Option<&str>) -> Result<OwnedServerName, DataFolderError> {
        let own = key_name(&self.root.public_key()).map_err(|_| DataFolderError::NotAName(String::new()))?;
        let Some(text) = configured else { return Ok(own) };
        let name = ServerName::parse(text).map_err(|_| DataFolderError::NotAName(text.to_owned()))?;
        match ServerKind::of(&name) {
            Err(cause) => Err(DataFolderError::NotAKeyName {
                name: text.to_owned(),
                cause,
            }),
            Ok(ServerKind::Key(key)) if key != self.root.public_key() => {
                Err(DataFolderError::OtherKey { name, own })
            }
            Ok(_) => Ok(name),
        }
    }
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
    pub fn keys_in(folder: &Path) -> [PathBuf; 2] {
        [folder.join(ROOT_KEY), folder.join(SIGNING_KEY)]
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

/// The id of a signing key: letters and digits of its public half, so that a key never shares its id with another.
fn signing_key_id(key: &SecretKey) -> Option<KeyId> {
    let public = key.public_key().to_base64();
    let version: String = public
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    KeyId::new(&version).ok()
}

fn make_folder(path: &Path) -> Result<(), DataFolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| DataFolderError::Io {
        path: path.to_owned(),
        cause,
    })
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

/// The key in a file, made if there is none.
fn load_or_make_key(path: &Path) -> Result<SecretKey, DataFolderError> {
    let failed = |cause| DataFolderError::Io {
        path: path.to_owned(),
        cause,
    };
    match fs::read_to_string(path) {
        Ok(text) => read_seed(&text).ok_or_else(|| DataFolderError::NotAKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            rand::fill(&mut seed);
            let text = format!("{}\n", STANDARD_NO_PAD.encode(seed));
            match write_new(path, text.as_bytes()) {
                Ok(()) => Ok(SecretKey::from_seed(&seed)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_or_make_key(path),
                Err(error) => Err(failed(error)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DataFolderError::NotAKey(path.to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn read_seed(text: &str) -> Option<SecretKey> {
    let seed: [u8; 32] = STANDARD_NO_PAD.decode(text.trim()).ok()?.try_into().ok()?;
    Some(SecretKey::from_seed(&seed))
}

/// Writes a file that only its owner reads, complete and on disk, unless there is one already.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile_in(folder)?;
    let written = file.1.write_all(bytes).and_then(|()| file.1.sync_all());
    // A link, unlike a rename, never replaces what is there.
    let linked = written.and_then(|()| fs::hard_link(&file.0, path));
    let _ = fs::remove_file(&file.0);
    linked.and_then(|()| File::open(folder)?.sync_all())
}

/// A new file with a name nobody else uses.
fn tempfile_in(folder: &Path) -> io::Result<(PathBuf, File)> {
    let path = folder.join(format!(".new-{:016x}", rand::random::<u64>()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_broken_key_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        for content in [&b"nonsense"[..], b"", &[0xff; 40]] {
            fs::write(folder.path().join(ROOT_KEY), content).unwrap();
            assert!(matches!(
                Keys::load_or_make(folder.path()),
                Err(DataFolderError::NotAKey(_))
            ));
            assert_eq!(fs::read(folder.path().join(ROOT_KEY)).unwrap(), content);
        }
    }

    #[test]
    fn makers_of_one_key_agree() {
        let folder = tempfile::tempdir().unwrap();
        let seeds: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Keys::load_or_make(folder.path()).unwrap()))
                .collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap().root.to_seed())
                .collect()
        });
        assert!(seeds.iter().all(|seed| *seed == seeds[0]));
    }

    #[test]
    fn a_key_name_must_be_this_keys() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = folders
            .each_ref()
            .map(|folder| Keys::load_or_make(folder.path()).unwrap());
        let own = one.server_name(None).unwrap();
        assert!(own.as_str().ends_with(".maru.alt"));
        assert_eq!(one.server_name(Some(own.as_str())).unwrap(), own);
        assert!(matches!(
            other.server_name(Some(own.as_str())),
            Err(DataFolderError::OtherKey { .. })
        ));
        assert_eq!(
            one.server_name(Some("chat.example.org")).unwrap(),
            "chat.example.org"
        );
        assert!(matches!(
            one.server_name(Some("x.maru.alt")),
            Err(DataFolderError::NotAKeyName { .. })
        ));
        assert!(matches!(
            one.server_name(Some("not a name")),
            Err(DataFolderError::NotAName(_))
        ));
    }
}
