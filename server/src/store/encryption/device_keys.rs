//! Public keys of devices and users, and the signatures between them. A change of them is a record of the log.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::accounts::credentials;
use crate::store::accounts::credentials::Credentials;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::{Connection, Row, query};
use crate::store::rooms::shared_rooms::{push_device_list, push_keys_for_one};

/// The keys of a device as they are read back.
#[derive(Clone, Debug)]
pub struct StoredDeviceKeys {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: String,
    /// A JSON object, without `unsigned`.
    pub json: String,
    /// The device's name.
    pub display_name: Option<String>,
}

/// A key of a user as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossSigningKey {
    /// Whose.
    pub user_id: OwnedUserId,
    /// `master`, `self_signing` or `user_signing`.
    pub usage: String,
    /// A JSON object.
    pub json: String,
}

/// A signature that was made over a key after the key was uploaded.
#[derive(Clone, Debug)]
pub struct KeySignature {
    /// Whose key is signed.
    pub target_user: OwnedUserId,
    /// A device id, or the base64 of a cross-signing key.
    pub target_key: String,
    /// Who signed.
    pub signer: OwnedUserId,
    /// With which key.
    pub signer_key: String,
    /// Base64.
    pub signature: String,
}

fn user(row: &Row, table: &'static str, index: usize) -> Result<OwnedUserId, StoreError> {
    row.get::<String>(index)?
        .try_into()
        .map_err(|error| StoreError::corrupt(table, error))
}

async fn put_cross_signing_key(connection: &mut Connection, key: CrossSigningKey) -> Result<(), StoreError> {
    query(
        "INSERT INTO cross_signing_keys (user_id, usage, json) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id, usage) DO UPDATE SET json = excluded.json",
    )
    .bind(key.user_id.as_str())
    .bind(key.usage)
    .bind(key.json)
    .run(connection)
    .await
}

const CROSS_SIGNING_KEYS: &str = "SELECT user_id, usage, json FROM cross_signing_keys \
                                  WHERE user_id = ANY($1) ORDER BY user_id, usage";

fn read_cross_signing_key(row: &Row) -> Result<CrossSigningKey, StoreError> {
    Ok(CrossSigningKey {
        user_id: user(row, "cross_signing_keys", 0)?,
        usage: row.get(1)?,
        json: row.get(2)?,
    })
}

impl EncryptionTables {
    /// Stores a device's keys. `check` sees the keys that the device has and may refuse; equal keys change nothing.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_device_keys<E: Send + 'static>(
        &self,
        user_id: &UserId,
        device_id: &str,
        json: String,
        check: impl FnOnce(Option<&str>) -> Result<(), E> + Send + 'static,
    ) -> Result<Result<(), E>, StoreError> {
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let now = query("SELECT json FROM device_keys WHERE user_id = $1 AND device_id = $2")
                        .bind(user_id.as_str())
                        .bind(&device_id)
                        .optional(&mut tx.connection)
                        .await?;
                    let now: Option<String> = now.map(|row| row.get(0)).transpose()?;
                    if let Err(refusal) = check(now.as_deref()) {
                        return Ok(Err(refusal));
                    }
                    if now.as_ref() == Some(&json) {
                        return Ok(Ok(()));
                    }
                    query(
                        "INSERT INTO device_keys (user_id, device_id, json) VALUES ($1, $2, $3) \
                     ON CONFLICT (user_id, device_id) DO UPDATE SET json = excluded.json",
                    )
                    .bind(user_id.as_str())
                    .bind(device_id)
                    .bind(json)
                    .run(&mut tx.connection)
                    .await?;
                    push_device_list(tx, user_id).await?;
                    Ok(Ok(()))
                })
            })
            .await
    }

    /// The keys of all devices of these users. Costs grow with the devices.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_keys(&self, users: Vec<String>) -> Result<Vec<StoredDeviceKeys>, StoreError> {
        let rows = query(
            "SELECT k.user_id, k.device_id, k.json, d.display_name FROM device_keys AS k \
             JOIN devices AS d ON d.user_id = k.user_id AND d.device_id = k.device_id WHERE k.user_id = ANY($1)",
        );
        let read = |row: &Row| {
            Ok(StoredDeviceKeys {
                user_id: user(row, "device_keys", 0)?,
                device_id: row.get(1)?,
                json: row.get(2)?,
                display_name: row.get(3)?,
            })
        };
        rows.bind(users)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// Stores keys of a user as a whole, all or none; false when what was proved does not hold any more, or the user's keys
    /// are others than those that it was judged by.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_cross_signing_keys(
        &self,
        user_id: &UserId,
        judged_by: Vec<CrossSigningKey>,
        keys: Vec<CrossSigningKey>,
        proved: Option<Credentials>,
    ) -> Result<bool, StoreError> {
        let user_id = user_id.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    if !credentials::hold(&mut tx.connection, &user_id, proved).await? {
                        return Ok(false);
                    }
                    let now = query(CROSS_SIGNING_KEYS).bind(vec![user_id.to_string()]);
                    let now = now.all(&mut tx.connection).await?;
                    let now = now.iter().map(read_cross_signing_key);
                    if now.collect::<Result<Vec<_>, _>>()? != judged_by {
                        return Ok(false);
                    }
                    let seen_by_others = keys.iter().any(|key| key.usage != "user_signing");
                    for key in keys {
                        put_cross_signing_key(&mut tx.connection, key).await?;
                    }
                    if seen_by_others {
                        push_device_list(tx, user_id).await?;
                    } else {
                        push_keys_for_one(tx, user_id.clone(), user_id);
                    }
                    Ok(true)
                })
            })
            .await
    }

    /// The keys of these users as a whole.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cross_signing_keys(&self, users: Vec<String>) -> Result<Vec<CrossSigningKey>, StoreError> {
        let rows = query(CROSS_SIGNING_KEYS).bind(users);
        let rows = rows.all(&self.readers).await?;
        rows.iter().map(read_cross_signing_key).collect()
    }

    /// Stores signatures, all or none.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_key_signatures(&self, signatures: Vec<KeySignature>) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    // A signature is seen by who made it, and by everybody where it is over the signer's own keys.
                    let mut changed = BTreeSet::new();
                    for signature in signatures {
                        changed.insert((signature.target_user.clone(), signature.signer.clone()));
                        query(
                            "INSERT INTO key_signatures \
                         (target_user_id, target_key, signer_user_id, signer_key_id, signature) \
                         VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (target_user_id, target_key, signer_user_id, signer_key_id) \
                         DO UPDATE SET signature = excluded.signature",
                        )
                        .bind(signature.target_user.as_str())
                        .bind(signature.target_key)
                        .bind(signature.signer.as_str())
                        .bind(signature.signer_key)
                        .bind(signature.signature)
                        .run(&mut tx.connection)
                        .await?;
                    }
                    for (user_id, signer) in changed {
                        if user_id == signer {
                            push_device_list(tx, user_id).await?;
                        } else {
                            push_keys_for_one(tx, signer, user_id);
                        }
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The signatures over keys of these users that a reader may see: those that their owners made, and the reader's,
    /// where the reader is one user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn key_signatures(
        &self,
        users: Vec<String>,
        reader: Option<&UserId>,
    ) -> Result<Vec<KeySignature>, StoreError> {
        let rows = query(
            "SELECT target_user_id, target_key, signer_user_id, signer_key_id, signature FROM key_signatures \
             WHERE target_user_id = ANY($1) AND (signer_user_id = target_user_id OR signer_user_id = $2)",
        );
        let read = |row: &Row| {
            Ok(KeySignature {
                target_user: user(row, "key_signatures", 0)?,
                target_key: row.get(1)?,
                signer: user(row, "key_signatures", 2)?,
                signer_key: row.get(3)?,
                signature: row.get(4)?,
            })
        };
        rows.bind(users)
            .bind(reader.map_or("", UserId::as_str))
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }
}
