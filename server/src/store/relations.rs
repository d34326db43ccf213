//! Reads along the relations between events: what was said about an event.

use std::sync::Arc;

use maru_protocol::cursor::Place;
use ruma::{EventId, OwnedEventId, UserId};

use super::engine::{Row, query};
use super::events::{Direction, StoredEvent, read_all, select_events};
use super::{Store, StoreError};

/// References to one event that are read at most, the newest ones.
const REFERENCES: i64 = 100;

/// How many events relate to an event in one way.
#[derive(Clone, Debug)]
pub struct RelationCount {
    /// The event that they relate to.
    pub to: OwnedEventId,
    /// The room they are in (rooms.nid), which a stranger may have chosen differently from that of the target.
    pub room: i64,
    /// `m.replace`, `m.thread` or `m.reference`.
    pub kind: String,
    /// How many.
    pub count: i64,
    /// Where the newest one stands.
    pub newest: Place,
    /// Whether one of them was sent by the user who was asked about.
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

/// A thread by its latest event.
#[derive(Clone, Debug)]
pub struct ThreadLatest {
    /// The root.
    pub root: OwnedEventId,
    /// Where the latest event stands.
    pub latest: Place,
}

fn event_id(row: &Row, index: usize) -> Result<OwnedEventId, StoreError> {
    row.get::<String>(index)?
        .try_into()
        .map_err(|error| StoreError::corrupt("events", error))
}

impl Store {
    /// How many edits, thread events and references these events have, and whether `user_id` sent one. Costs grow with
    /// the relations counted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn relation_counts(
        &self,
        events: Vec<String>,
        user_id: &UserId,
    ) -> Result<Vec<RelationCount>, StoreError> {
        let rows = query(
            "SELECT relates_to, room, relation, COUNT(*), MAX(place), CAST(MAX(CASE WHEN sender = $2 THEN 1 ELSE 0 END) AS BIGINT) \
             FROM events WHERE relates_to = ANY($1) AND relation IN ('m.replace', 'm.thread', 'm.reference') \
             AND outcome = 0 AND place IS NOT NULL GROUP BY relates_to, room, relation",
        );
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

    /// The newest edit of each of these events by its own sender, of its own type. Costs grow with the edits of these
    /// events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_edits(&self, events: Vec<String>) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.nid IN (SELECT nid FROM (SELECT edit.nid AS nid, ROW_NUMBER() OVER ( \
               PARTITION BY edit.relates_to ORDER BY edit.origin_server_ts DESC, edit.event_id DESC) AS age \
               FROM events AS edit JOIN events AS target ON target.event_id = edit.relates_to \
               WHERE edit.relates_to = ANY($1) AND edit.relation = 'm.replace' AND edit.outcome = 0 \
               AND edit.place IS NOT NULL AND edit.room = target.room AND edit.sender = target.sender \
               AND edit.type = target.type AND edit.state_key IS NULL AND target.state_key IS NULL \
               AND target.redacted_by IS NULL AND (target.relation IS NULL OR target.relation <> 'm.replace')) AS edits \
             WHERE age = 1)"
        ));
        read_all(&rows.bind(events).all(&self.readers).await?)
    }

    /// A user's own annotations of an event, up to a hundred.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn annotations_by(
        &self,
        target: &EventId,
        sender: &UserId,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.relates_to = $1 AND events.relation = 'm.annotation' AND events.sender = $2 \
             AND events.outcome = 0 LIMIT 100"
        ));
        read_all(
            &rows
                .bind(target.as_str())
                .bind(sender.as_str())
                .all(&self.readers)
                .await?,
        )
    }

    /// The events that refer to each of these events (`m.reference`), newest first, a hundred an event at most: pairs
    /// of the event and who refers to it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn references(
        &self,
        events: Vec<String>,
    ) -> Result<Vec<(OwnedEventId, OwnedEventId)>, StoreError> {
        let rows = query(
            "SELECT relates_to, event_id FROM (SELECT e.relates_to, e.event_id, ROW_NUMBER() OVER ( \
               PARTITION BY e.relates_to ORDER BY e.place DESC) AS age FROM events AS e \
               JOIN events AS target ON target.event_id = e.relates_to AND target.room = e.room \
               WHERE e.relates_to = ANY($1) AND e.relation = 'm.reference' AND e.outcome = 0 AND e.place IS NOT NULL \
             ) AS referring WHERE age <= $2 ORDER BY relates_to, age",
        );
        let rows = rows.bind(events).bind(REFERENCES).all(&self.readers).await?;
        rows.iter()
            .map(|row| Ok((event_id(row, 0)?, event_id(row, 1)?)))
            .collect()
    }

    /// Accepted timeline events at these places: pairs of room (rooms.nid) and place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_at(&self, places: &[(i64, Place)]) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let sql = if self.is_sqlite() {
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

    /// The events that lead to an event. Costs grow with all of them, of whatever kind, when `depth` is more than 1 or
    /// no kind is asked for; otherwise with `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn related(&self, asked: RelationQuery<'_>) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let sql = match (asked.direction, asked.depth) {
            (Direction::Backward, ..=1) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place < $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.relation = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.type = $6) ORDER BY events.place DESC LIMIT $4"
            ),
            (Direction::Forward, ..=1) => select_events!(
                "WHERE events.relates_to = $1 AND events.room = $2 AND events.place >= $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.relation = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.type = $6) ORDER BY events.place ASC LIMIT $4"
            ),
            (Direction::Backward, _) => select_events!(
                "WHERE events.nid IN (WITH RECURSIVE related (nid, event_id, depth) AS ( \
                   SELECT nid, event_id, 1 FROM events WHERE relates_to = $1 AND room = $2 \
                   UNION SELECT further.nid, further.event_id, related.depth + 1 FROM events AS further \
                   JOIN related ON further.relates_to = related.event_id \
                   WHERE further.room = $2 AND related.depth < $7) SELECT nid FROM related) \
                 AND events.place < $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.relation = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.type = $6) ORDER BY events.place DESC LIMIT $4"
            ),
            (Direction::Forward, _) => select_events!(
                "WHERE events.nid IN (WITH RECURSIVE related (nid, event_id, depth) AS ( \
                   SELECT nid, event_id, 1 FROM events WHERE relates_to = $1 AND room = $2 \
                   UNION SELECT further.nid, further.event_id, related.depth + 1 FROM events AS further \
                   JOIN related ON further.relates_to = related.event_id \
                   WHERE further.room = $2 AND related.depth < $7) SELECT nid FROM related) \
                 AND events.place >= $3 AND events.outcome = 0 \
                 AND (CAST($5 AS TEXT) IS NULL OR events.relation = $5) \
                 AND (CAST($6 AS TEXT) IS NULL OR events.type = $6) ORDER BY events.place ASC LIMIT $4"
            ),
        };
        let mut rows = query(sql)
            .bind(asked.to.as_str())
            .bind(asked.room)
            .bind(asked.from.0)
            .bind(i64::try_from(asked.limit).unwrap_or(i64::MAX))
            .bind(asked.kind)
            .bind(asked.event_type);
        if asked.depth > 1 {
            rows = rows.bind(i64::from(asked.depth));
        }
        read_all(&rows.all(&self.readers).await?)
    }

    /// The threads of a room whose latest event stands below a place, latest first; with `by`, those that this user
    /// started or took part in. Costs grow with the thread events of the room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn threads(
        &self,
        room: i64,
        below: Place,
        by: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<ThreadLatest>, StoreError> {
        let rows = query(
            "SELECT e.thread, MAX(e.place) AS latest FROM events AS e \
             WHERE e.room = $1 AND e.thread IS NOT NULL AND e.relation = 'm.thread' AND e.outcome = 0 \
             AND (CAST($3 AS TEXT) IS NULL \
               OR EXISTS (SELECT 1 FROM events AS root WHERE root.event_id = e.thread AND root.sender = $3) \
               OR EXISTS (SELECT 1 FROM events AS own WHERE own.room = $1 AND own.thread = e.thread \
                 AND own.relation = 'm.thread' AND own.sender = $3)) \
             GROUP BY e.thread HAVING MAX(e.place) < $2 ORDER BY latest DESC LIMIT $4",
        );
        let rows = rows
            .bind(room)
            .bind(below.0)
            .bind(by.map(UserId::as_str))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let read = |row: &Row| {
            Ok(ThreadLatest {
                root: event_id(row, 0)?,
                latest: Place(row.get(1)?),
            })
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }
}
