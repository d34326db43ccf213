//! The inbox: what peers sent and this server has acknowledged, until it is ingested.
//!
//! A row goes in the commit that stores what became of its event, so nothing acknowledged is lost and nothing is ingested
//! twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::LogId;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

use super::remote_devices;
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, query};
use crate::store::federation::FederationTables;

/// An event as a peer sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which room it is said to belong to.
    pub room_id: OwnedRoomId,
    /// Its JSON, unchecked.
    pub json: Arc<str>,
}

/// A row of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InInbox {
    /// Its number; numbers follow the order of arrival.
    pub nid: i64,
    /// Who sent it.
    pub server_name: OwnedServerName,
    /// The event.
    pub arrived: Arrived,
}

/// How far the log of a peer has been received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedLog {
    /// The peer's log.
    pub log_id: LogId,
    /// The peer's cursor in it; opaque.
    pub cursor: Vec<u8>,
}

/// What a peer sent and the cursor after it, which one commit takes together.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who sent it.
    pub server_name: OwnedServerName,
    /// How far its log has been received with this.
    pub log: ReceivedLog,
    /// Whether what is stored of the peer is known to be of the same log.
    pub is_of_same_log: bool,
    /// Its events.
    pub rows: Arc<[InInbox]>,
    /// When it came, in milliseconds since 1970.
    pub at: u64,
}

static INBOX: Insert = Insert {
    table: "inbox",
    columns: &[
        ("nid", Kind::Int),
        ("server_name", Kind::Text),
        ("room_id", Kind::Text),
        ("json", Kind::Text),
        ("bytes", Kind::Int),
        ("received_at", Kind::Int),
    ],
    on_conflict: "",
};

static PEERS: Insert = Insert {
    table: "peers",
    columns: &[
        ("server_name", Kind::Text),
        ("log_id", Kind::Blob),
        ("cursor", Kind::Blob),
    ],
    on_conflict: "ON CONFLICT (server_name) DO UPDATE SET log_id = excluded.log_id, cursor = excluded.cursor",
};

/// Stores what peers sent, but for what the same commit deals with (`ingested`).
pub(in crate::store) async fn store(
    connection: &mut Connection,
    received: Vec<&Received>,
    ingested: &HashSet<i64>,
) -> Result<(), StoreError> {
    let rows = received.iter().flat_map(|received| {
        let rows = received.rows.iter().filter(|row| !ingested.contains(&row.nid));
        rows.map(|row| {
            vec![
                row.nid.into(),
                row.server_name.as_str().into(),
                row.arrived.room_id.as_str().into(),
                (&*row.arrived.json).into(),
                i64::try_from(row.arrived.json.len()).unwrap_or(i64::MAX).into(),
                i64::try_from(received.at).unwrap_or(i64::MAX).into(),
            ]
        })
    });
    INBOX.rows(connection, rows.collect()).await?;
    let newest: HashMap<&str, &ReceivedLog> = received
        .iter()
        .map(|received| (received.server_name.as_str(), &received.log))
        .collect();
    let unsure = received.iter().filter(|received| !received.is_of_same_log);
    let names: Vec<String> = unsure.map(|received| received.server_name.to_string()).collect();
    if !names.is_empty() {
        doubt_lost_logs(connection, names, &newest).await?;
    }
    let peers = newest.into_iter().map(|(name, log)| {
        let (log_id, cursor) = (log.log_id.0.to_vec(), log.cursor.clone());
        vec![name.into(), log_id.into(), cursor.into()]
    });
    PEERS.rows(connection, peers.collect()).await
}

/// Puts in doubt what is known of the devices of those servers that go on with another log than before.
async fn doubt_lost_logs(
    connection: &mut Connection,
    names: Vec<String>,
    newest: &HashMap<&str, &ReceivedLog>,
) -> Result<(), StoreError> {
    let known = query("SELECT server_name, log_id FROM peers WHERE server_name = ANY($1)").bind(names);
    for row in known.all(&mut *connection).await? {
        let (name, log_id) = (row.get::<String>(0)?, row.get::<Vec<u8>>(1)?);
        if newest.get(&*name).is_some_and(|log| log_id != log.log_id.0) {
            remote_devices::doubt(connection, &name).await?;
        }
    }
    Ok(())
}

impl FederationTables {
    /// How far the log of a peer has been received; none when nothing ever was.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn received_of(&self, peer: &ServerName) -> Result<Option<ReceivedLog>, StoreError> {
        let row = query("SELECT log_id, cursor FROM peers WHERE server_name = $1").bind(peer.as_str());
        let Some(row) = row.optional(&self.readers).await? else {
            return Ok(None);
        };
        let log_id = row.get::<Vec<u8>>(0)?.try_into();
        let log_id = log_id.map_err(|_| StoreError::corrupt("peers", "a log id of the wrong length"))?;
        Ok(Some(ReceivedLog {
            log_id: LogId(log_id),
            cursor: row.get(1)?,
        }))
    }

    /// The oldest rows of a room's inbox without the `resting` ones, `limit` at most and of about so many bytes, in the
    /// order of their arrival. Servers take turns, so that much of one never keeps others waiting. Costs grow with what
    /// waits in the room, by its index alone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn inbox_of(
        &self,
        room_id: &RoomId,
        resting: Vec<i64>,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<InInbox>, StoreError> {
        let rows = query(
            "SELECT nid, server_name, room_id, json FROM inbox WHERE nid IN ( \
               SELECT nid FROM ( \
                 SELECT nid, CAST(SUM(bytes) OVER (ORDER BY turn, nid) AS BIGINT) - bytes AS bytes_before FROM ( \
                   SELECT nid, bytes, turn FROM ( \
                     SELECT nid, bytes, ROW_NUMBER() OVER (PARTITION BY server_name ORDER BY nid) AS turn \
                     FROM inbox WHERE room_id = $1 AND NOT nid = ANY($2) \
                   ) AS turns ORDER BY turn, nid LIMIT $3 \
                 ) AS oldest \
               ) AS counted WHERE bytes_before < $4 \
             ) ORDER BY nid",
        );
        let rows = rows
            .bind(room_id.as_str())
            .bind(resting)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
            .all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let bad = |error: ruma::IdParseError| StoreError::corrupt("inbox", error);
                Ok(InInbox {
                    nid: row.get(0)?,
                    server_name: row.get::<String>(1)?.try_into().map_err(bad)?,
                    arrived: Arrived {
                        room_id: row.get::<String>(2)?.try_into().map_err(bad)?,
                        json: row.get::<String>(3)?.into(),
                    },
                })
            })
            .collect()
    }

    /// The rooms that have something in their inbox.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_with_inbox(&self) -> Result<Vec<OwnedRoomId>, StoreError> {
        let rows = query("SELECT DISTINCT room_id FROM inbox");
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| {
                let id = row.get::<String>(0)?.try_into();
                id.map_err(|error| StoreError::corrupt("inbox", error))
            })
            .collect()
    }

    /// How many events of all servers wait in the inbox, and their bytes. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn inbox_depth(&self) -> Result<(u64, u64), StoreError> {
        let row = query("SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM inbox");
        let row = row.optional(&self.readers).await?;
        let row = row.ok_or_else(|| StoreError::corrupt("inbox", "no count"))?;
        Ok((
            row.get::<i64>(0)?.unsigned_abs(),
            row.get::<i64>(1)?.unsigned_abs(),
        ))
    }

    /// How many events of a server wait in the inbox, and their bytes. Costs grow with their number, by an index alone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn inbox_size(&self, peer: &ServerName) -> Result<(u64, u64), StoreError> {
        let row = query(
            "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM inbox WHERE server_name = $1",
        );
        let row = row.bind(peer.as_str());
        let row = row.optional(&self.readers).await?;
        let row = row.ok_or_else(|| StoreError::corrupt("inbox", "no count"))?;
        let count = |index| {
            row.get::<i64>(index)
                .map(|count| u64::try_from(count).unwrap_or(0))
        };
        Ok((count(0)?, count(1)?))
    }
}
