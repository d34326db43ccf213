//! To-device messages: kept until the device's next cursor acknowledges them.

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};

use super::engine::{Connection, Insert, Kind, query};
use super::log::Record;
use super::{Store, StoreError};

/// A message to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDevice {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: String,
    /// The message as the device will read it: `{"content":…,"sender":…,"type":…}`.
    pub json: String,
}

/// A message on its way to a user's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// Whose devices.
    pub user_id: OwnedUserId,
    /// Which device, or `*` for all.
    pub device: String,
    /// The message as the devices will read it.
    pub json: String,
}

static INSERT: Insert = Insert {
    table: "to_device",
    columns: &[
        ("user_id", Kind::Text),
        ("device_id", Kind::Text),
        ("position", Kind::Int),
        ("json", Kind::Text),
    ],
    on_conflict: "",
};

pub(super) async fn store(
    connection: &mut Connection,
    messages: Vec<(i64, &ToDevice)>,
) -> Result<(), StoreError> {
    let rows = messages.into_iter().map(|(position, message)| {
        vec![
            message.user_id.as_str().into(),
            message.device_id.as_str().into(),
            position.into(),
            message.json.as_str().into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

impl Store {
    /// Up to `limit` messages of a device after a position and up to another, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn to_device(
        &self,
        user_id: &UserId,
        device_id: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(Position, String)>, StoreError> {
        let rows = query(
            "SELECT position, json FROM to_device \
             WHERE user_id = $1 AND device_id = $2 AND position > $3 AND position <= $4 ORDER BY position LIMIT $5",
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = rows
            .bind(user_id.as_str())
            .bind(device_id)
            .bind(after.0)
            .bind(up_to.0)
            .bind(limit);
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| Ok((Position(row.get(0)?), row.get(1)?)))
            .collect()
    }

    /// Drops the messages that a device has acknowledged with its cursor.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn acknowledge_to_device(
        &self,
        user_id: &UserId,
        device_id: &str,
        up_to: Position,
    ) -> Result<(), StoreError> {
        let (user_id, device_id) = (user_id.to_string(), device_id.to_owned());
        self.transact(move |tx| {
            Box::pin(async move {
                let delete =
                    query("DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND position <= $3");
                delete
                    .bind(user_id)
                    .bind(device_id)
                    .bind(up_to.0)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    /// Stores messages once per transaction id: a retry of the same one is passed over. Messages to devices that do not
    /// exist, or that have `most` messages waiting, are dropped.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn send_to_device(
        &self,
        sender: &UserId,
        sender_device: &str,
        transaction_id: String,
        messages: Vec<Addressed>,
        most: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (sender, sender_device) = (sender.to_owned(), sender_device.to_owned());
        self.transact(move |tx| {
            Box::pin(async move {
                let device = (&*sender, sender_device.as_str());
                if !note_transaction(&mut tx.connection, device, &transaction_id, now_ms).await? {
                    return Ok(());
                }
                for message in messages {
                    for device_id in receivers(&mut tx.connection, &message, most).await? {
                        tx.push(Record::ToDevice(ToDevice {
                            user_id: message.user_id.clone(),
                            device_id,
                            json: message.json.clone(),
                        }));
                    }
                }
                Ok(())
            })
        })
        .await
    }
}

/// Notes a transaction id; false when it is known.
async fn note_transaction(
    connection: &mut Connection,
    (sender, sender_device): (&UserId, &str),
    transaction_id: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let insert = query(
        "INSERT INTO transactions (user_id, device_id, scope, transaction_id, event_id, position, used_at) \
         SELECT $1, $2, 'sendToDevice', $3, '', position, $4 FROM log WHERE one = 1 \
         ON CONFLICT (user_id, device_id, scope, transaction_id) DO NOTHING",
    );
    let insert = insert
        .bind(sender.as_str())
        .bind(sender_device)
        .bind(transaction_id)
        .bind(now_ms);
    Ok(insert.execute(connection).await? == 1)
}

/// The devices that a message goes to: those of the user that are meant, exist and have room for it.
async fn receivers(
    connection: &mut Connection,
    message: &Addressed,
    most: i64,
) -> Result<Vec<String>, StoreError> {
    let rows = query(
        "SELECT device_id FROM devices AS d WHERE user_id = $1 AND ($2 = '*' OR device_id = $2) AND NOT EXISTS \
         (SELECT 1 FROM to_device AS t WHERE t.user_id = d.user_id AND t.device_id = d.device_id LIMIT 1 OFFSET $3)",
    );
    let rows = rows
        .bind(message.user_id.as_str())
        .bind(&message.device)
        .bind(most - 1)
        .all(connection)
        .await?;
    rows.iter().map(|row| row.get(0)).collect()
}
