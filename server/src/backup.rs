//! Backups: a folder with the database, the media and the keys of a server, and a manifest with the SHA-256 of each
//! file. The manifest is written last, so a folder without one is no backup.
//!
//! A PostgreSQL database is not in it: its own tools do that better, and the manifest says so.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use maru_protocol::cursor::LogId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use std::sync::Arc;

use crate::config::Database as Engine;
use crate::data_folder::{DataFolder, DataFolderError, Keys};
use crate::live::CommitListeners;
use crate::store::{Access, CommitLimits, Database, Store, StoreError, backup as copies};

/// The manifest's file.
const MANIFEST: &str = "manifest.json";
/// The only layout of backups so far.
const FORMAT: u32 = 1;

/// Why a backup or a restore did not happen.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The place for a backup or a restored server holds something already.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// There is no server to back up.
    #[error("{} holds no server", .0.display())]
    NoServer(PathBuf),
    /// The folder is no backup, or one that was not finished.
    #[error("{} is not a finished backup: {cause}", path.display())]
    NotABackup {
        /// The folder.
        path: PathBuf,
        /// What is wrong with its manifest.
        cause: String,
    },
    /// A file is not what it was when the backup was made.
    #[error("{} in the backup is damaged", .0.display())]
    Damaged(PathBuf),
    /// The backup is of a server on the other kind of database.
    #[error("the backup is of a server on {of}, but the configuration says {configured}")]
    OtherEngine {
        /// What the backup is of.
        of: &'static str,
        /// What is configured.
        configured: &'static str,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// The database cannot be copied or opened.
    #[error("the database: {0}")]
    Store(#[from] StoreError),
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The server it is of.
    pub server_name: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// `sqlite` or `postgres`; only the first is in the backup.
    pub database: String,
    /// Every file but the manifest.
    pub files: Vec<BackedUpFile>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackedUpFile {
    /// Within the backup, and within the data folder.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Of its content, in hexadecimal.
    pub sha256: String,
}

/// Backs up the server of a data folder into a folder, which is made. The server may run.
///
/// # Errors
///
/// When there is no server, or a file cannot be copied.
pub async fn back_up(
    data: &Path,
    engine: &Engine,
    server_name: Option<&str>,
    into: &Path,
) -> Result<Manifest, BackupError> {
    let keys = DataFolder::keys_in(data);
    if keys.iter().any(|key| !key.is_file()) {
        return Err(BackupError::NoServer(data.to_owned()));
    }
    let server_name = Keys::load_or_make(data)?.server_name(server_name)?.to_string();
    make_empty(into)?;
    let mut files = Vec::new();
    // The database first: media are never changed, so what it names is still there afterwards.
    if *engine == Engine::Sqlite {
        let from = DataFolder::database_in(data);
        let path = relative(&from, data);
        copies::copy_sqlite(&from, &into.join(&path)).await?;
        files.push(describe(into, &path)?);
    }
    let old_keys = DataFolder::old_keys_in(data);
    for from in keys
        .into_iter()
        .chain(old_keys)
        .chain(files_below(&DataFolder::media_in(data))?)
    {
        let path = relative(&from, data);
        copy(&from, &into.join(&path))?;
        files.push(describe(into, &path)?);
    }
    let made_at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let manifest = Manifest {
        format: FORMAT,
        server_name,
        made_at,
        database: word(engine).to_owned(),
        files,
    };
    write_manifest(into, &manifest)?;
    Ok(manifest)
}

/// Restores a backup, after checking every file of it, into a data folder that holds no server yet. A PostgreSQL
/// database must have been restored by its own tools before.
///
/// # Errors
///
/// When the backup is damaged, the folder is not empty, or a file cannot be written.
pub async fn restore(from: &Path, data: &Path, engine: &Engine) -> Result<Manifest, BackupError> {
    let manifest = read_manifest(from)?;
    let configured = word(engine);
    if manifest.database != configured {
        let of = if configured == "sqlite" {
            "postgres"
        } else {
            "sqlite"
        };
        return Err(BackupError::OtherEngine { of, configured });
    }
    for file in &manifest.files {
        if !describe(from, &file.path).is_ok_and(|found| found == *file) {
            return Err(BackupError::Damaged(file.path.clone()));
        }
    }
    make_empty(data)?;
    let unfinished = DataFolder::mark_unfinished(data)?;
    for file in &manifest.files {
        copy(&from.join(&file.path), &data.join(&file.path))?;
    }
    let database = match engine {
        Engine::Sqlite => Database::Sqlite(DataFolder::database_in(data)),
        Engine::Postgres(url) => Database::Postgres(url.clone()),
    };
    let new_log = LogId(rand::random());
    let store = Store::open(
        &database,
        Access::Alone,
        new_log,
        CommitLimits::default(),
        Arc::new(CommitListeners::default()),
    )
    .await?;
    let renewed = store.restored(new_log).await;
    store.close().await;
    renewed?;
    unfinished.finish()?;
    Ok(manifest)
}

fn word(engine: &Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres(_) => "postgres",
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |cause| BackupError::Io { path, cause }
}

fn relative(path: &Path, to: &Path) -> PathBuf {
    path.strip_prefix(to).unwrap_or(path).to_owned()
}

/// Makes a folder, or takes one with nothing in it.
fn make_empty(folder: &Path) -> Result<(), BackupError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))?;
    match fs::read_dir(folder).map_err(failed(folder))?.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::NotEmpty(folder.to_owned())),
    }
}

/// All files in a folder and the folders in it, in order; none if it is missing.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed(&folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed(&folder))?;
            let kind = entry.file_type().map_err(failed(&folder))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Copies a file durably.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    if let Some(folder) = to.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed(folder))?;
    }
    fs::copy(from, to).map_err(failed(from))?;
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(failed(to))
}

/// Size and sum of a file of a backup, which is made durable on the way.
fn describe(backup: &Path, path: &Path) -> Result<BackedUpFile, BackupError> {
    let full = backup.join(path);
    let mut file = File::open(&full).map_err(failed(&full))?;
    file.sync_all().map_err(failed(&full))?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer).map_err(failed(&full))? {
            0 => break,
            read => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
        }
    }
    let sha256 = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(BackedUpFile {
        path: path.to_owned(),
        bytes,
        sha256,
    })
}

fn write_manifest(backup: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = backup.join(MANIFEST);
    let aside = backup.join(".manifest");
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(&path)(error.into()))?;
    let written =
        File::create(&aside).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    let moved = written
        .and_then(|()| fs::rename(&aside, &path))
        .and_then(|()| File::open(backup)?.sync_all());
    moved.map_err(failed(&path))
}

fn read_manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let not = |cause: String| BackupError::NotABackup {
        path: backup.to_owned(),
        cause,
    };
    let text = fs::read(backup.join(MANIFEST)).map_err(|error| not(error.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| not(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(not(format!(
            "its format is {}, this program knows {FORMAT}",
            manifest.format
        )));
    }
    // A manifest from somebody else must not make us write outside the data folder.
    let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    match manifest.files.iter().find(|file| !inside(&file.path)) {
        Some(file) => Err(not(format!("it names {}", file.path.display()))),
        None => Ok(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data folder with keys, an empty database and two media.
    async fn server(data: &Path) -> LogId {
        DataFolder::open(data).unwrap().rotate_signing_key(1).unwrap();
        let media = DataFolder::media_in(data).join("ab");
        fs::create_dir_all(&media).unwrap();
        fs::write(media.join("one"), b"one").unwrap();
        fs::write(media.join("two"), vec![7; 200_000]).unwrap();
        open(data).await
    }

    async fn open(data: &Path) -> LogId {
        let database = Database::Sqlite(DataFolder::database_in(data));
        let id = LogId(rand::random());
        let store = Store::open(
            &database,
            Access::Alone,
            id,
            CommitLimits::default(),
            Arc::new(CommitListeners::default()),
        )
        .await
        .unwrap();
        let id = store.log.id();
        store.close().await;
        id
    }

    #[tokio::test]
    async fn a_backup_comes_back_under_a_new_log_id() {
        let folder = tempfile::tempdir().unwrap();
        let [data, into, back] = ["data", "backup", "back"].map(|name| folder.path().join(name));
        let log_id = server(&data).await;
        let manifest = back_up(&data, &Engine::Sqlite, None, &into).await.unwrap();
        assert_eq!(manifest.files.len(), 7);
        assert_eq!(restore(&into, &back, &Engine::Sqlite).await.unwrap(), manifest);
        let files = [
            "root.key",
            "signing.key",
            "signing.old",
            "tls.key",
            "media/ab/one",
            "media/ab/two",
        ];
        for file in files {
            assert_eq!(
                fs::read(data.join(file)).unwrap(),
                fs::read(back.join(file)).unwrap()
            );
        }
        assert_ne!(open(&back).await, log_id);
        DataFolder::open(&back).unwrap();
    }

    #[tokio::test]
    async fn a_running_server_can_be_backed_up() {
        let folder = tempfile::tempdir().unwrap();
        let [data, into] = ["data", "backup"].map(|name| folder.path().join(name));
        server(&data).await;
        let held = DataFolder::open(&data).unwrap();
        let database = Database::Sqlite(held.database());
        let id = LogId(rand::random());
        let store = Store::open(
            &database,
            Access::Alone,
            id,
            CommitLimits::default(),
            Arc::new(CommitListeners::default()),
        )
        .await
        .unwrap();
        back_up(&data, &Engine::Sqlite, None, &into).await.unwrap();
        store.close().await;
    }

    #[tokio::test]
    async fn damage_is_found_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let [data, into, back] = ["data", "backup", "back"].map(|name| folder.path().join(name));
        server(&data).await;
        back_up(&data, &Engine::Sqlite, None, &into).await.unwrap();
        let whole = fs::read(into.join("media/ab/two")).unwrap();
        let mut damaged = whole.clone();
        damaged[100_000] ^= 1;
        for content in [&damaged[..], &whole[1..]] {
            fs::write(into.join("media/ab/two"), content).unwrap();
            let error = restore(&into, &back, &Engine::Sqlite).await.unwrap_err();
            assert!(
                matches!(&error, BackupError::Damaged(path) if path.ends_with("two")),
                "{error}"
            );
            assert!(!back.exists());
        }
        fs::remove_file(into.join(MANIFEST)).unwrap();
        let error = restore(&into, &back, &Engine::Sqlite).await.unwrap_err();
        assert!(matches!(error, BackupError::NotABackup { .. }), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let [data, into] = ["data", "backup"].map(|name| folder.path().join(name));
        let error = back_up(&data, &Engine::Sqlite, None, &into).await.unwrap_err();
        assert!(matches!(error, BackupError::NoServer(_)), "{error}");
        server(&data).await;
        back_up(&data, &Engine::Sqlite, None, &into).await.unwrap();
        let error = back_up(&data, &Engine::Sqlite, None, &into).await.unwrap_err();
        assert!(matches!(error, BackupError::NotEmpty(_)), "{error}");
        let error = restore(&into, &data, &Engine::Sqlite).await.unwrap_err();
        assert!(matches!(error, BackupError::NotEmpty(_)), "{error}");
        let postgres = Engine::Postgres("postgres://nowhere/maru".to_owned());
        let error = restore(&into, &folder.path().join("other"), &postgres)
            .await
            .unwrap_err();
        assert!(matches!(error, BackupError::OtherEngine { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_restore_that_was_cut_off_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        DataFolder::mark_unfinished(folder.path()).unwrap();
        assert!(matches!(
            DataFolder::open(folder.path()),
            Err(DataFolderError::Unfinished(_))
        ));
    }

    #[test]
    fn a_manifest_cannot_point_outside() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../root.key", "/etc/passwd", "media/../../x"] {
            let file = BackedUpFile {
                path: path.into(),
                bytes: 0,
                sha256: String::new(),
            };
            let (server_name, database) = ("a".to_owned(), "sqlite".to_owned());
            let manifest = Manifest {
                format: FORMAT,
                server_name,
                made_at: 0,
                database,
                files: vec![file],
            };
            write_manifest(folder.path(), &manifest).unwrap();
            assert!(read_manifest(folder.path()).is_err(), "{path}");
        }
    }
}
