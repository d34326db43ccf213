//! To-device messages: kept until the device's next cursor acknowledges them.

use std::collections::HashMap;

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};

use super::engine::{Connection, Insert, Kind, query};
use super::log::Record;
use super::peer_messages::{PeerMessage, QueueLimits};
use super::{Store, StoreError, peer_messages};

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

/// What one request of a device sends.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Who sends.
    pub sender: OwnedUserId,
    /// On which device.
    pub sender_device: String,
    /// What kind of event is sent. A transaction id belongs to its path, which names the type.
    pub event_type: String,
    /// Unique to the device and type.
    pub transaction_id: String,
    /// To users of this server.
    pub messages: Vec<Addressed>,
    /// To users of other servers.
    pub elsewhere: Vec<PeerMessage>,
    /// Milliseconds since 1970.
    pub now_ms: i64,
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
                    .run(&mut tx.connection)
                    .await
            })
        })
        .await
    }

    /// Stores messages once per transaction id: a retry of the same one is passed over. Messages to devices that do not
    /// exist, or that have `most` messages waiting, are dropped, and so are those to servers for which too much waits; how
    /// many of the latter.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn send_to_device(
        &self,
        sending: Sending,
        most: i64,
        most_elsewhere: QueueLimits,
    ) -> Result<u64, StoreError> {
        self.transact(move |tx| {
            Box::pin(async move {
                if !note_transaction(&mut tx.connection, &sending).await? {
                    return Ok(0);
                }
                for message in sending.messages {
                    for device_id in receivers(&mut tx.connection, &message, most).await? {
                        tx.push(Record::ToDevice(ToDevice {
                            user_id: message.user_id.clone(),
                            device_id,
                            json: message.json.clone(),
                        }));
                    }
                }
                if sending.elsewhere.is_empty() {
                    return Ok(0);
                }
                peer_messages::enqueue(tx, sending.elsewhere, most_elsewhere).await
            })
        })
        .await
    }

    /// The devices of these users that have room for another message, fewer than `most` waiting.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn devices_with_room(
        &self,
        users: Vec<String>,
        most: i64,
    ) -> Result<HashMap<OwnedUserId, Vec<String>>, StoreError> {
        let rows = query(
            "SELECT user_id, device_id FROM devices AS d WHERE user_id = ANY($1) AND NOT EXISTS \
             (SELECT 1 FROM to_device AS t WHERE t.user_id = d.user_id AND t.device_id = d.device_id \
              LIMIT 1 OFFSET $2)",
        );
        let rows = rows.bind(users).bind(most - 1).all(&self.readers).await?;
        let mut devices: HashMap<_, Vec<_>> = HashMap::new();
        for row in &rows {
            let user_id = super::users::user_id(row, 0, "devices")?;
            devices.entry(user_id).or_default().push(row.get(1)?);
        }
        Ok(devices)
    }
}

/// Notes a transaction id; false when it is known.
async fn note_transaction(connection: &mut Connection, sending: &Sending) -> Result<bool, StoreError> {
    let insert = query(
        "INSERT INTO transactions (user_id, device_id, scope, transaction_id, event_id, position, used_at) \
         SELECT $1, $2, $5, $3, '', position, $4 FROM log WHERE one = 1 \
         ON CONFLICT (user_id, device_id, scope, transaction_id) DO NOTHING",
    );
    let insert = insert
        .bind(sending.sender.as_str())
        .bind(&sending.sender_device)
        .bind(&sending.transaction_id)
        .bind(sending.now_ms)
        .bind(format!("sendToDevice/{}", sending.event_type));
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
