//! Threads: how many answers each has and where the newest one stands, counted when answers are stored and redacted.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::Place;
use ruma::{OwnedEventId, UserId};

use super::events::{Outcome, StoredEvent};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::rooms::RoomTables;

/// A thread by its latest event.
#[derive(Clone, Debug)]
pub struct ThreadLatest {
    /// The root.
    pub root: OwnedEventId,
    /// Where the latest event stands.
    pub latest: Place,
}

/// The answers in a thread, without those of some users.
#[derive(Clone, Copy, Debug)]
pub struct AnswersOfOthers {
    /// How many answers are those users'.
    pub left_out: i64,
    /// Where the newest of the others stands; none when there are no others.
    pub newest: Option<Place>,
}

static UPSERT: Insert = Insert {
    table: "threads",
    columns: &[
        ("root", Kind::Text),
        ("room", Kind::Int),
        ("answers", Kind::Int),
        ("latest", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (root, room) DO UPDATE SET answers = threads.answers + excluded.answers, \
                  latest = CASE WHEN excluded.latest > threads.latest THEN excluded.latest ELSE threads.latest END",
};

/// Counts those of some new events that are answers in threads.
pub(in crate::store) async fn count(
    connection: &mut Connection,
    events: impl Iterator<Item = &Arc<StoredEvent>>,
) -> Result<(), StoreError> {
    let mut threads: HashMap<(&str, i64), (i64, i64)> = HashMap::new();
    for stored in events.filter(|stored| stored.outcome == Outcome::Accepted) {
        let relation = stored
            .relation
            .as_ref()
            .filter(|relation| relation.kind == "m.thread");
        if let (Some(relation), Some(place)) = (relation, stored.place) {
            let thread = threads.entry((relation.to.as_str(), stored.room));
            let (answers, latest) = thread.or_insert((0, place.0));
            *answers += 1;
            *latest = place.0.max(*latest);
        }
    }
    if threads.is_empty() {
        return Ok(());
    }
    let rows = threads.into_iter().map(|((root, room), (answers, latest))| {
        vec![root.into(), room.into(), answers.into(), latest.into()]
    });
    UPSERT.rows(connection, rows.collect()).await
}

/// Takes an event (events.nid) that is about to be redacted out of its thread, if it has one.
pub(in crate::store) async fn leave(connection: &mut Connection, nid: i64) -> Result<(), StoreError> {
    query(
        "UPDATE threads SET answers = answers - 1, latest = COALESCE((SELECT e.place FROM events AS e \
           WHERE e.relates_to = threads.root AND e.room = threads.room AND e.relation = 'm.thread' AND e.nid <> $1 \
           AND e.outcome = 0 AND e.place IS NOT NULL ORDER BY e.place DESC LIMIT 1), latest) \
         WHERE (root, room) IN (SELECT relates_to, room FROM events \
           WHERE nid = $1 AND relation = 'm.thread' AND outcome = 0 AND place IS NOT NULL)",
    )
    .bind(nid)
    .run(&mut *connection)
    .await?;
    query(
        "DELETE FROM threads WHERE answers = 0 \
         AND (root, room) IN (SELECT relates_to, room FROM events WHERE nid = $1 AND relation = 'm.thread')",
    )
    .bind(nid)
    .run(connection)
    .await
}

impl RoomTables {
    /// Each of these threads, by root and room (rooms.nid), without the answers of some users. Costs grow with those
    /// answers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn answers_of_others(
        &self,
        roots: Vec<String>,
        users: Vec<String>,
    ) -> Result<HashMap<(OwnedEventId, i64), AnswersOfOthers>, StoreError> {
        let rows = query(
            "SELECT threads.root, threads.room, (SELECT COUNT(*) FROM events AS e \
               WHERE e.relates_to = threads.root AND e.room = threads.room AND e.relation = 'm.thread' \
               AND e.sender = ANY($2) AND e.outcome = 0 AND e.place IS NOT NULL), \
             (SELECT e.place FROM events AS e \
               WHERE e.relates_to = threads.root AND e.room = threads.room AND e.relation = 'm.thread' \
               AND NOT (e.sender = ANY($2)) AND e.outcome = 0 AND e.place IS NOT NULL ORDER BY e.place DESC LIMIT 1) \
             FROM threads WHERE threads.root = ANY($1)",
        );
        let read = |row: &Row| {
            let root = row.get::<String>(0)?.try_into();
            let root = root.map_err(|error| StoreError::corrupt("threads", error))?;
            let of_others = AnswersOfOthers {
                left_out: row.get(2)?,
                newest: row.get::<Option<i64>>(3)?.map(Place),
            };
            Ok(((root, row.get(1)?), of_others))
        };
        let rows = rows.bind(roots).bind(users);
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// The threads of a room whose latest event stands below a place, latest first; with `by`, those that this user
    /// started or took part in. Costs grow with `limit`, and with the threads in between that the user has no part in.
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
            "SELECT threads.root, threads.latest FROM threads WHERE threads.room = $1 AND threads.latest < $2 \
             AND (CAST($3 AS TEXT) IS NULL \
               OR EXISTS (SELECT 1 FROM events AS root WHERE root.event_id = threads.root AND root.sender = $3) \
               OR EXISTS (SELECT 1 FROM events AS own WHERE own.relates_to = threads.root AND own.room = $1 \
                 AND own.relation = 'm.thread' AND own.sender = $3)) \
             ORDER BY threads.latest DESC LIMIT $4",
        );
        let rows = rows
            .bind(room)
            .bind(below.0)
            .bind(by.map(UserId::as_str))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let read = |row: &Row| {
            let root = row.get::<String>(0)?.try_into();
            Ok(ThreadLatest {
                root: root.map_err(|error| StoreError::corrupt("threads", error))?,
                latest: Place(row.get(1)?),
            })
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }
}
