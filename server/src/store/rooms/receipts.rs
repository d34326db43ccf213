//! Read receipts: the latest per user, room, type and thread.

use maru_protocol::cursor::{Place, Position};
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::log::Record;
use crate::store::rooms::RoomTables;

/// How far somebody has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The room (rooms.nid).
    pub room: i64,
    /// Who has read.
    pub user_id: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// `main`, the root of a thread, or empty for a receipt that spans all threads.
    pub thread: String,
    /// The last event read.
    pub event_id: OwnedEventId,
    /// That event's place in the timeline.
    pub place: Place,
    /// When, in milliseconds since 1970.
    pub ts: i64,
    /// Whether it is of a user of this server.
    pub own: bool,
}

/// A receipt of a peer's user for an event that is not here yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingReceipt {
    /// The room (rooms.nid).
    pub room: i64,
    /// Who has read.
    pub user_id: OwnedUserId,
    /// As in [`Receipt`].
    pub thread: String,
    /// The event that is awaited.
    pub event_id: OwnedEventId,
    /// When, in milliseconds since 1970.
    pub ts: i64,
    /// When it was heard of, in milliseconds since 1970.
    pub heard_at: i64,
}

impl WaitingReceipt {
    /// What a newer one replaces.
    pub(in crate::store) fn key(&self) -> (i64, &UserId, &str) {
        (self.room, &self.user_id, &self.thread)
    }
}

impl Receipt {
    /// What a newer receipt replaces.
    pub(crate) fn key(&self) -> (i64, &UserId, &str, &str) {
        (self.room, &self.user_id, &self.receipt_type, &self.thread)
    }
}

static UPSERT: Insert = Insert {
    table: "receipts",
    columns: &[
        ("room", Kind::Int),
        ("user_id", Kind::Text),
        ("type", Kind::Text),
        ("thread", Kind::Text),
        ("event_id", Kind::Text),
        ("place", Kind::Int),
        ("ts", Kind::Int),
        ("position", Kind::Int),
        ("own", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (room, user_id, type, thread) DO UPDATE SET event_id = excluded.event_id, \
                  place = excluded.place, ts = excluded.ts, position = excluded.position \
                  WHERE excluded.place >= receipts.place",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    receipts: Vec<(i64, &Receipt)>,
) -> Result<(), StoreError> {
    let rows = receipts.into_iter().map(|(position, receipt)| {
        vec![
            receipt.room.into(),
            receipt.user_id.as_str().into(),
            receipt.receipt_type.as_str().into(),
            receipt.thread.as_str().into(),
            receipt.event_id.as_str().into(),
            receipt.place.0.into(),
            receipt.ts.into(),
            position.into(),
            receipt.own.into(),
        ]
    });
    UPSERT.rows(connection, rows.collect()).await
}

static UPSERT_WAITING: Insert = Insert {
    table: "waiting_receipts",
    columns: &[
        ("room", Kind::Int),
        ("user_id", Kind::Text),
        ("thread", Kind::Text),
        ("event_id", Kind::Text),
        ("ts", Kind::Int),
        ("heard_at", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (room, user_id, thread) DO UPDATE SET event_id = excluded.event_id, \
                  ts = excluded.ts, heard_at = excluded.heard_at",
};

pub(in crate::store) async fn store_waiting(
    connection: &mut Connection,
    receipts: Vec<&WaitingReceipt>,
) -> Result<(), StoreError> {
    let rows = receipts.into_iter().map(|receipt| {
        vec![
            receipt.room.into(),
            receipt.user_id.as_str().into(),
            receipt.thread.as_str().into(),
            receipt.event_id.as_str().into(),
            receipt.ts.into(),
            receipt.heard_at.into(),
        ]
    });
    UPSERT_WAITING.rows(connection, rows.collect()).await
}

fn read_waiting(row: &Row) -> Result<WaitingReceipt, StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("waiting_receipts", error);
    Ok(WaitingReceipt {
        room: row.get(0)?,
        user_id: row.get::<String>(1)?.try_into().map_err(bad)?,
        thread: row.get(2)?,
        event_id: row.get::<String>(3)?.try_into().map_err(bad)?,
        ts: row.get(4)?,
        heard_at: row.get(5)?,
    })
}

fn read(row: &Row) -> Result<Receipt, StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("receipts", error);
    Ok(Receipt {
        room: row.get(0)?,
        user_id: row.get::<String>(1)?.try_into().map_err(bad)?,
        receipt_type: row.get(2)?,
        thread: row.get(3)?,
        event_id: row.get::<String>(4)?.try_into().map_err(bad)?,
        place: Place(row.get(5)?),
        ts: row.get(6)?,
        own: row.get(7)?,
    })
}

impl RoomTables {
    /// The receipts of these rooms that came after a position (`None` for all). Costs grow with the receipts
    /// returned: at most a few per member.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn receipts_in(
        &self,
        rooms: Vec<i64>,
        after: Option<Position>,
    ) -> Result<Vec<Receipt>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rows = query(
            "SELECT room, user_id, type, thread, event_id, place, ts, own FROM receipts \
             WHERE room = ANY($1) AND position > $2 ORDER BY position",
        );
        let after = after.map_or(0, |position| position.0);
        rows.bind(rooms)
            .bind(after)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// A user's own receipts in these rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn receipts_of(&self, user_id: &UserId, rooms: Vec<i64>) -> Result<Vec<Receipt>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rows_of = query(
            "SELECT room, user_id, type, thread, event_id, place, ts, own FROM receipts \
             WHERE room = ANY($1) AND user_id = $2",
        );
        rows_of
            .bind(rooms)
            .bind(user_id.as_str())
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// The public receipts of several users in several rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn public_receipts(
        &self,
        users: Vec<String>,
        rooms: Vec<i64>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let rows = query(
            "SELECT room, user_id, type, thread, event_id, place, ts, own FROM receipts \
             WHERE room = ANY($1) AND user_id = ANY($2) AND type = 'm.read'",
        );
        let rows = rows.bind(rooms).bind(users).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// The receipts that wait for one of these events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn receipts_waiting_for(&self, events: Vec<String>) -> Result<Vec<WaitingReceipt>, StoreError> {
        let rows = query(
            "SELECT room, user_id, thread, event_id, ts, heard_at FROM waiting_receipts WHERE event_id = ANY($1)",
        );
        let rows = rows.bind(events).all(&self.readers).await?;
        rows.iter().map(read_waiting).collect()
    }

    /// The events that receipts wait for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn awaited_events(&self) -> Result<Vec<OwnedEventId>, StoreError> {
        let rows = query("SELECT DISTINCT event_id FROM waiting_receipts")
            .all(&self.readers)
            .await?;
        let read = |row: &Row| {
            let id = row.get::<String>(0)?.try_into();
            id.map_err(|error| StoreError::corrupt("waiting_receipts", error))
        };
        rows.iter().map(read).collect()
    }

    /// Stores the receipts that waited for these events, and has them wait no longer, all or nothing.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn settle_receipts(
        &self,
        receipts: Vec<Receipt>,
        events: Vec<String>,
    ) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let delete = query("DELETE FROM waiting_receipts WHERE event_id = ANY($1)").bind(events);
                    delete.run(&mut tx.connection).await?;
                    receipts
                        .into_iter()
                        .for_each(|receipt| tx.push(Record::Receipt(receipt)));
                    Ok(())
                })
            })
            .await
    }

    /// Drops receipts that have waited since before `before_ms` (milliseconds since 1970), the oldest, `most` of them. How
    /// many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_waiting_receipts(&self, before_ms: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM waiting_receipts WHERE heard_at < $1 LIMIT 1").bind(before_ms);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM waiting_receipts WHERE (room, user_id, thread) IN (SELECT room, user_id, thread \
             FROM waiting_receipts WHERE heard_at < $1 ORDER BY heard_at LIMIT $2)",
        );
        let delete = delete
            .bind(before_ms)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        expired.await
    }
}
