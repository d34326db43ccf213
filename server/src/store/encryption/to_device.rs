//! To-device messages: kept until the device's next cursor acknowledges them, and counted by who sent them.

use std::collections::{BTreeMap, HashMap, HashSet};

use maru_protocol::cursor::Position;
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::federation::peer_messages;
use crate::store::federation::peer_messages::PeerMessage;
use crate::store::log::Record;
use crate::store::waiting_quota::{EVERYBODY, Queue, Shares, Waiting, counted};

/// A message to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDevice {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The sender's server, if it is another one.
    pub server: Option<OwnedServerName>,
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

impl Sending {
    /// What its transaction id is unique in.
    fn scope(&self) -> String {
        format!("sendToDevice/{}", self.event_type)
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages that were taken; each counts once for each device of this server.
    pub taken: u64,
    /// Devices that have too much waiting, of this sender or altogether: their messages were not taken.
    pub refused: BTreeMap<OwnedUserId, Vec<String>>,
}

/// A device: whose, and which.
pub type Device = (OwnedUserId, String);

/// Devices to send to, and what waits for them.
#[derive(Debug)]
pub struct Receivers {
    /// Ids of devices, by user.
    pub devices: HashMap<OwnedUserId, Vec<String>>,
    /// What waits for them.
    pub waiting: Waiting<Device>,
}

static INSERT: Insert = Insert {
    table: "to_device",
    columns: &[
        ("user_id", Kind::Text),
        ("device_id", Kind::Text),
        ("position", Kind::Int),
        ("sender", Kind::Text),
        ("server", Kind::Text),
        ("json", Kind::Text),
    ],
    on_conflict: "",
};

/// Adds to what is counted; takes off what is negative.
static COUNT: Insert = Insert {
    table: "to_device_waiting",
    columns: &[
        ("user_id", Kind::Text),
        ("who", Kind::Text),
        ("device_id", Kind::Text),
        ("messages", Kind::Int),
        ("bytes", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (user_id, who, device_id) DO UPDATE SET \
                  messages = to_device_waiting.messages + excluded.messages, \
                  bytes = to_device_waiting.bytes + excluded.bytes",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    messages: Vec<(i64, &ToDevice)>,
) -> Result<(), StoreError> {
    let mut counts = Counts::default();
    for (_, message) in &messages {
        let server = message.server.as_ref().map(|server| server.as_str());
        let one = Queue::one(message.json.len());
        counts.add(
            &message.user_id,
            &message.device_id,
            message.sender.as_str(),
            server,
            one,
        );
    }
    let rows = messages.into_iter().map(|(position, message)| {
        let server = message.server.as_ref().map_or("", |server| server.as_str());
        vec![
            message.user_id.as_str().into(),
            message.device_id.as_str().into(),
            position.into(),
            message.sender.as_str().into(),
            server.into(),
            message.json.as_str().into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await?;
    counts.store(connection).await
}

/// Changes of what is counted, by user, who is counted, and device.
#[derive(Default)]
struct Counts(BTreeMap<(String, String, String), Queue>);

impl Counts {
    fn add(&mut self, user_id: &UserId, device_id: &str, sender: &str, server: Option<&str>, change: Queue) {
        for who in counted(sender, server) {
            let key = (user_id.to_string(), who.to_owned(), device_id.to_owned());
            self.0.entry(key).or_default().add(change);
        }
    }

    async fn store(self, connection: &mut Connection) -> Result<(), StoreError> {
        let rows = self.0.into_iter().map(|((user_id, who, device_id), change)| {
            vec![
                user_id.into(),
                who.into(),
                device_id.into(),
                change.messages.into(),
                change.bytes.into(),
            ]
        });
        COUNT.rows(connection, rows.collect()).await
    }
}

impl EncryptionTables {
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
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let taken = query(
                        "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND position <= $3 \
                     RETURNING sender, server, CAST(OCTET_LENGTH(json) AS BIGINT)",
                    );
                    let taken = taken.bind(user_id.as_str()).bind(&device_id).bind(up_to.0);
                    let mut counts = Counts::default();
                    for row in taken.all(&mut tx.connection).await? {
                        let (sender, server) = (row.get::<String>(0)?, row.get::<String>(1)?);
                        let server = Some(server.as_str()).filter(|server| !server.is_empty());
                        let bytes = usize::try_from(row.get::<i64>(2)?).unwrap_or(0);
                        let one = Queue::one(bytes).negative();
                        counts.add(&user_id, &device_id, &sender, server, one);
                    }
                    let who: Vec<String> = counts.0.keys().map(|(_, who, _)| who.clone()).collect();
                    counts.store(&mut tx.connection).await?;
                    let empty = query(
                        "DELETE FROM to_device_waiting \
                     WHERE user_id = $1 AND device_id = $2 AND who = ANY($3) AND messages <= 0",
                    );
                    let empty = empty.bind(user_id.as_str()).bind(&device_id).bind(who);
                    empty.run(&mut tx.connection).await
                })
            })
            .await
    }

    /// Stores messages once per transaction id: a retry of the same one is passed over. Messages to devices that do not
    /// exist are dropped. Those for which too much waits are refused, each for itself; where none is taken, the
    /// transaction id stays unused.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn send_to_device(
        &self,
        sending: Sending,
        shares: Shares,
        shares_elsewhere: Shares,
    ) -> Result<Sent, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    if is_known(&mut tx.connection, &sending).await? {
                        return Ok(Sent::default());
                    }
                    let mut sent = Sent::default();
                    let users = sending.messages.iter().map(|message| message.user_id.to_string());
                    let users: HashSet<String> = users.collect();
                    let users: Vec<_> = users.into_iter().collect();
                    let who = vec![EVERYBODY.to_owned(), sending.sender.to_string()];
                    let devices = query(DEVICES).bind(users.clone()).all(&mut tx.connection).await?;
                    let waiting = query(WAITING).bind(users).bind(who);
                    let waiting = waiting.all(&mut tx.connection).await?;
                    let mut receivers = read_receivers(&devices, &waiting)?;
                    for message in &sending.messages {
                        let devices = receivers.devices.get(&message.user_id).into_iter().flatten();
                        let is_meant =
                            |device_id: &&String| ["*", device_id.as_str()].contains(&&*message.device);
                        for device_id in devices.filter(is_meant) {
                            let (sender, bytes) = (sending.sender.as_str(), message.json.len());
                            let device = (message.user_id.clone(), device_id.clone());
                            if receivers.waiting.admit(&device, sender, None, bytes, &shares) {
                                sent.taken += 1;
                                tx.push(Record::ToDevice(ToDevice {
                                    user_id: message.user_id.clone(),
                                    device_id: device_id.clone(),
                                    sender: sending.sender.clone(),
                                    server: None,
                                    json: message.json.clone(),
                                }));
                            } else {
                                let refused = sent.refused.entry(message.user_id.clone()).or_default();
                                refused.push(device_id.clone());
                            }
                        }
                    }
                    let elsewhere = sending.elsewhere.clone();
                    peer_messages::enqueue(tx, elsewhere, &shares_elsewhere, &mut sent).await?;
                    if sent.taken > 0 || sent.refused.is_empty() {
                        note_transaction(&mut tx.connection, &sending).await?;
                    }
                    Ok(sent)
                })
            })
            .await
    }

    /// The devices of these users, and what waits for them altogether, of these senders and of their server.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn receivers(
        &self,
        users: Vec<String>,
        senders: impl IntoIterator<Item = String> + Send,
        server: OwnedServerName,
    ) -> Result<Receivers, StoreError> {
        let others = [EVERYBODY.to_owned(), server.to_string()];
        let who: Vec<String> = senders.into_iter().chain(others).collect();
        let devices = query(DEVICES).bind(users.clone()).all(&self.readers).await?;
        let waiting = query(WAITING).bind(users).bind(who).all(&self.readers).await?;
        read_receivers(&devices, &waiting)
    }
}

/// Drops messages that application services have received for devices of their users.
pub(in crate::store) async fn drop_received(
    connection: &mut Connection,
    received: Vec<(OwnedUserId, String, Position)>,
) -> Result<(), StoreError> {
    if received.is_empty() {
        return Ok(());
    }
    let users: HashSet<String> = received.iter().map(|(user_id, ..)| user_id.to_string()).collect();
    let devices: HashSet<String> = received
        .iter()
        .map(|(_, device_id, _)| device_id.clone())
        .collect();
    let positions = received.iter().map(|(.., position)| position.0);
    let taken = query(
        "DELETE FROM to_device WHERE user_id = ANY($1) AND device_id = ANY($2) AND position = ANY($3) \
         RETURNING user_id, device_id, sender, server, CAST(OCTET_LENGTH(json) AS BIGINT)",
    );
    let taken = taken
        .bind(users.into_iter().collect::<Vec<_>>())
        .bind(devices.into_iter().collect::<Vec<_>>())
        .bind(positions.collect::<Vec<_>>());
    let mut counts = Counts::default();
    for row in taken.all(&mut *connection).await? {
        let user_id = crate::store::accounts::users::user_id(&row, 0, "to_device")?;
        let (device_id, sender) = (row.get::<String>(1)?, row.get::<String>(2)?);
        let server = row.get::<String>(3)?;
        let server = Some(server.as_str()).filter(|server| !server.is_empty());
        let bytes = usize::try_from(row.get::<i64>(4)?).unwrap_or(0);
        counts.add(
            &user_id,
            &device_id,
            &sender,
            server,
            Queue::one(bytes).negative(),
        );
    }
    counts.store(connection).await
}

const DEVICES: &str = "SELECT user_id, device_id FROM devices WHERE user_id = ANY($1)";

const WAITING: &str = "SELECT user_id, device_id, who, messages, bytes FROM to_device_waiting \
                       WHERE user_id = ANY($1) AND who = ANY($2)";

/// Devices and what waits for them, from the rows of [`DEVICES`] and [`WAITING`].
fn read_receivers(devices: &[Row], waiting: &[Row]) -> Result<Receivers, StoreError> {
    let mut by_user: HashMap<OwnedUserId, Vec<String>> = HashMap::new();
    for row in devices {
        let user_id = crate::store::accounts::users::user_id(row, 0, "devices")?;
        by_user.entry(user_id).or_default().push(row.get(1)?);
    }
    let queues = waiting.iter().map(|row| {
        let user_id = crate::store::accounts::users::user_id(row, 0, "to_device_waiting")?;
        let queue = Queue {
            messages: row.get(3)?,
            bytes: row.get(4)?,
        };
        Ok((((user_id, row.get(1)?), row.get(2)?), queue))
    });
    Ok(Receivers {
        devices: by_user,
        waiting: Waiting::new(queues.collect::<Result<Vec<_>, StoreError>>()?),
    })
}

/// Whether a transaction id is known.
async fn is_known(connection: &mut Connection, sending: &Sending) -> Result<bool, StoreError> {
    let known = query(
        "SELECT 1 FROM transactions \
         WHERE user_id = $1 AND device_id = $2 AND scope = $3 AND transaction_id = $4",
    );
    let known = known
        .bind(sending.sender.as_str())
        .bind(&sending.sender_device)
        .bind(sending.scope())
        .bind(&sending.transaction_id);
    Ok(known.optional(connection).await?.is_some())
}

/// Notes a transaction id.
async fn note_transaction(connection: &mut Connection, sending: &Sending) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO transactions (user_id, device_id, scope, transaction_id, event_id, position, used_at) \
         SELECT $1, $2, $5, $3, '', position, $4 FROM log WHERE one = 1",
    );
    insert
        .bind(sending.sender.as_str())
        .bind(&sending.sender_device)
        .bind(&sending.transaction_id)
        .bind(sending.now_ms)
        .bind(sending.scope())
        .run(connection)
        .await
}
