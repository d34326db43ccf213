//! Connections of sliding sync, and what of which rooms each has been sent: tables `sync_connections` and
//! `sync_connection_rooms`.
//!
//! A row of a room holds from its generation on, until a row of a later generation does. So an answer that was lost is taken
//! back by looking at the generation before it; rows beneath that one are dropped with the next change.

use maru_protocol::cursor::{ConnectionPoint, Position};
use ruma::OwnedUserId;

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, Insert, Kind, Row, query};

/// Connections that one device may have; the one that changed longest ago goes.
const CONNECTIONS_PER_DEVICE: i64 = 16;

/// Whose a connection is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionName {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: String,
    /// The device's own name for it; may be empty.
    pub conn_id: String,
}

/// What of a room a device has been sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRoom {
    /// The room (rooms.nid).
    pub room: i64,
    /// The position up to which; none while the room is kept current.
    pub until: Option<Position>,
    /// Which of the connection's configurations it was sent by.
    pub config: i64,
}

/// A connection as it was at a point.
#[derive(Debug)]
pub struct StoredConnection {
    /// A JSON array of the configurations of rooms.
    pub configs: String,
    /// The rooms.
    pub rooms: Vec<SentRoom>,
    /// Rooms with rows beneath those that hold at the point.
    pub superseded: Vec<i64>,
}

/// A change of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionChange {
    /// Whose it is.
    pub name: ConnectionName,
    /// What the device has: later generations were never seen. None when the connection begins, in place of the one that
    /// had its name.
    pub acknowledged: Option<ConnectionPoint>,
    /// Rooms whose rows beneath the acknowledged generation's are dropped.
    pub superseded: Vec<i64>,
    /// The point after the change.
    pub point: ConnectionPoint,
    /// A JSON array of the configurations of rooms.
    pub configs: String,
    /// The rooms that changed.
    pub rooms: Vec<SentRoom>,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

static INSERT_ROOMS: Insert = Insert {
    table: "sync_connection_rooms",
    columns: &[
        ("connection", Kind::Int),
        ("room", Kind::Int),
        ("generation", Kind::Int),
        ("sent_until", Kind::Int),
        ("config", Kind::Int),
    ],
    on_conflict: "",
};

/// Statements that remove connections of devices `$2` of the user `$1`.
pub(super) const REMOVE_OF_DEVICES: [&str; 2] = [
    "DELETE FROM sync_connection_rooms WHERE connection IN \
     (SELECT id FROM sync_connections WHERE user_id = $1 AND device_id = ANY($2))",
    "DELETE FROM sync_connections WHERE user_id = $1 AND device_id = ANY($2)",
];

impl AccountTables {
    /// A connection as it was at a point; none when it is not known, or was changed since in another way. Costs grow with
    /// the rooms that it has been sent.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_connection(
        &self,
        name: &ConnectionName,
        point: ConnectionPoint,
    ) -> Result<Option<StoredConnection>, StoreError> {
        let known = query(
            "SELECT configs FROM sync_connections WHERE id = $1 AND user_id = $2 AND device_id = $3 AND conn_id = $4 \
             AND ((generation = $5 AND nonce = $6) OR (generation = $5 + 1 AND previous_nonce = $6))",
        );
        let known = known
            .bind(point.connection)
            .bind(name.user_id.as_str())
            .bind(&name.device_id)
            .bind(&name.conn_id)
            .bind(point.generation)
            .bind(point.nonce);
        let Some(known) = known.optional(&self.readers).await? else {
            return Ok(None);
        };
        let rows = query(
            "SELECT room, sent_until, config FROM sync_connection_rooms \
             WHERE connection = $1 AND generation <= $2 ORDER BY room, generation",
        );
        let rows = rows.bind(point.connection).bind(point.generation);
        let mut stored = StoredConnection {
            configs: known.get(0)?,
            rooms: Vec::new(),
            superseded: Vec::new(),
        };
        for row in rows.all(&self.readers).await? {
            let sent = sent_room(&row)?;
            match stored.rooms.last_mut().filter(|last| last.room == sent.room) {
                None => stored.rooms.push(sent),
                Some(last) => {
                    *last = sent;
                    stored.superseded.push(sent.room);
                }
            }
        }
        Ok(Some(stored))
    }

    /// Stores a change of a connection; false when another answer to the device changed it meanwhile, or when it is gone.
    /// Costs grow with the rooms that changed.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn change_sync_connection(&self, change: ConnectionChange) -> Result<bool, StoreError> {
        let changed = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let is_there = match change.acknowledged {
                    None => begin(connection, &change).await?,
                    Some(acknowledged) => go_on(connection, &change, acknowledged).await?,
                };
                if !is_there {
                    return Ok(false);
                }
                let row = |sent: &SentRoom| {
                    vec![
                        change.point.connection.into(),
                        sent.room.into(),
                        change.point.generation.into(),
                        sent.until.map(|until| until.0).into(),
                        sent.config.into(),
                    ]
                };
                let rows = change.rooms.iter().map(row).collect();
                INSERT_ROOMS.rows(connection, rows).await?;
                Ok(true)
            })
        });
        changed.await
    }

    /// Drops connections that did not change after a time, with their rooms, up to `limit`; how many there were.
    ///
    /// # Errors
    /// When they were not dropped.
    pub async fn drop_sync_connections(&self, until_ms: i64, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let old =
            query("SELECT id FROM sync_connections WHERE changed_at <= $1 ORDER BY changed_at LIMIT $2");
        let old = old.bind(until_ms).bind(limit).all(&self.readers).await?;
        let ids: Vec<i64> = old.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let dropped = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                // One of them may have changed since it was looked at.
                let delete = query(
                    "DELETE FROM sync_connections WHERE id = ANY($1) AND changed_at <= $2 RETURNING id",
                );
                let gone = delete.bind(ids).bind(until_ms).all(&mut tx.connection).await?;
                let gone: Vec<i64> = gone.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
                let count = gone.len();
                let rooms = query("DELETE FROM sync_connection_rooms WHERE connection = ANY($1)");
                rooms.bind(gone).run(&mut tx.connection).await?;
                Ok(count)
            })
        });
        dropped.await
    }
}

fn sent_room(row: &Row) -> Result<SentRoom, StoreError> {
    Ok(SentRoom {
        room: row.get(0)?,
        until: row.get::<Option<i64>>(1)?.map(Position),
        config: row.get(2)?,
    })
}

/// Makes a connection in place of the one that had its name, and of those that the device has too many.
async fn begin(connection: &mut Connection, change: &ConnectionChange) -> Result<bool, StoreError> {
    let ConnectionName {
        user_id,
        device_id,
        conn_id,
    } = &change.name;
    let gone = query(
        "DELETE FROM sync_connections WHERE user_id = $1 AND device_id = $2 AND (conn_id = $3 OR id IN \
         (SELECT id FROM sync_connections WHERE user_id = $1 AND device_id = $2 AND conn_id <> $3 \
          ORDER BY changed_at DESC LIMIT 1000 OFFSET $4)) RETURNING id",
    );
    let gone = gone.bind(user_id.as_str()).bind(device_id).bind(conn_id);
    let gone = gone
        .bind(CONNECTIONS_PER_DEVICE - 1)
        .all(&mut *connection)
        .await?;
    let gone: Vec<i64> = gone.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    if !gone.is_empty() {
        let rooms = query("DELETE FROM sync_connection_rooms WHERE connection = ANY($1)");
        rooms.bind(gone).run(&mut *connection).await?;
    }
    // A device that was removed meanwhile gets none.
    let insert = query(
        "INSERT INTO sync_connections \
         (id, user_id, device_id, conn_id, generation, nonce, previous_nonce, configs, changed_at) \
         SELECT $1, user_id, device_id, $2, $3, $4, 0, $5, $6 FROM devices WHERE user_id = $7 AND device_id = $8",
    );
    let insert = insert
        .bind(change.point.connection)
        .bind(conn_id)
        .bind(change.point.generation)
        .bind(change.point.nonce)
        .bind(&change.configs)
        .bind(change.now_ms)
        .bind(user_id.as_str())
        .bind(device_id);
    Ok(insert.execute(connection).await? > 0)
}

/// Moves a connection on from what the device has.
async fn go_on(
    connection: &mut Connection,
    change: &ConnectionChange,
    acknowledged: ConnectionPoint,
) -> Result<bool, StoreError> {
    let update = query(
        "UPDATE sync_connections SET generation = $1, nonce = $2, previous_nonce = $3, configs = $4, changed_at = $5 \
         WHERE id = $6 AND ((generation = $7 AND nonce = $3) OR (generation = $7 + 1 AND previous_nonce = $3))",
    );
    let update = update
        .bind(change.point.generation)
        .bind(change.point.nonce)
        .bind(acknowledged.nonce)
        .bind(&change.configs)
        .bind(change.now_ms)
        .bind(acknowledged.connection)
        .bind(acknowledged.generation);
    if update.execute(&mut *connection).await? == 0 {
        return Ok(false);
    }
    let unseen = query("DELETE FROM sync_connection_rooms WHERE connection = $1 AND generation > $2");
    let unseen = unseen.bind(acknowledged.connection).bind(acknowledged.generation);
    unseen.run(&mut *connection).await?;
    if !change.superseded.is_empty() {
        let beneath = query(
            "DELETE FROM sync_connection_rooms WHERE connection = $1 AND room = ANY($2) AND generation < \
             (SELECT MAX(newer.generation) FROM sync_connection_rooms AS newer WHERE newer.connection = $1 \
              AND newer.room = sync_connection_rooms.room AND newer.generation <= $3)",
        );
        let beneath = beneath
            .bind(acknowledged.connection)
            .bind(change.superseded.clone());
        beneath.bind(acknowledged.generation).run(connection).await?;
    }
    Ok(true)
}
