//! Versions of backups of room keys: which there are, and what each counts. Their keys: `room_keys.rs`.

use ruma::UserId;

use crate::store::StoreError;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::{Connection, Row, query};

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBackup {
    /// Its number.
    pub version: i64,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What clients need to use it: a JSON object.
    pub auth_data: String,
    /// How many keys it holds.
    pub keys: i64,
    /// Changes with every change of its keys.
    pub etag: i64,
}

/// What backups hold, or may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Keys.
    pub keys: i64,
    /// Bytes of those keys.
    pub bytes: i64,
}

impl Held {
    /// Whether something that holds so much may not grow by this. What does not grow may stay above a quota.
    pub(super) fn exceeds(self, held: Self, quota: Self) -> bool {
        let exceeds = |growth, held, quota| growth > 0 && held + growth > quota;
        exceeds(self.keys, held.keys, quota.keys) || exceeds(self.bytes, held.bytes, quota.bytes)
    }
}

/// Versions that one user may have; a client has one and removes it when it makes another.
const VERSIONS: i64 = 20;

const ONE: &str = "SELECT version, algorithm, auth_data, keys, etag FROM key_backups \
                   WHERE user_id = $1 AND deleted = 0 AND version = COALESCE($2, version) \
                   ORDER BY version DESC LIMIT 1";

fn key_backup(row: &Row) -> Result<KeyBackup, StoreError> {
    Ok(KeyBackup {
        version: row.get(0)?,
        algorithm: row.get(1)?,
        auth_data: row.get(2)?,
        keys: row.get(3)?,
        etag: row.get(4)?,
    })
}

impl EncryptionTables {
    /// Makes a further version of a user's backup, without keys, and returns its number; none when the user has too many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_key_backup(
        &self,
        user_id: &UserId,
        algorithm: String,
        auth_data: String,
    ) -> Result<Option<i64>, StoreError> {
        let user_id = user_id.to_string();
        // In the log's turn, so that two of a user's devices do not take the same number.
        let created = self.log.transact(move |tx| {
            Box::pin(async move {
                let counted = query(
                    "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT), \
                     CAST(COALESCE(SUM(1 - deleted), 0) AS BIGINT) FROM key_backups WHERE user_id = $1",
                );
                let counted = counted.bind(&user_id).optional(&mut tx.connection).await?;
                let (newest, versions) = match &counted {
                    Some(row) => (row.get::<i64>(0)?, row.get::<i64>(1)?),
                    None => (0, 0),
                };
                if versions >= VERSIONS {
                    return Ok(None);
                }
                let gone = query("DELETE FROM key_backups WHERE user_id = $1 AND deleted = 1");
                gone.bind(&user_id).run(&mut tx.connection).await?;
                query(
                    "INSERT INTO key_backups (user_id, version, algorithm, auth_data, etag, keys, bytes, deleted) \
                     VALUES ($1, $2, $3, $4, 0, 0, 0, 0)",
                )
                .bind(&user_id)
                .bind(newest + 1)
                .bind(&algorithm)
                .bind(&auth_data)
                .run(&mut tx.connection)
                .await?;
                Ok(Some(newest + 1))
            })
        });
        created.await
    }

    /// A version of a user's backup, the newest without `version`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_backup(
        &self,
        user_id: &UserId,
        version: Option<i64>,
    ) -> Result<Option<KeyBackup>, StoreError> {
        let found = query(ONE).bind(user_id.as_str()).bind(version);
        let found = found.optional(&self.readers).await?;
        found.as_ref().map(key_backup).transpose()
    }

    /// Changes what clients need to use a version; false when there is none with that algorithm.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn update_key_backup(
        &self,
        user_id: &UserId,
        version: i64,
        algorithm: String,
        auth_data: String,
    ) -> Result<bool, StoreError> {
        let user_id = user_id.to_string();
        let updated = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query(
                    "UPDATE key_backups SET auth_data = $1 \
                     WHERE user_id = $2 AND version = $3 AND algorithm = $4 AND deleted = 0",
                );
                let update = update.bind(auth_data).bind(user_id).bind(version).bind(algorithm);
                Ok(update.execute(&mut tx.connection).await? > 0)
            })
        });
        updated.await
    }

    /// Removes a version with its keys; false when there is none.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn delete_key_backup(&self, user_id: &UserId, version: i64) -> Result<bool, StoreError> {
        let user_id = user_id.to_string();
        let deleted = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let delete = query(
                    "UPDATE key_backups SET deleted = 1, auth_data = '{}', keys = 0, bytes = 0 \
                     WHERE user_id = $1 AND version = $2 AND deleted = 0",
                );
                let delete = delete.bind(&user_id).bind(version);
                if delete.execute(&mut tx.connection).await? == 0 {
                    return Ok(false);
                }
                let keys = query("DELETE FROM room_keys WHERE user_id = $1 AND version = $2");
                keys.bind(&user_id).bind(version).run(&mut tx.connection).await?;
                Ok(true)
            })
        });
        deleted.await
    }
}

/// Statements that remove all backups of the user `$1`: of an account that is closed.
pub(in crate::store) const DELETE_ALL: [&str; 2] = [
    "DELETE FROM room_keys WHERE user_id = $1",
    "DELETE FROM key_backups WHERE user_id = $1",
];

/// What changes with a change of a version's keys, while nobody else changes them.
#[derive(Debug)]
pub(super) struct LockedBackup {
    user_id: String,
    version: i64,
    pub(super) etag: i64,
    pub(super) held: Held,
}

impl LockedBackup {
    /// Has a version's row for the rest of the transaction; none when there is no such version.
    pub(super) async fn take(
        connection: &mut Connection,
        user_id: &str,
        version: i64,
    ) -> Result<Option<Self>, StoreError> {
        // An update that changes nothing is a lock on both engines.
        let row = query(
            "UPDATE key_backups SET etag = etag WHERE user_id = $1 AND version = $2 AND deleted = 0 \
             RETURNING etag, keys, bytes",
        );
        let row = row.bind(user_id).bind(version).optional(connection).await?;
        row.map(|row| {
            Ok(Self {
                user_id: user_id.to_owned(),
                version,
                etag: row.get(0)?,
                held: Held {
                    keys: row.get(1)?,
                    bytes: row.get(2)?,
                },
            })
        })
        .transpose()
    }

    /// Counts a change of the keys by which the version grows so much.
    pub(super) async fn changed(
        &mut self,
        connection: &mut Connection,
        growth: Held,
    ) -> Result<(), StoreError> {
        self.etag += 1;
        self.held.keys += growth.keys;
        self.held.bytes += growth.bytes;
        let store = query(
            "UPDATE key_backups SET etag = $1, keys = $2, bytes = $3 WHERE user_id = $4 AND version = $5",
        );
        let store = store.bind(self.etag).bind(self.held.keys).bind(self.held.bytes);
        store.bind(&self.user_id).bind(self.version).run(connection).await
    }
}
