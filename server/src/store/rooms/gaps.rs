//! Gaps in timelines: where events are missing that other servers may have.
//!
//! A gap is written in the commit that stores the event after it, and moves as the past is backfilled.

use maru_protocol::cursor::Place;
use ruma::OwnedEventId;

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::rooms::RoomTables;

/// A gap in a room's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The room (rooms.nid).
    pub room: i64,
    /// The place of the event after it.
    pub before: Place,
    /// The events that were missing right before it when it was last looked at, as far as their ids are known.
    pub missing: Vec<OwnedEventId>,
}

/// How the gaps of a timeline change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapChange {
    /// There is a gap.
    Opened(Gap),
    /// There is none before this place any more (rooms.nid, place).
    Closed(i64, Place),
}

static UPSERT: Insert = Insert {
    table: "gaps",
    columns: &[("room", Kind::Int), ("place", Kind::Int), ("missing", Kind::Text)],
    on_conflict: "ON CONFLICT (room, place) DO UPDATE SET missing = excluded.missing",
};

/// Stores changes in their order; there are few.
pub(in crate::store) async fn store(
    connection: &mut Connection,
    changes: Vec<&GapChange>,
) -> Result<(), StoreError> {
    for change in changes {
        match change {
            GapChange::Opened(gap) => {
                let missing = serde_json::to_string(&gap.missing).map_err(StoreError::encoding)?;
                let row = vec![gap.room.into(), gap.before.0.into(), missing.into()];
                UPSERT.rows(connection, vec![row]).await?;
            }
            GapChange::Closed(room, before) => {
                let closed = query("DELETE FROM gaps WHERE room = $1 AND place = $2");
                closed.bind(*room).bind(before.0).run(connection).await?;
            }
        }
    }
    Ok(())
}

fn read(row: &Row) -> Result<Gap, StoreError> {
    Ok(Gap {
        room: row.get(0)?,
        before: Place(row.get(1)?),
        missing: serde_json::from_str(&row.get::<String>(2)?)
            .map_err(|error| StoreError::corrupt("gaps", error))?,
    })
}

/// Most gaps of one room that are looked at together; each is an outage that nobody has read across.
const MOST_GAPS: i64 = 100;

impl RoomTables {
    /// A room's newest gaps.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn gaps(&self, room: i64) -> Result<Vec<Gap>, StoreError> {
        let rows =
            query("SELECT room, place, missing FROM gaps WHERE room = $1 ORDER BY place DESC LIMIT $2");
        let rows = rows.bind(room).bind(MOST_GAPS).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// The gap that a reader meets who goes back along a room's timeline from a place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn gap_back_from(&self, room: i64, place: Place) -> Result<Option<Gap>, StoreError> {
        let row = query(
            "SELECT room, place, missing FROM gaps WHERE room = $1 AND place <= $2 ORDER BY place DESC LIMIT 1",
        );
        let row = row.bind(room).bind(place.0).optional(&self.readers).await?;
        row.as_ref().map(read).transpose()
    }
}
