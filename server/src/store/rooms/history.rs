//! Reads of a room's past: slots over time, places by position and by time, transaction ids of events.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use ruma::UserId;

use super::events::{SELECT, StoredEvent, read_all, select_events};
use crate::store::StoreError;
use crate::store::engine::{Row, query};
use crate::store::rooms::RoomTables;

impl RoomTables {
    /// The accepted state events of one slot whose place is below `below`, newest first, `limit` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn slot_history(
        &self,
        room: i64,
        event_type: &str,
        state_key: &str,
        below: Place,
        limit: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.room = $1 AND events.type = $2 AND events.state_key = $3 AND events.place < $4 \
             AND events.outcome = 0 ORDER BY events.place DESC LIMIT $5"
        ));
        let rows = rows
            .bind(room)
            .bind(event_type)
            .bind(state_key)
            .bind(below.0)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        read_all(&rows.all(&self.readers).await?)
    }

    /// The place of a room's last live event at or before a log position; the one before the first live event when
    /// there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn place_at(&self, room: i64, position: Position) -> Result<Place, StoreError> {
        // Live in the words of `Place::is_live`.
        let row = query(
            "SELECT place FROM events WHERE room = $1 AND position <= $2 AND place >= 1 \
             AND (place - 1) % 4294967296 < 2147483648 ORDER BY position DESC LIMIT 1",
        );
        let row = row.bind(room).bind(position.0).optional(&self.readers).await?;
        row.map_or(Ok(Place(Place::FIRST_LIVE.0 - 1)), |row| Ok(Place(row.get(0)?)))
    }

    /// When the accepted event at or next above a place was sent (milliseconds since 1970), and that event's place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn time_at(&self, room: i64, place: Place) -> Result<Option<(Place, i64)>, StoreError> {
        let row = query(
            "SELECT place, origin_server_ts FROM events WHERE room = $1 AND place >= $2 AND outcome = 0 \
             ORDER BY place LIMIT 1",
        );
        let row = row.bind(room).bind(place.0).optional(&self.readers).await?;
        row.map(|row| Ok((Place(row.get(0)?), row.get(1)?))).transpose()
    }

    /// The transaction ids under which a device sent the events at these log positions. Costs grow with the positions.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transaction_ids(
        &self,
        user_id: &UserId,
        device_id: &str,
        positions: Vec<i64>,
    ) -> Result<HashMap<String, String>, StoreError> {
        if positions.is_empty() {
            return Ok(HashMap::new());
        }
        // Joined to an empty text, so that the primary key is of no use: its prefix would bring all that the device sent.
        let rows = query(
            "SELECT event_id, transaction_id FROM transactions \
             WHERE position = ANY($1) AND user_id || '' = $2 AND device_id || '' = $3",
        );
        let rows = rows.bind(positions).bind(user_id.as_str()).bind(device_id);
        let pair = |row: &Row| Ok((row.get(0)?, row.get(1)?));
        rows.all(&self.readers).await?.iter().map(pair).collect()
    }
}
