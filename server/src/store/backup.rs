//! Copies of the database, and what must change in one that goes to work again.

use std::path::Path;

use maru_protocol::cursor::LogId;

use super::engine::schema::VERSION;
use super::engine::{Address, query};
use super::{Database, Store, StoreError};

/// Copies the embedded database in `file`, as it stands at one moment, into a new file. The database may be in use,
/// also by another process.
///
/// # Errors
/// When there is no such database, or the copy cannot be written.
pub async fn copy_sqlite(file: &Path, copy: &Path) -> Result<(), StoreError> {
    // A connection with the defaults would make a database that is missing.
    if !file.is_file() {
        return Err(StoreError::Unavailable(format!(
            "{} does not exist",
            file.display()
        )));
    }
    let copy = copy
        .to_str()
        .ok_or_else(|| StoreError::Program("the path is no UTF-8".to_owned()))?;
    let mut connection = Address::sqlite(file).connect().await?;
    let copied = query("VACUUM INTO $1")
        .bind(copy)
        .execute(&mut connection)
        .await
        .map(drop);
    connection.close().await?;
    copied
}

/// The schema version of a database; `None` when it is new.
///
/// # Errors
/// When it does not answer, or this program is too old for it.
pub async fn schema_version(database: &Database) -> Result<Option<i64>, StoreError> {
    let (address, tables) = match database {
        Database::Sqlite(path) if !path.exists() => return Ok(None),
        Database::Sqlite(path) => (
            Address::sqlite(path),
            "SELECT COUNT(*) FROM sqlite_master WHERE name = 'schema'",
        ),
        Database::Postgres(url) => {
            let tables = "SELECT COUNT(*) FROM information_schema.tables \
                          WHERE table_name = 'schema' AND table_schema = current_schema()";
            (Address::postgres(url)?, tables)
        }
    };
    let readers = address.readers(1);
    let version = async {
        let found = query(tables).optional(&readers).await?;
        if found.map_or(Ok(0), |row| row.get::<i64>(0))? == 0 {
            return Ok(None);
        }
        let row = query("SELECT version, readable_by FROM schema")
            .optional(&readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (found, readable_by) = (row.get(0)?, row.get::<i64>(1)?);
        if readable_by > VERSION {
            Err(StoreError::Newer {
                found,
                known: VERSION,
            })
        } else {
            Ok(Some(found))
        }
    };
    let version = version.await;
    readers.close().await;
    version
}

impl Store {
    /// Makes a restored database fit for work: under a new log id every cursor that was handed out after the backup
    /// is known to be gone, and one-time keys that may have been handed out since are void.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn restored(&self, log_id: LogId) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let new_id = query("UPDATE log SET log_id = $1").bind(log_id.to_string());
                    new_id.run(&mut tx.connection).await?;
                    query("DELETE FROM one_time_keys")
                        .execute(&mut tx.connection)
                        .await
                        .map(drop)
                })
            })
            .await
    }
}
