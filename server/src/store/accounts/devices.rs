//! Devices: what a user is logged in on.

use ruma::{OwnedUserId, UserId};

use super::credentials;
use super::credentials::Credentials;
use super::gone_devices::{self, GoneDevices};
use super::{sessions, sync_connections};
use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, Row, query};
use crate::store::log::writer::Transaction;
use crate::store::rooms::shared_rooms::push_device_list;
use crate::token_hash::TokenHash;

/// A device as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDevice {
    /// Its id, unique among the user's devices.
    pub device_id: String,
    /// The name that the user gave it.
    pub display_name: Option<String>,
    /// When it was last heard of, in milliseconds since 1970.
    pub last_seen_at: Option<i64>,
    /// From which IP address.
    pub last_seen_address: Option<String>,
}

/// A device to make.
#[derive(Clone, Debug)]
pub struct NewBareDevice {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Its id.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// How many devices the user may have, this one included.
    pub devices_allowed: i64,
}

/// What came of making a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    New,
    /// It was there.
    Known,
    /// The user has as many devices as allowed.
    TooMany,
}

/// Which of a user's devices are meant.
#[derive(Clone, Debug)]
pub enum Devices {
    /// Every one.
    All,
    /// Every one but this.
    AllBut(String),
    /// Those of these that exist.
    These(Vec<String>),
}

impl Devices {
    fn include(&self, device_id: &str) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(other) => other != device_id,
            Self::These(ids) => ids.iter().any(|id| id == device_id),
        }
    }
}

/// A sign of life of a device.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// From which IP address.
    pub address: String,
}

/// Transaction ids that are forgotten in one commit.
const TOGETHER: i64 = 1_000;

/// Everything that goes with a device.
const REMOVE: [&str; 9] = [
    "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM device_keys WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM key_signatures WHERE target_user_id = $1 AND target_key = ANY($2)",
    "DELETE FROM to_device WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM transactions WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM to_device_waiting WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM devices WHERE user_id = $1 AND device_id = ANY($2)",
];

fn read(row: &Row) -> Result<StoredDevice, StoreError> {
    Ok(StoredDevice {
        device_id: row.get(0)?,
        display_name: row.get(1)?,
        last_seen_at: row.get(2)?,
        last_seen_address: row.get(3)?,
    })
}

/// Removes devices with all that goes with them; the access tokens that ended.
pub(in crate::store) async fn remove(
    tx: &mut Transaction,
    user_id: OwnedUserId,
    devices: Devices,
) -> Result<Vec<TokenHash>, StoreError> {
    let rows = query("SELECT device_id FROM devices WHERE user_id = $1").bind(user_id.as_str());
    let rows = rows.all(&mut tx.connection).await?;
    let ids: Result<Vec<String>, _> = rows.iter().map(|row| row.get(0)).collect();
    let ids: Vec<_> = ids?.into_iter().filter(|id| devices.include(id)).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ended = sessions::tokens_of(&mut tx.connection, &user_id, ids.clone()).await?;
    for statement in sync_connections::REMOVE_OF_DEVICES.into_iter().chain(REMOVE) {
        let statement = query(statement).bind(user_id.as_str()).bind(ids.clone());
        statement.run(&mut tx.connection).await?;
    }
    let gone = GoneDevices {
        user_id: user_id.clone(),
        device_ids: ids,
    };
    gone_devices::look_again(&mut tx.connection, &gone).await?;
    sessions::note_ended(tx, &user_id, &ended);
    push_device_list(tx, user_id).await?;
    Ok(ended)
}

/// Makes a device unless it is known or the user may have no more.
pub(super) async fn make_device(
    connection: &mut Connection,
    device: &NewBareDevice,
) -> Result<Made, StoreError> {
    let known = query("SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2");
    let known = known.bind(device.user_id.as_str()).bind(&device.device_id);
    if !known.all(&mut *connection).await?.is_empty() {
        return Ok(Made::Known);
    }
    let count = query("SELECT COUNT(*) FROM devices WHERE user_id = $1").bind(device.user_id.as_str());
    let count = count
        .optional(&mut *connection)
        .await?
        .map_or(Ok(0), |row| row.get::<i64>(0))?;
    if count >= device.devices_allowed {
        return Ok(Made::TooMany);
    }
    query("INSERT INTO devices (user_id, device_id, display_name, created_at) VALUES ($1, $2, $3, $4)")
        .bind(device.user_id.as_str())
        .bind(&device.device_id)
        .bind(device.display_name.clone())
        .bind(device.created_at)
        .run(connection)
        .await?;
    Ok(Made::New)
}

impl AccountTables {
    /// Makes a device without a session, unless it is known or the user may have no more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn make_device(&self, device: NewBareDevice) -> Result<Made, StoreError> {
        self.log
            .transact(move |tx| Box::pin(async move { make_device(&mut tx.connection, &device).await }))
            .await
    }

    /// Whether a user has a device.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn has_device(&self, user_id: &UserId, device_id: &str) -> Result<bool, StoreError> {
        let known = query("SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2");
        let known = known.bind(user_id.as_str()).bind(device_id);
        Ok(known.optional(&self.readers).await?.is_some())
    }

    /// A user's devices.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn devices(&self, user_id: &UserId) -> Result<Vec<StoredDevice>, StoreError> {
        let rows = query(
            "SELECT device_id, display_name, last_seen_at, last_seen_address FROM devices \
             WHERE user_id = $1 ORDER BY created_at, device_id",
        );
        let rows = rows.bind(user_id.as_str()).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Names a device; false when the user has no such device.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn rename_device(
        &self,
        user_id: &UserId,
        device_id: &str,
        name: String,
    ) -> Result<bool, StoreError> {
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let update =
                        query("UPDATE devices SET display_name = $1 WHERE user_id = $2 AND device_id = $3");
                    let update = update.bind(name).bind(user_id.as_str()).bind(device_id);
                    if update.execute(&mut tx.connection).await? == 0 {
                        return Ok(false);
                    }
                    push_device_list(tx, user_id).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Removes devices with their tokens, keys, messages and transaction ids, and tells those who share rooms with the
    /// user. The access tokens that ended, none when the user has no such device; `None` when what was proved does not
    /// hold any more. Who removes all of them ends logins under way too. Costs grow with what the devices have sent
    /// lately; in the transaction itself they do not.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove_devices(
        &self,
        user_id: &UserId,
        devices: Devices,
        proved: Option<Credentials>,
    ) -> Result<Option<Vec<TokenHash>>, StoreError> {
        let user_id = user_id.to_owned();
        self.thin(&user_id, &devices, proved).await?;
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    if !credentials::hold(&mut tx.connection, &user_id, proved).await? {
                        return Ok(None);
                    }
                    if matches!(devices, Devices::All) {
                        credentials::renew(&mut tx.connection, &user_id).await?;
                    }
                    remove(tx, user_id, devices).await.map(Some)
                })
            })
            .await
    }

    /// Makes devices light that are about to be removed, for as long as what was proved holds.
    pub(in crate::store) async fn thin(
        &self,
        user_id: &UserId,
        devices: &Devices,
        proved: Option<Credentials>,
    ) -> Result<(), StoreError> {
        for device in self.devices(user_id).await? {
            if devices.include(&device.device_id) {
                self.thin_transactions(user_id, &device.device_id, proved).await?;
            }
        }
        Ok(())
    }

    /// Forgets transaction ids of a device, a piece a commit, until a piece or less is left: nobody else has to wait
    /// for a device that sent much. Each commit confirms what was proved, and none is forgotten once it does not hold.
    async fn thin_transactions(
        &self,
        user_id: &UserId,
        device_id: &str,
        proved: Option<Credentials>,
    ) -> Result<(), StoreError> {
        loop {
            let last = query(
                "SELECT scope, transaction_id FROM transactions WHERE user_id = $1 AND device_id = $2 \
                 ORDER BY scope, transaction_id LIMIT 1 OFFSET $3",
            );
            let last = last.bind(user_id.as_str()).bind(device_id).bind(TOGETHER);
            let Some(last) = last.optional(&self.readers).await? else {
                return Ok(());
            };
            let delete = query(
                "DELETE FROM transactions WHERE user_id = $1 AND device_id = $2 AND (scope, transaction_id) <= ($3, $4)",
            );
            let delete = delete.bind(user_id.as_str()).bind(device_id);
            let delete = delete.bind(last.get::<String>(0)?).bind(last.get::<String>(1)?);
            let user_id = user_id.to_owned();
            let forgotten = self.log.transact(move |tx| {
                Box::pin(async move {
                    let holds = credentials::hold(&mut tx.connection, &user_id, proved).await?;
                    if holds {
                        delete.run(&mut tx.connection).await?;
                    }
                    Ok(holds)
                })
            });
            if !forgotten.await? {
                return Ok(());
            }
        }
    }

    /// Notes when devices were last heard of.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn note_seen(&self, seen: Vec<Seen>) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    for one in seen {
                        let update = query(
                            "UPDATE devices SET last_seen_at = $1, last_seen_address = $2 \
                         WHERE user_id = $3 AND device_id = $4",
                        );
                        let update = update.bind(one.at).bind(one.address);
                        let update = update.bind(one.user_id.as_str()).bind(one.device_id);
                        update.run(&mut tx.connection).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
