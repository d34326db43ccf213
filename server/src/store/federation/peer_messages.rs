//! Messages between devices of different servers: those of this server's users are kept for each peer until it has
//! acknowledged them; of those that peers sent, the ids are kept, so that none is passed on twice.

use std::collections::{BTreeMap, HashSet};

use maru_protocol::cursor::Position;
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::encryption::to_device::Sent;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::federation::FederationTables;
use crate::store::log::Record;
use crate::store::log::writer::Transaction;
use crate::store::waiting_quota::{EVERYBODY, Queue, Shares, Waiting, counted};

/// A message to a device of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The peer.
    pub server_name: OwnedServerName,
    /// Unique to this server, for ever.
    pub message_id: String,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device, or `*` for all.
    pub device_id: String,
    /// The type.
    pub event_type: String,
    /// A JSON object.
    pub content: String,
    /// When, in milliseconds since 1970.
    pub sent_at: i64,
}

/// How far a peer has durably received this server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The peer.
    pub server_name: OwnedServerName,
    /// Everything up to here.
    pub up_to: Position,
}

/// A message of a peer that is passed on to its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardMessage {
    /// The peer.
    pub server_name: OwnedServerName,
    /// The peer's id of it.
    pub message_id: String,
    /// When, in milliseconds since 1970.
    pub heard_at: i64,
}

impl HeardMessage {
    pub(in crate::store) fn key(&self) -> (&ServerName, &str) {
        (&self.server_name, &self.message_id)
    }
}

static INSERT: Insert = Insert {
    table: "peer_messages",
    columns: &[
        ("server_name", Kind::Text),
        ("position", Kind::Int),
        ("message_id", Kind::Text),
        ("sender", Kind::Text),
        ("user_id", Kind::Text),
        ("device_id", Kind::Text),
        ("type", Kind::Text),
        ("content", Kind::Text),
        ("sent_at", Kind::Int),
    ],
    on_conflict: "",
};

/// Adds to what is counted; takes off what is negative.
static COUNT: Insert = Insert {
    table: "peer_waiting",
    columns: &[
        ("server_name", Kind::Text),
        ("who", Kind::Text),
        ("messages", Kind::Int),
        ("bytes", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (server_name, who) DO UPDATE SET \
                  messages = peer_waiting.messages + excluded.messages, \
                  bytes = peer_waiting.bytes + excluded.bytes",
};

static INSERT_HEARD: Insert = Insert {
    table: "heard_messages",
    columns: &[
        ("server_name", Kind::Text),
        ("message_id", Kind::Text),
        ("heard_at", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (server_name, message_id) DO NOTHING",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    messages: Vec<(i64, &PeerMessage)>,
) -> Result<(), StoreError> {
    let rows = messages.into_iter().map(|(position, message)| {
        vec![
            message.server_name.as_str().into(),
            position.into(),
            message.message_id.as_str().into(),
            message.sender.as_str().into(),
            message.user_id.as_str().into(),
            message.device_id.as_str().into(),
            message.event_type.as_str().into(),
            message.content.as_str().into(),
            message.sent_at.into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

pub(in crate::store) async fn store_heard(
    connection: &mut Connection,
    heard: Vec<&HeardMessage>,
) -> Result<(), StoreError> {
    let rows = heard.into_iter().map(|heard| {
        vec![
            heard.server_name.as_str().into(),
            heard.message_id.as_str().into(),
            heard.heard_at.into(),
        ]
    });
    INSERT_HEARD.rows(connection, rows.collect()).await
}

/// Drops what a peer has, and takes it off what is counted.
pub(in crate::store) async fn drop_delivered(
    connection: &mut Connection,
    delivered: &Delivered,
) -> Result<(), StoreError> {
    let peer = delivered.server_name.as_str();
    let gone = query(
        "DELETE FROM peer_messages WHERE server_name = $1 AND position <= $2 \
         RETURNING sender, CAST(OCTET_LENGTH(content) AS BIGINT)",
    );
    let gone = gone
        .bind(peer)
        .bind(delivered.up_to.0)
        .all(&mut *connection)
        .await?;
    let mut counts = Counts::default();
    for row in gone {
        let bytes = usize::try_from(row.get::<i64>(1)?).unwrap_or(0);
        counts.add(peer, &row.get::<String>(0)?, Queue::one(bytes).negative());
    }
    let who: Vec<String> = counts.0.keys().map(|(_, who)| who.clone()).collect();
    counts.store(&mut *connection).await?;
    let empty = query("DELETE FROM peer_waiting WHERE server_name = $1 AND who = ANY($2) AND messages <= 0");
    empty.bind(peer).bind(who).run(connection).await
}

/// Changes of what is counted, by server and who is counted.
#[derive(Default)]
struct Counts(BTreeMap<(String, String), Queue>);

impl Counts {
    fn add(&mut self, peer: &str, sender: &str, change: Queue) {
        for who in counted(sender, None) {
            let key = (peer.to_owned(), who.to_owned());
            self.0.entry(key).or_default().add(change);
        }
    }

    async fn store(self, connection: &mut Connection) -> Result<(), StoreError> {
        let rows = self.0.into_iter().map(|((peer, who), change)| {
            vec![
                peer.into(),
                who.into(),
                change.messages.into(),
                change.bytes.into(),
            ]
        });
        COUNT.rows(connection, rows.collect()).await
    }
}

/// Puts messages into the queues of their peers, and adds to `sent` what was taken and what was refused: a message that
/// finds no room is, those after it may still find some.
pub(in crate::store) async fn enqueue(
    tx: &mut Transaction,
    messages: Vec<PeerMessage>,
    shares: &Shares,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let peers: HashSet<String> = messages
        .iter()
        .map(|message| message.server_name.to_string())
        .collect();
    let senders = messages.iter().map(|message| message.sender.to_string());
    let who: HashSet<String> = senders.chain([EVERYBODY.to_owned()]).collect();
    let rows = query(
        "SELECT server_name, who, messages, bytes FROM peer_waiting WHERE server_name = ANY($1) AND who = ANY($2)",
    );
    let rows = rows
        .bind(peers.into_iter().collect::<Vec<_>>())
        .bind(who.into_iter().collect::<Vec<_>>())
        .all(&mut tx.connection)
        .await?;
    let queues = rows.iter().map(|row| {
        let queue = Queue {
            messages: row.get(2)?,
            bytes: row.get(3)?,
        };
        Ok(((row.get::<String>(0)?, row.get::<String>(1)?), queue))
    });
    let mut waiting = Waiting::new(queues.collect::<Result<Vec<_>, StoreError>>()?);
    let mut counts = Counts::default();
    for message in messages {
        let (peer, sender) = (message.server_name.to_string(), message.sender.as_str());
        let bytes = message.content.len();
        if waiting.admit(&peer, sender, None, bytes, shares) {
            counts.add(&peer, sender, Queue::one(bytes));
            sent.taken += 1;
            tx.push(Record::PeerMessage(message));
        } else {
            let refused = sent.refused.entry(message.user_id).or_default();
            refused.push(message.device_id);
        }
    }
    counts.store(&mut tx.connection).await
}

fn read(row: &Row) -> Result<(Position, PeerMessage), StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("peer_messages", error);
    let message = PeerMessage {
        server_name: row.get::<String>(1)?.try_into().map_err(bad)?,
        message_id: row.get(2)?,
        sender: row.get::<String>(3)?.try_into().map_err(bad)?,
        user_id: row.get::<String>(4)?.try_into().map_err(bad)?,
        device_id: row.get(5)?,
        event_type: row.get(6)?,
        content: row.get(7)?,
        sent_at: row.get(8)?,
    };
    Ok((Position(row.get(0)?), message))
}

impl FederationTables {
    /// The messages that wait for a peer after a position and up to another, oldest first, `limit` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::store) async fn messages_for(
        &self,
        peer: &ServerName,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(Position, PeerMessage)>, StoreError> {
        let rows = query(
            "SELECT position, server_name, message_id, sender, user_id, device_id, type, content, sent_at \
             FROM peer_messages WHERE server_name = $1 AND position > $2 AND position <= $3 \
             ORDER BY position LIMIT $4",
        );
        let rows = rows
            .bind(peer.as_str())
            .bind(after.0)
            .bind(up_to.0)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// Drops the messages that a peer has by now. Costs a commit, shared with others, only where there are any.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_delivered(&self, delivered: Delivered) -> Result<(), StoreError> {
        let any =
            query("SELECT position FROM peer_messages WHERE server_name = $1 AND position <= $2 LIMIT 1");
        let any = any.bind(delivered.server_name.as_str()).bind(delivered.up_to.0);
        if any.optional(&self.readers).await?.is_some() {
            self.log.append(Record::Delivered(delivered).into()).await?;
        }
        Ok(())
    }

    /// Those of these ids of a peer's messages that were heard before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn heard_before(
        &self,
        peer: &ServerName,
        message_ids: Vec<String>,
    ) -> Result<HashSet<String>, StoreError> {
        let rows =
            query("SELECT message_id FROM heard_messages WHERE server_name = $1 AND message_id = ANY($2)");
        let rows = rows.bind(peer.as_str()).bind(message_ids);
        let rows = rows.all(&self.readers).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Drops messages that no peer has fetched since `before_ms` (milliseconds since 1970), the oldest, `most` of them, and
    /// takes them off what is counted. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_peer_messages(&self, before_ms: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM peer_messages WHERE sent_at < $1 LIMIT 1").bind(before_ms);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let expired = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let gone = query(
                    "DELETE FROM peer_messages WHERE (server_name, position) IN (SELECT server_name, position \
                     FROM peer_messages WHERE sent_at < $1 ORDER BY sent_at LIMIT $2) \
                     RETURNING server_name, sender, CAST(OCTET_LENGTH(content) AS BIGINT)",
                );
                let gone = gone.bind(before_ms).bind(most).all(&mut tx.connection).await?;
                let mut counts = Counts::default();
                for row in &gone {
                    let bytes = usize::try_from(row.get::<i64>(2)?).unwrap_or(0);
                    let (peer, sender): (String, String) = (row.get(0)?, row.get(1)?);
                    counts.add(&peer, &sender, Queue::one(bytes).negative());
                }
                let (peers, who) = counts.0.keys().cloned().unzip::<_, _, Vec<_>, Vec<_>>();
                counts.store(&mut tx.connection).await?;
                let empty = query(
                    "DELETE FROM peer_waiting WHERE server_name = ANY($1) AND who = ANY($2) AND messages <= 0",
                );
                empty.bind(peers).bind(who).run(&mut tx.connection).await?;
                Ok(gone.len() as u64)
            })
        });
        expired.await
    }

    /// Forgets ids of messages that peers sent before `before_ms`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget_heard_messages(&self, before_ms: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM heard_messages WHERE heard_at < $1 LIMIT 1").bind(before_ms);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM heard_messages WHERE (server_name, message_id) IN (SELECT server_name, message_id \
             FROM heard_messages WHERE heard_at < $1 ORDER BY heard_at LIMIT $2)",
        );
        let delete = delete
            .bind(before_ms)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        let forgotten = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        forgotten.await
    }
}
