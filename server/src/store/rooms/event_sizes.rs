//! How large events are, and which: enough to plan what is read and told of many of them, part by part.

use maru_protocol::ingest::Outcome;
use maru_protocol::state::EventNid;
use ruma::OwnedEventId;

use crate::store::StoreError;
use crate::store::engine::{Readers, Row, query};
use crate::store::rooms::RoomTables;

/// Events whose sizes are read together.
const TOGETHER: usize = 10_000;

/// An event, and the bytes of its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its local number.
    pub nid: EventNid,
    /// Bytes of its JSON.
    pub bytes: usize,
}

fn read(row: &Row) -> Result<Size, StoreError> {
    Ok(Size {
        nid: EventNid(row.get(0)?),
        bytes: usize::try_from(row.get::<i64>(1)?).unwrap_or(0),
    })
}

/// The sizes of events. Costs grow with their number.
pub(in crate::store) async fn of(readers: &Readers, nids: &[EventNid]) -> Result<Vec<Size>, StoreError> {
    let mut sizes = Vec::with_capacity(nids.len());
    for nids in nids.chunks(TOGETHER) {
        let rows = query("SELECT nid, CAST(OCTET_LENGTH(json) AS BIGINT) FROM events WHERE nid = ANY($1)")
            .bind(nids.iter().map(|nid| nid.0).collect::<Vec<_>>())
            .all(readers)
            .await?;
        for row in &rows {
            sizes.push(read(row)?);
        }
    }
    Ok(sizes)
}

impl RoomTables {
    /// The sizes of events. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn event_sizes(&self, nids: &[EventNid]) -> Result<Vec<Size>, StoreError> {
        of(&self.readers, nids).await
    }

    /// The sizes of those events that are here and not rejected. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn event_sizes_by_id(&self, ids: Vec<String>) -> Result<Vec<Size>, StoreError> {
        let rows = query(
            "SELECT nid, CAST(OCTET_LENGTH(json) AS BIGINT) FROM events WHERE event_id = ANY($1) AND outcome <> $2",
        );
        let rows = rows.bind(ids).bind(Outcome::Rejected as i64).all(&self.readers);
        rows.await?.iter().map(read).collect()
    }

    /// The ids of events. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn event_ids(&self, nids: &[EventNid]) -> Result<Vec<OwnedEventId>, StoreError> {
        let mut ids = Vec::with_capacity(nids.len());
        for nids in nids.chunks(TOGETHER) {
            let rows = query("SELECT event_id FROM events WHERE nid = ANY($1)")
                .bind(nids.iter().map(|nid| nid.0).collect::<Vec<_>>())
                .all(&self.readers)
                .await?;
            for row in &rows {
                let id = row.get::<String>(0)?.try_into();
                ids.push(id.map_err(|error| StoreError::corrupt("events", error))?);
            }
        }
        Ok(ids)
    }
}
