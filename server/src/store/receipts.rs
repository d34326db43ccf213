//! Read receipts: the latest per user, room, type and thread.

use maru_protocol::cursor::{Place, Position};
use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::engine::{Connection, Insert, Kind, Row, query};
use super::{Store, StoreError};

/// How far somebody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Receipt {
    /// What a newer receipt replaces.
    pub(super) fn key(&self) -> (i64, &UserId, &str, &str) {
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
    ],
    on_conflict: "ON CONFLICT (room, user_id, type, thread) DO UPDATE SET event_id = excluded.event_id, \
                  place = excluded.place, ts = excluded.ts, position = excluded.position \
                  WHERE excluded.place >= receipts.place",
};

pub(super) async fn store(
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
        ]
    });
    UPSERT.rows(connection, rows.collect()).await
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
    })
}

impl Store {
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
            "SELECT room, user_id, type, thread, event_id, place, ts FROM receipts \
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
            "SELECT room, user_id, type, thread, event_id, place, ts FROM receipts \
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
}
