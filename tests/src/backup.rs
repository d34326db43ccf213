//! Backups of servers that are shut down, made and restored as an admin does.

use std::sync::Arc;

use maru::config::Database;
use tempfile::TempDir;

use crate::Data;
use crate::postgres::OwnDatabase;

/// What a server had when it was backed up.
#[derive(Debug)]
pub struct Backup {
    folder: TempDir,
    postgres: Option<OwnDatabase>,
}

impl Backup {
    /// Backs up the data of a server that is shut down.
    pub(crate) async fn of(data: &Data) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = configured(data.postgres.as_deref());
        let made = maru::backup::back_up(data.folder(), &engine, None, folder.path());
        made.await.unwrap();
        Self {
            folder,
            postgres: data.postgres.as_deref().map(OwnDatabase::copy),
        }
    }

    /// Restores it into data of its own.
    pub(crate) async fn restore(self) -> Data {
        let folder = tempfile::tempdir().unwrap();
        let engine = configured(self.postgres.as_ref());
        let restored = maru::backup::restore(self.folder.path(), folder.path(), &engine);
        restored.await.unwrap();
        Data {
            folder,
            postgres: self.postgres.map(Arc::new),
        }
    }
}

fn configured(postgres: Option<&OwnDatabase>) -> Database {
    postgres.map_or(Database::Sqlite, |database| {
        Database::Postgres(database.url().to_owned())
    })
}
