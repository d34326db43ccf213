//! The private keys of a server, as files of its data folder.
//!
//! A key file is written once and never over: it appears complete and on disk, or not at all. Only the signing key
//! is ever replaced, by [`Keys::rotate`], and what it was stays in a list beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use maru_protocol::record::{EventKey, MAX_SIGNING_KEYS};
use maru_protocol::server_name::key_name;
use maru_protocol::{KeyId, PublicKey, SecretKey, ServerKind, SigningKey};
use ruma::{OwnedServerName, ServerName};

use super::{DataFolderError, make_folder};

/// Seed of the root key, which signs server records only and is the server's key name.
pub(super) const ROOT_KEY: &str = "root.key";
/// Seed of the signing key, which signs events.
pub(super) const SIGNING_KEY: &str = "signing.key";
/// Seed of the key of the server's TLS certificates, by which other homeservers know a connection.
pub(super) const TLS_KEY: &str = "tls.key";
/// Public halves of earlier signing keys: a line for each, with its id and the last time that it is good for.
pub(super) const OLD_SIGNING_KEYS: &str = "signing.old";

/// The private keys of a server.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs server records. Its public half is the key name.
    pub root: SecretKey,
    /// Signs events.
    pub signing: SigningKey,
    /// Proves connections with other homeservers.
    pub tls: SecretKey,
    /// What signed events before, each with the last `origin_server_ts` that it is good for, the oldest first.
    pub old_signing: Vec<EventKey>,
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
        let mut old_signing = read_old_keys(&folder.join(OLD_SIGNING_KEYS))?;
        // A rotation that was cut off has listed the key that is still in use.
        old_signing.retain(|old| old.id != id);
        Ok(Self {
            root,
            signing: SigningKey { id, secret },
            tls: load_or_make_key(&folder.join(TLS_KEY))?,
            old_signing,
        })
    }

    /// Makes another signing key and lists the present one as good until now, in milliseconds since 1970.
    ///
    /// The caller holds the folder's lock: a running server would go on signing with the old key.
    ///
    /// # Errors
    ///
    /// [`DataFolderError::TooManyKeys`] when a server record has no room for another, else as
    /// [`Keys::load_or_make`].
    pub(super) fn rotate(folder: &Path, now_ms: u64) -> Result<Self, DataFolderError> {
        let Self {
            signing,
            mut old_signing,
            ..
        } = Self::load_or_make(folder)?;
        old_signing.push(EventKey {
            id: signing.id,
            key: signing.secret.public_key(),
            valid_until: Some(now_ms),
        });
        if old_signing.len() >= MAX_SIGNING_KEYS {
            return Err(DataFolderError::TooManyKeys);
        }
        // The list first: were the old key in neither file, nothing that it signed could be verified again.
        let lines: String = old_signing.iter().map(line).collect();
        replace(&folder.join(OLD_SIGNING_KEYS), lines.as_bytes())?;
        replace(&folder.join(SIGNING_KEY), new_seed().as_bytes())?;
        Self::load_or_make(folder)
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

/// The key in a file, made if there is none.
fn load_or_make_key(path: &Path) -> Result<SecretKey, DataFolderError> {
    let failed = |cause| DataFolderError::Io {
        path: path.to_owned(),
        cause,
    };
    match fs::read_to_string(path) {
        Ok(text) => read_seed(&text).ok_or_else(|| DataFolderError::NotAKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match write_new(path, new_seed().as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
                _ => load_or_make_key(path),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DataFolderError::NotAKey(path.to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A random seed as a key file holds it.
fn new_seed() -> String {
    let mut seed = [0; 32];
    rand::fill(&mut seed);
    format!("{}\n", STANDARD_NO_PAD.encode(seed))
}

fn read_seed(text: &str) -> Option<SecretKey> {
    let seed: [u8; 32] = STANDARD_NO_PAD.decode(text.trim()).ok()?.try_into().ok()?;
    Some(SecretKey::from_seed(&seed))
}

/// The earlier signing keys in a file; none if it is missing.
fn read_old_keys(path: &Path) -> Result<Vec<EventKey>, DataFolderError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|cause| DataFolderError::Io {
            path: path.to_owned(),
            cause,
        })?,
    };
    let keys: Option<Vec<_>> = text.lines().map(read_line).collect();
    keys.ok_or_else(|| DataFolderError::NotAKey(path.to_owned()))
}

fn line(old: &EventKey) -> String {
    format!(
        "{} {} {}\n",
        old.id.as_str(),
        old.key,
        old.valid_until.unwrap_or_default()
    )
}

fn read_line(line: &str) -> Option<EventKey> {
    let mut words = line.split(' ');
    let (id, key, until) = (words.next()?, words.next()?, words.next()?);
    let old = EventKey {
        id: id.parse().ok()?,
        key: PublicKey::from_base64(key).ok()?,
        valid_until: Some(until.parse().ok()?),
    };
    words.next().is_none().then_some(old)
}

/// Puts a file that only its owner reads in the place of what is there, durably: one or the other is there at any
/// moment.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataFolderError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let replaced = tempfile_in(folder).and_then(|(aside, mut file)| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(aside, path)?;
        File::open(folder)?.sync_all()
    });
    replaced.map_err(|cause| DataFolderError::Io {
        path: path.to_owned(),
        cause,
    })
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

    #[test]
    fn what_a_rotation_replaces_stays_listed() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::load_or_make(folder.path()).unwrap();
        assert!(first.old_signing.is_empty());
        let second = Keys::rotate(folder.path(), 1000).unwrap();
        let third = Keys::rotate(folder.path(), 2000).unwrap();
        assert_eq!(third.root.to_seed(), first.root.to_seed());
        assert_eq!(third.tls.to_seed(), first.tls.to_seed());
        let listed = |keys: &Keys, until| EventKey {
            id: keys.signing.id.clone(),
            key: keys.signing.secret.public_key(),
            valid_until: Some(until),
        };
        assert_eq!(third.old_signing, [listed(&first, 1000), listed(&second, 2000)]);
        assert_ne!(third.signing.id, second.signing.id);
        let again = Keys::load_or_make(folder.path()).unwrap();
        assert_eq!(again.signing.id, third.signing.id);
        assert_eq!(again.old_signing, third.old_signing);
    }

    #[test]
    fn a_rotation_that_was_cut_off_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::load_or_make(folder.path()).unwrap();
        let seed = fs::read(folder.path().join(SIGNING_KEY)).unwrap();
        Keys::rotate(folder.path(), 1000).unwrap();
        fs::write(folder.path().join(SIGNING_KEY), seed).unwrap();
        let cut = Keys::load_or_make(folder.path()).unwrap();
        assert_eq!(cut.signing.id, first.signing.id);
        assert!(cut.old_signing.is_empty());
        let rotated = Keys::rotate(folder.path(), 3000).unwrap();
        assert_eq!(rotated.old_signing.len(), 1);
        assert_eq!(rotated.old_signing[0].valid_until, Some(3000));
    }

    #[test]
    fn rotations_end_when_a_record_is_full() {
        let folder = tempfile::tempdir().unwrap();
        for now in 1..MAX_SIGNING_KEYS as u64 {
            Keys::rotate(folder.path(), now).unwrap();
        }
        let full = Keys::load_or_make(folder.path()).unwrap();
        assert!(matches!(
            Keys::rotate(folder.path(), 99),
            Err(DataFolderError::TooManyKeys)
        ));
        let kept = Keys::load_or_make(folder.path()).unwrap();
        assert_eq!(kept.signing.id, full.signing.id);
        assert_eq!(kept.old_signing, full.old_signing);
    }

    #[test]
    fn a_broken_list_of_old_keys_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        Keys::rotate(folder.path(), 1).unwrap();
        let path = folder.path().join(OLD_SIGNING_KEYS);
        let line = fs::read_to_string(&path).unwrap();
        for broken in [
            "\n".to_owned(),
            line.replace(" 1\n", "\n"),
            line.replace(" 1\n", " 1 2\n"),
        ] {
            fs::write(&path, broken).unwrap();
            assert!(matches!(
                Keys::load_or_make(folder.path()),
                Err(DataFolderError::NotAKey(_))
            ));
        }
    }
}
