//! Room keys in a version of a user's backup. Of two keys for one session the better one is kept.

use std::collections::BTreeMap;

use ruma::UserId;

use super::key_backups::{Held, LockedBackup};
use crate::store::StoreError;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::{Connection, Insert, Kind, Row, Value, query};

/// What names a key within a version: its room and its session.
pub type KeyName = (String, String);

/// A key as a client has backed it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUpKey {
    /// The index of the first message that it decrypts.
    pub first_message_index: i64,
    /// How often it was passed on before it came to the client.
    pub forwarded_count: i64,
    /// Whether the client has it from a device that the user has verified.
    pub is_verified: bool,
    /// The encrypted key: a JSON object.
    pub session_data: String,
}

/// What became of a change of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysChanged {
    /// It is stored.
    Stored {
        /// What the version's keys are at now.
        etag: i64,
        /// How many there are.
        keys: i64,
    },
    /// There is no such version.
    NoVersion,
    /// Keys are written to the newest version only, which is this one.
    NotNewest(i64),
    /// The user has no room for so many.
    OverQuota,
}

/// Keys that are read together.
const TOGETHER: i64 = 250;

macro_rules! select_room_keys {
    ($of:literal) => {
        concat!(
            "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data \
             FROM room_keys WHERE user_id = $1 AND version = $2 AND ",
            $of
        )
    };
}

macro_rules! delete_room_keys {
    ($of:literal) => {
        concat!(
            "DELETE FROM room_keys WHERE user_id = $1 AND version = $2 ",
            $of,
            " RETURNING CAST(OCTET_LENGTH(session_data) AS BIGINT)"
        )
    };
}

static INSERT: Insert = Insert {
    table: "room_keys",
    columns: &[
        ("user_id", Kind::Text),
        ("version", Kind::Int),
        ("room_id", Kind::Text),
        ("session_id", Kind::Text),
        ("first_message_index", Kind::Int),
        ("forwarded_count", Kind::Int),
        ("is_verified", Kind::Int),
        ("session_data", Kind::Text),
    ],
    on_conflict: "ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET \
                  first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count, \
                  is_verified = excluded.is_verified, session_data = excluded.session_data",
};

const PRESENT: &str = "SELECT k.room_id, k.session_id, k.first_message_index, k.forwarded_count, k.is_verified, \
    OCTET_LENGTH(k.session_data) FROM json_each($3) AS item CROSS JOIN room_keys AS k \
    ON k.user_id = $1 AND k.version = $2 AND k.room_id = json_extract(item.value, '$[0]') \
    AND k.session_id = json_extract(item.value, '$[1]')";
const PRESENT_ON_POSTGRES: &str = "SELECT k.room_id, k.session_id, k.first_message_index, k.forwarded_count, \
    k.is_verified, CAST(OCTET_LENGTH(k.session_data) AS BIGINT) FROM json_array_elements($3::json) AS item (value) \
    JOIN room_keys AS k ON k.user_id = $1 AND k.version = $2 AND k.room_id = item.value->>0 \
    AND k.session_id = item.value->>1";

/// A key that is there, without its content.
#[derive(Clone, Copy, Debug)]
struct Present {
    first_message_index: i64,
    forwarded_count: i64,
    is_verified: bool,
    bytes: i64,
}

impl BackedUpKey {
    /// Whether it takes the place of one that is there (client-server API, "Server-side key backups"): one that is verified
    /// is better than one that is not, then one that decrypts from an earlier message on, then one that was passed on less
    /// often.
    fn is_better_than(&self, present: &Present) -> bool {
        let rank = |verified: bool, first, forwarded| (!verified, first, forwarded);
        rank(self.is_verified, self.first_message_index, self.forwarded_count)
            < rank(
                present.is_verified,
                present.first_message_index,
                present.forwarded_count,
            )
    }

    fn bytes(&self) -> i64 {
        i64::try_from(self.session_data.len()).unwrap_or(i64::MAX)
    }
}

fn key(row: &Row) -> Result<(KeyName, BackedUpKey), StoreError> {
    let key = BackedUpKey {
        first_message_index: row.get(2)?,
        forwarded_count: row.get(3)?,
        is_verified: row.get::<i64>(4)? != 0,
        session_data: row.get(5)?,
    };
    Ok(((row.get(0)?, row.get(1)?), key))
}

impl EncryptionTables {
    /// Adds keys to a version, which must be the user's newest; those that are not better than what is there change nothing.
    /// Costs grow with the keys that are added.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn back_up_keys(
        &self,
        user_id: &UserId,
        version: i64,
        keys: BTreeMap<KeyName, BackedUpKey>,
        quota: Held,
    ) -> Result<KeysChanged, StoreError> {
        let user_id = user_id.to_string();
        let stored = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let (newest, all) = totals(connection, &user_id).await?;
                let locked = LockedBackup::take(connection, &user_id, version).await?;
                let Some(mut locked) = locked.filter(|_| newest == Some(version)) else {
                    return Ok(newest.map_or(KeysChanged::NoVersion, KeysChanged::NotNewest));
                };
                let present = present(connection, &user_id, version, keys.keys()).await?;
                let better = |(name, key): &(KeyName, BackedUpKey)| {
                    present
                        .get(name)
                        .is_none_or(|present| key.is_better_than(present))
                };
                let added: Vec<(KeyName, BackedUpKey)> = keys.into_iter().filter(better).collect();
                let growth = growth(&added, &present);
                if growth.exceeds(all, quota) {
                    return Ok(KeysChanged::OverQuota);
                }
                if !added.is_empty() {
                    INSERT.rows(connection, rows(&user_id, version, added)).await?;
                    locked.changed(connection, growth).await?;
                }
                Ok(KeysChanged::Stored {
                    etag: locked.etag,
                    keys: locked.held.keys,
                })
            })
        });
        stored.await
    }

    /// Up to 250 keys of a version in order of their names, those after one name, of one room and of one session if they are
    /// given.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_keys(
        &self,
        user_id: &UserId,
        version: i64,
        of: (Option<&str>, Option<&str>),
        after: &KeyName,
    ) -> Result<Vec<(KeyName, BackedUpKey)>, StoreError> {
        let rows = query(match of {
            (Some(_), Some(_)) => select_room_keys!("room_id = $3 AND session_id = $4 LIMIT $5"),
            (Some(_), None) => {
                select_room_keys!("room_id = $3 AND session_id > $4 ORDER BY session_id LIMIT $5")
            }
            (None, _) => {
                select_room_keys!("(room_id, session_id) > ($3, $4) ORDER BY room_id, session_id LIMIT $5")
            }
        });
        let (room, session) = (of.0.unwrap_or(&after.0), of.1.unwrap_or(&after.1));
        let rows = rows.bind(user_id.as_str()).bind(version);
        let rows = rows.bind(room).bind(session).bind(TOGETHER);
        rows.all(&self.readers).await?.iter().map(key).collect()
    }

    /// Removes keys of a version: all, those of a room, or that of a session.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove_room_keys(
        &self,
        user_id: &UserId,
        version: i64,
        of: (Option<String>, Option<String>),
    ) -> Result<KeysChanged, StoreError> {
        let user_id = user_id.to_string();
        let removed = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let Some(mut locked) = LockedBackup::take(connection, &user_id, version).await? else {
                    return Ok(KeysChanged::NoVersion);
                };
                let removed = query(match of {
                    (Some(_), Some(_)) => delete_room_keys!("AND room_id = $3 AND session_id = $4"),
                    (Some(_), None) => delete_room_keys!("AND room_id = $3"),
                    (None, _) => delete_room_keys!(""),
                });
                let removed = removed.bind(&user_id).bind(version);
                let named = [of.0.clone(), of.0.and(of.1)].into_iter().flatten();
                let removed = named.fold(removed, |removed, name| removed.bind(name));
                let mut growth = Held::default();
                for row in removed.all(&mut *connection).await? {
                    growth.keys -= 1;
                    growth.bytes -= row.get::<i64>(0)?;
                }
                if growth.keys < 0 {
                    locked.changed(connection, growth).await?;
                }
                Ok(KeysChanged::Stored {
                    etag: locked.etag,
                    keys: locked.held.keys,
                })
            })
        });
        removed.await
    }
}

/// By how much a version grows by keys, some of which take the places of others.
fn growth(added: &[(KeyName, BackedUpKey)], present: &BTreeMap<KeyName, Present>) -> Held {
    let mut growth = Held::default();
    for (name, key) in added {
        let replaced = present.get(name);
        growth.keys += i64::from(replaced.is_none());
        growth.bytes += key.bytes() - replaced.map_or(0, |replaced| replaced.bytes);
    }
    growth
}

fn rows(user_id: &str, version: i64, keys: Vec<(KeyName, BackedUpKey)>) -> Vec<Vec<Value>> {
    let row = |((room_id, session_id), key): (KeyName, BackedUpKey)| {
        vec![
            user_id.into(),
            version.into(),
            room_id.into(),
            session_id.into(),
            key.first_message_index.into(),
            key.forwarded_count.into(),
            key.is_verified.into(),
            key.session_data.into(),
        ]
    };
    keys.into_iter().map(row).collect()
}

/// The newest version of a user's backup, and what all of them hold.
async fn totals(connection: &mut Connection, user_id: &str) -> Result<(Option<i64>, Held), StoreError> {
    let row = query(
        "SELECT MAX(version), CAST(COALESCE(SUM(keys), 0) AS BIGINT), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) \
         FROM key_backups WHERE user_id = $1 AND deleted = 0",
    );
    match row.bind(user_id).optional(connection).await? {
        Some(row) => {
            let (keys, bytes) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, Held { keys, bytes }))
        }
        None => Ok((None, Held::default())),
    }
}

async fn present(
    connection: &mut Connection,
    user_id: &str,
    version: i64,
    names: impl Iterator<Item = &KeyName>,
) -> Result<BTreeMap<KeyName, Present>, StoreError> {
    let names = serde_json::to_string(&names.collect::<Vec<_>>()).map_err(StoreError::encoding)?;
    let text = if connection.is_sqlite() {
        PRESENT
    } else {
        PRESENT_ON_POSTGRES
    };
    let rows = query(text).bind(user_id).bind(version).bind(names);
    let read = |row: &Row| {
        let present = Present {
            first_message_index: row.get(2)?,
            forwarded_count: row.get(3)?,
            is_verified: row.get::<i64>(4)? != 0,
            bytes: row.get(5)?,
        };
        Ok(((row.get(0)?, row.get(1)?), present))
    };
    rows.all(connection).await?.iter().map(read).collect()
}
