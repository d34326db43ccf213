//! Unread counts: the default outcome stands with each event, exceptions stand here.

use std::collections::HashMap;

use maru_protocol::cursor::Place;
use ruma::{OwnedUserId, UserId};

use super::engine::{Connection, Insert, Kind, query};
use super::events::Notify;
use super::{Store, StoreError};

/// What one user's push rules say of an event, where that differs from the event's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotification {
    /// Whose rules.
    pub user_id: OwnedUserId,
    /// The room (rooms.nid).
    pub room: i64,
    /// The event's place.
    pub place: Place,
    /// What they say.
    pub notify: Notify,
    /// The event's thread.
    pub thread: Option<String>,
}

static UPSERT: Insert = Insert {
    table: "notifications",
    columns: &[
        ("user_id", Kind::Text),
        ("room", Kind::Int),
        ("place", Kind::Int),
        ("notify", Kind::Int),
        ("thread", Kind::Text),
    ],
    on_conflict: "",
};

pub(super) async fn store(
    connection: &mut Connection,
    items: Vec<&NewNotification>,
) -> Result<(), StoreError> {
    let rows = items.into_iter().map(|item| {
        vec![
            item.user_id.as_str().into(),
            item.room.into(),
            item.place.0.into(),
            (item.notify as i64).into(),
            item.thread.clone().into(),
        ]
    });
    UPSERT.rows(connection, rows.collect()).await
}

/// Unread events by thread: the key is the thread's root, or empty for the main timeline.
pub type UnreadByThread = HashMap<String, Unread>;

/// How many events are unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Events that notify.
    pub notifications: u64,
    /// Those of them that are highlighted.
    pub highlights: u64,
}

impl Store {
    /// The events from others at or above a place that notify the user, per room as (place, notify, thread).
    /// For each pair (room, place): the place is the first that may be unread. Costs grow with the unread events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unread(
        &self,
        user_id: &UserId,
        from: &[(i64, Place)],
    ) -> Result<HashMap<i64, Vec<(Place, Notify, Option<String>)>>, StoreError> {
        let mut unread: HashMap<i64, Vec<_>> = HashMap::new();
        if from.is_empty() {
            return Ok(unread);
        }
        let sql = if self.is_sqlite() {
            "SELECT e.room, e.place, COALESCE(n.notify, e.notify), e.thread FROM json_each($2) AS start \
             JOIN events AS e ON e.room = json_extract(start.value, '$[0]') \
             AND e.place >= json_extract(start.value, '$[1]') \
             LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place \
             WHERE e.outcome = 0 AND e.redacted_by IS NULL AND e.sender <> $1 AND COALESCE(n.notify, e.notify) > 0"
        } else {
            "SELECT e.room, e.place, COALESCE(n.notify, e.notify), e.thread \
             FROM json_array_elements($2::json) AS start (value) \
             JOIN events AS e ON e.room = (start.value->>0)::bigint AND e.place >= (start.value->>1)::bigint \
             LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place \
             WHERE e.outcome = 0 AND e.redacted_by IS NULL AND e.sender <> $1 AND COALESCE(n.notify, e.notify) > 0"
        };
        let starts: Vec<(i64, i64)> = from.iter().map(|(room, place)| (*room, place.0)).collect();
        let starts = serde_json::to_string(&starts).map_err(StoreError::encoding)?;
        for row in query(sql)
            .bind(user_id.as_str())
            .bind(starts)
            .all(&self.readers)
            .await?
        {
            let item = (Place(row.get(1)?), Notify::from_number(row.get(2)?), row.get(3)?);
            unread.entry(row.get(0)?).or_default().push(item);
        }
        Ok(unread)
    }
}
