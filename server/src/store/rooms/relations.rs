//! Reads along the relations between events: what was said about an event.

use std::sync::Arc;

use maru_protocol::cursor::Place;
use ruma::{EventId, OwnedEventId, UserId};

use super::events::{Direction, SELECT, StoredEvent, read_all, select_events};
use crate::store::StoreError;
use crate::store::engine::{Row, query};
use crate::store::rooms::RoomTables;

/// References to one event that are read at most, the newest ones.
const REFERENCES: i64 = 100;

/// That events relate to an event in one way.
#[derive(Clone, Debug)]
pub struct RelationCount {
    /// The event that they relate to.
    pub to: OwnedEventId,
    /// The room (rooms.nid).
    pub room: i64,
    /// `m.replace`, `m.thread` or `m.reference`.
    pub kind: String,
    /// How many answers a thread has; edits and references are not counted.
    pub count: i64,
    /// Where the newest answer of a thread stands.
    pub newest: Place,
    /// Whether one of a thread's answers was sent by the user who was asked about.
    pub by_user: bool,
}

/// Which relations of an event are read.
#[derive(Clone, Debug)]
pub struct RelationQuery<'a> {
    /// The room (rooms.nid).
    pub room: i64,
    /// The event that they lead to.
    pub to: &'a EventId,
    /// Through how many events: 1 for direct relations only.
    pub depth: u8,
    /// Only relations of this kind.
    pub kind: Option<&'a str>,
    /// Only events of this type.
    pub event_type: Option<&'a str>,
    /// Where to start: below this place going backward, at or above it going forward.
    pub from: Place,
    /// Which way.
    pub direction: Direction,
    /// How many at most.
    pub limit: usize,
}

fn event_id(row: &Row, index: usize) -> Result<OwnedEventId, StoreError> {
    row.get::<String>(index)?
        .try_into()
        .map_err(|error| StoreError::corrupt("events", error))
}

// Most events have none, so that is asked first, with one search an event.
macro_rules! relation_counts {
    ($asked:literal) => {
        concat!(
            "WITH related AS MATERIALIZED (SELECT page.event_id FROM ",
            $asked,
            " WHERE EXISTS (SELECT 1 FROM events AS child WHERE child.relates_to = page.event_id)) \
             SELECT target.event_id, target.room, 'm.replace', CAST(1 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT) \
             FROM related CROSS JOIN events AS target WHERE target.event_id = related.event_id \
             AND EXISTS (SELECT 1 FROM events AS edit \
               WHERE edit.relates_to = target.event_id AND edit.room = target.room AND edit.relation = 'm.replace' \
               AND edit.outcome = 0 AND edit.place IS NOT NULL) \
             UNION ALL \
             SELECT target.event_id, target.room, 'm.reference', CAST(1 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT) \
             FROM related CROSS JOIN events AS target WHERE target.event_id = related.event_id \
             AND EXISTS (SELECT 1 FROM events AS referring \
               WHERE referring.relates_to = target.event_id AND referring.room = target.room \
               AND referring.relation = 'm.reference' AND referring.outcome = 0 AND referring.place IS NOT NULL) \
             UNION ALL \
             SELECT threads.root, threads.room, 'm.thread', threads.answers, threads.latest, CAST(CASE WHEN EXISTS ( \
               SELECT 1 FROM events AS own WHERE own.relates_to = threads.root AND own.room = threads.room \
               AND own.relation = 'm.thread' AND own.sender = $2 AND own.outcome = 0 AND own.place IS NOT NULL \
             ) THEN 1 ELSE 0 END AS BIGINT) FROM related CROSS JOIN threads WHERE threads.root = related.event_id"
        )
    };
}

impl RoomTables {
    /// Which of these events have edits, threads and references in their rooms, and whether `user_id` answered in the
    /// threads. Costs grow with the events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn relation_counts(
        &self,
        events: Vec<String>,
        user_id: &UserId,
    ) -> Result<Vec<RelationCount>, StoreError> {
        let rows = query(if self.readers.is_sqlite() {
            relation_counts!("(SELECT value AS event_id FROM json_each($1)) AS page")
        } else {
            relation_counts!("unnest($1::text[]) AS page (event_id)")
        });
        let read = |row: &Row| {
            Ok(RelationCount {
                to: event_id(row, 0)?,
                room: row.get(1)?,
                kind: row.get(2)?,
                count: row.get(3)?,
                newest: Place(row.get(4)?),
                by_user: row.get(5)?,
            })
        };
        let rows = rows.bind(events).bind(user_id.as_str());
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// The newest edit of each of these events by its own sender, of its own type. Costs grow with the events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_edits(&self, events: Vec<String>) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.nid IN (SELECT (SELECT edit.nid FROM events AS edit \
               WHERE edit.relates_to = target.event_id AND edit.room = target.room AND edit.sender = target.sender \
               AND edit.type = target.type AND edit.relation = 'm.replace' AND edit.outcome = 0 \
               AND edit.place IS NOT NULL AND edit.state_key IS NULL \
               ORDER BY edit.origin_server_ts DESC, edit.event_id DESC LIMIT 1) \
             FROM events AS target WHERE target.event_id = ANY($1) AND target.state_key IS NULL \
             AND target.redacted_by IS NULL AND (target.relation IS NULL OR target.relation <> 'm.replace'))"
        ));
        read_all(&rows.bind(events).all(&self.readers).await?)
    }

    /// A user's own annotations of an event of a room (rooms.nid), up to a hundred.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn annotations_by(
        &self,
        room: i64,
        target: &EventId,
        sender: &UserId,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.relates_to = $1 AND events.room = $3 AND events.relation = 'm.annotation' \
             AND events.sender = $2 AND events.outcome = 0 LIMIT 100"
        ));
        let rows = rows.bind(target.as_str()).bind(sender.as_str()).bind(room);
        read_all(&rows.all(&self.readers).await?)
    }

    /// The events that refer to each of these events (`m.reference`), newest first, a hundred an event at most: pairs
    /// of the event and who refers to it. Costs grow with the pairs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn references(
        &self,
        events: Vec<String>,
    ) -> Result<Vec<(OwnedEventId, OwnedEventId)>, StoreError> {
        let sql = if self.readers.is_sqlite() {
            "SELECT target.event_id, (SELECT json_group_array(newest.event_id) FROM (SELECT e.event_id FROM events AS e \
               WHERE e.relates_to = target.event_id AND e.room = target.room AND e.relation = 'm.reference' \
               AND e.outcome = 0 AND e.place IS NOT NULL ORDER BY e.place DESC LIMIT $2) AS newest) \
             FROM events AS target WHERE target.event_id = ANY($1)"
        } else {
            "SELECT target.event_id, (SELECT CAST(json_agg(newest.event_id) AS TEXT) FROM (SELECT e.event_id FROM events AS e \
               WHERE e.relates_to = target.event_id AND e.room = target.room AND e.relation = 'm.reference' \
               AND e.outcome = 0 AND e.place IS NOT NULL ORDER BY e.place DESC LIMIT $2) AS newest) \
             FROM events AS target WHERE target.event_id = ANY($1)"
        };
        let rows = query(sql)
            .bind(events)
            .bind(REFERENCES)
            .all(&self.readers)
            .await?;
        let mut pairs = Vec::new();
        for row in &rows {
            let to = event_id(row, 0)?;
            let from = row.get::<Option<String>>(1)?;
            let from = from.map(|ids| serde_json::from_str::<Vec<OwnedEventId>>(&ids));
            let from = from
                .transpose()
                .map_err(|error| StoreError::corrupt("events", error))?;
            pairs.extend(
                from.unwrap_or_default()
                    .into_iter()
                    .map(|from| (to.clone(), from)),
            );
        }
        Ok(pairs)
    }

    /// Accepted timeline events at these places: pairs of room (rooms.nid) and place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_at(&self, places: &[(i64, Place)]) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let sql = if self.readers.is_sqlite() {
            select_events!(
                "JOIN json_each($1) AS wanted ON events.room = json_extract(wanted.value, '$[0]') \
                 AND events.place = json_extract(wanted.value, '$[1]') WHERE events.outcome = 0"
            )
        } else {
            select_events!(
                "JOIN json_array_elements($1::json) AS wanted (value) ON events.room = (wanted.value->>0)::bigint \
                 AND events.place = (wanted.value->>1)::bigint WHERE events.outcome = 0"
            )
        };
        let places: Vec<(i64, i64)> = places.iter().map(|(room, place)| (*room, place.0)).collect();
        let places = serde_json::to_string(&places).map_err(StoreError::encoding)?;
        read_all(&query(sql).bind(places).all(&self.readers).await?)
    }

    /// The events that lead to an event. Costs grow with `limit`, and with relations of other types in between; when
    /// `depth` is more than 1, with all of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn related(&self, asked: RelationQuery<'_>) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let sql = match (asked.direction, asked.depth, asked.kind) {
            (Direction::Backward, ..=1, None) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place < $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) ORDER BY events.place DESC LIMIT $4"
            ),
            (Direction::Forward, ..=1, None) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place >= $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) ORDER BY events.place ASC LIMIT $4"
            ),
            (Direction::Backward, ..=1, Some(_)) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place < $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) AND events.relation = $6 \
                 ORDER BY events.place DESC LIMIT $4"
            ),
            (Direction::Forward, ..=1, Some(_)) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place >= $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) AND events.relation = $6 \
                 ORDER BY events.place ASC LIMIT $4"
            ),
            (Direction::Backward, _, _) => select_events!(
                "WHERE events.nid IN (WITH RECURSIVE related (nid, event_id, depth) AS ( \
                   SELECT nid, event_id, 1 FROM events WHERE relates_to = $1 AND room = $2 \
                   UNION SELECT further.nid, further.event_id, related.depth + 1 FROM events AS further \
                   JOIN related ON further.relates_to = related.event_id \
                   WHERE further.room = $2 AND related.depth < $7) SELECT nid FROM related) \
                 AND events.place < $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.relation = $6) ORDER BY events.place DESC LIMIT $4"
            ),
            (Direction::Forward, _, _) => select_events!(
                "WHERE events.nid IN (WITH RECURSIVE related (nid, event_id, depth) AS ( \
                   SELECT nid, event_id, 1 FROM events WHERE relates_to = $1 AND room = $2 \
                   UNION SELECT further.nid, further.event_id, related.depth + 1 FROM events AS further \
                   JOIN related ON further.relates_to = related.event_id \
                   WHERE further.room = $2 AND related.depth < $7) SELECT nid FROM related) \
                 AND events.place >= $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.type = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.relation = $6) ORDER BY events.place ASC LIMIT $4"
            ),
        };
        let mut rows = query(sql)
            .bind(asked.to.as_str())
            .bind(asked.room)
            .bind(asked.from.0)
            .bind(i64::try_from(asked.limit).unwrap_or(i64::MAX))
            .bind(asked.event_type);
        if asked.depth > 1 {
            rows = rows.bind(asked.kind).bind(i64::from(asked.depth));
        } else if let Some(kind) = asked.kind {
            rows = rows.bind(kind);
        }
        read_all(&rows.all(&self.readers).await?)
    }
}
