//! One-time keys, each handed out at most once ever, and the fallback keys for when there are none.
//!
//! A key that was handed out leaves its id behind, so that a device that uploads it again, because it never heard that
//! the first upload arrived, does not bring it back.

use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::{Connection, Row, query};
use crate::store::log::{DeviceName, Record};

/// A key that a device offers.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// For example `signed_curve25519`.
    pub algorithm: String,
    /// Unique to the device and algorithm.
    pub key_id: String,
    /// The key: a JSON object or string.
    pub json: String,
}

/// What a claim asks for: one key of this algorithm of this device.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: String,
    /// For example `signed_curve25519`.
    pub algorithm: String,
}

/// Why keys were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysRefused {
    /// Another key of this id is there.
    Exists(String),
    /// The device has as many as it may.
    TooMany,
}

async fn offered(
    connection: &mut Connection,
    user_id: &UserId,
    device_id: &str,
    key: &NewKey,
) -> Result<Option<(String, bool)>, StoreError> {
    let row = query(
        "SELECT json, claimed FROM one_time_keys \
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4",
    );
    let row = row
        .bind(user_id.as_str())
        .bind(device_id)
        .bind(&key.algorithm)
        .bind(&key.key_id)
        .optional(connection)
        .await?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// How many keys the device offers, and the number of the last upload that one of them came with.
async fn standing(
    connection: &mut Connection,
    user_id: &UserId,
    device_id: &str,
) -> Result<(i64, i64), StoreError> {
    let row = query(
        "SELECT COUNT(*), COALESCE(MAX(position), 0) \
         FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND claimed = 0",
    );
    let row = row
        .bind(user_id.as_str())
        .bind(device_id)
        .optional(connection)
        .await?;
    row.map_or(Ok((0, 0)), |row| Ok((row.get(0)?, row.get(1)?)))
}

async fn put_fallback(
    connection: &mut Connection,
    user_id: &UserId,
    device_id: &str,
    key: NewKey,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, json, used) \
         VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (user_id, device_id, algorithm) DO UPDATE SET \
         used = CASE WHEN fallback_keys.json = excluded.json THEN fallback_keys.used ELSE 0 END, \
         key_id = excluded.key_id, json = excluded.json",
    )
    .bind(user_id.as_str())
    .bind(device_id)
    .bind(key.algorithm)
    .bind(key.key_id)
    .bind(key.json)
    .run(connection)
    .await
}

async fn take_oldest(connection: &mut Connection, claim: &Claim) -> Result<Option<NewKey>, StoreError> {
    let row = query(
        "SELECT algorithm, key_id, json FROM one_time_keys \
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND claimed = 0 ORDER BY position LIMIT 1",
    );
    let row = row
        .bind(claim.user_id.as_str())
        .bind(&claim.device_id)
        .bind(&claim.algorithm)
        .optional(&mut *connection)
        .await?;
    let Some(key) = row.as_ref().map(read_key).transpose()? else {
        return Ok(None);
    };
    query(
        "UPDATE one_time_keys SET claimed = 1, json = '' \
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4",
    )
    .bind(claim.user_id.as_str())
    .bind(&claim.device_id)
    .bind(&claim.algorithm)
    .bind(&key.key_id)
    .run(connection)
    .await?;
    Ok(Some(key))
}

async fn use_fallback(connection: &mut Connection, claim: &Claim) -> Result<Option<NewKey>, StoreError> {
    let row = query(
        "SELECT algorithm, key_id, json FROM fallback_keys \
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3",
    );
    let row = row
        .bind(claim.user_id.as_str())
        .bind(&claim.device_id)
        .bind(&claim.algorithm)
        .optional(&mut *connection)
        .await?;
    let Some(key) = row.as_ref().map(read_key).transpose()? else {
        return Ok(None);
    };
    query(
        "UPDATE fallback_keys SET used = 1 \
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND used = 0",
    )
    .bind(claim.user_id.as_str())
    .bind(&claim.device_id)
    .bind(&claim.algorithm)
    .run(connection)
    .await?;
    Ok(Some(key))
}

fn read_key(row: &Row) -> Result<NewKey, StoreError> {
    Ok(NewKey {
        algorithm: row.get(0)?,
        key_id: row.get(1)?,
        json: row.get(2)?,
    })
}

/// One-time keys of a device that are left, by algorithm.
pub type KeysLeft = ((OwnedUserId, String), String, i64);

/// An algorithm whose fallback key of a device is unused.
pub type UnusedFallback = ((OwnedUserId, String), String);

fn read_device(row: &Row) -> Result<(OwnedUserId, String), StoreError> {
    let user_id = crate::store::accounts::users::user_id(row, 0, "one_time_keys")?;
    Ok((user_id, row.get(1)?))
}

impl EncryptionTables {
    /// Takes keys that a device offers, all or none: at most `most` of them stand at a time. Keys that are there, or
    /// were handed out, are passed over.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn offer_keys(
        &self,
        user_id: &UserId,
        device_id: &str,
        one_time: Vec<NewKey>,
        fallback: Vec<NewKey>,
        most: usize,
    ) -> Result<Result<(), KeysRefused>, StoreError> {
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let mut fresh = Vec::new();
                    for key in one_time {
                        match offered(&mut tx.connection, &user_id, &device_id, &key).await? {
                            None => fresh.push(key),
                            Some((json, claimed)) if claimed || json == key.json => {}
                            Some(_) => return Ok(Err(KeysRefused::Exists(key.key_id))),
                        }
                    }
                    let (standing, mut position) = standing(&mut tx.connection, &user_id, &device_id).await?;
                    if usize::try_from(standing).unwrap_or(usize::MAX) + fresh.len() > most {
                        return Ok(Err(KeysRefused::TooMany));
                    }
                    for key in fresh {
                        position += 1;
                        query(
                            "INSERT INTO one_time_keys \
                         (user_id, device_id, algorithm, key_id, json, position, claimed) \
                         VALUES ($1, $2, $3, $4, $5, $6, 0)",
                        )
                        .bind(user_id.as_str())
                        .bind(&device_id)
                        .bind(key.algorithm)
                        .bind(key.key_id)
                        .bind(key.json)
                        .bind(position)
                        .run(&mut tx.connection)
                        .await?;
                    }
                    for key in fallback {
                        put_fallback(&mut tx.connection, &user_id, &device_id, key).await?;
                    }
                    tx.push(Record::KeyCounts(DeviceName { user_id, device_id }));
                    Ok(Ok(()))
                })
            })
            .await
    }

    /// How many one-time keys of each algorithm a device offers, and the algorithms whose fallback key is unused.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_counts(
        &self,
        user_id: &UserId,
        device_id: &str,
    ) -> Result<(Vec<(String, i64)>, Vec<String>), StoreError> {
        let counts = query(
            "SELECT algorithm, COUNT(*) FROM one_time_keys \
             WHERE user_id = $1 AND device_id = $2 AND claimed = 0 GROUP BY algorithm",
        );
        let counts = counts.bind(user_id.as_str()).bind(device_id).all(&self.readers);
        let fallback = query(
            "SELECT algorithm FROM fallback_keys \
             WHERE user_id = $1 AND device_id = $2 AND used = 0 ORDER BY algorithm",
        );
        let fallback = fallback.bind(user_id.as_str()).bind(device_id).all(&self.readers);
        let counts = counts
            .await?
            .iter()
            .map(|row| Ok((row.get(0)?, row.get(1)?)))
            .collect::<Result<_, StoreError>>()?;
        let unused = fallback
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect::<Result<_, StoreError>>()?;
        Ok((counts, unused))
    }

    /// How many one-time keys of each algorithm devices of these users offer, and the algorithms whose fallback key is unused:
    /// of the devices of these ids, whoever of the users has them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_counts_of(
        &self,
        users: Vec<String>,
        devices: Vec<String>,
    ) -> Result<(Vec<KeysLeft>, Vec<UnusedFallback>), StoreError> {
        let counts = query(
            "SELECT user_id, device_id, algorithm, COUNT(*) FROM one_time_keys \
             WHERE user_id = ANY($1) AND device_id = ANY($2) AND claimed = 0 GROUP BY user_id, device_id, algorithm",
        );
        let counts = counts.bind(users.clone()).bind(devices.clone());
        let fallback = query(
            "SELECT user_id, device_id, algorithm FROM fallback_keys \
             WHERE user_id = ANY($1) AND device_id = ANY($2) AND used = 0 ORDER BY user_id, device_id, algorithm",
        );
        let fallback = fallback.bind(users).bind(devices);
        let left = |row: &Row| Ok((read_device(row)?, row.get(2)?, row.get(3)?));
        let unused = |row: &Row| Ok((read_device(row)?, row.get(2)?));
        let counts = counts.all(&self.readers).await?;
        let fallback = fallback.all(&self.readers).await?;
        Ok((
            counts.iter().map(left).collect::<Result<_, StoreError>>()?,
            fallback.iter().map(unused).collect::<Result<_, StoreError>>()?,
        ))
    }

    /// Hands out keys: for each claim the oldest one-time key, or else the fallback key. A one-time key goes out once,
    /// and is on disk as gone before this returns.
    ///
    /// # Errors
    /// When it was not stored; nothing is handed out then.
    pub async fn claim_keys(&self, claims: Vec<Claim>) -> Result<Vec<(Claim, NewKey)>, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let mut claimed = Vec::with_capacity(claims.len());
                    for claim in claims {
                        let key = match take_oldest(&mut tx.connection, &claim).await? {
                            Some(key) => Some(key),
                            None => use_fallback(&mut tx.connection, &claim).await?,
                        };
                        if let Some(key) = key {
                            tx.push(Record::KeyCounts(DeviceName {
                                user_id: claim.user_id.clone(),
                                device_id: claim.device_id.clone(),
                            }));
                            claimed.push((claim, key));
                        }
                    }
                    Ok(claimed)
                })
            })
            .await
    }
}
