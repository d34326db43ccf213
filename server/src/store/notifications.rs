//! Unread counts: the default outcome stands with each event, exceptions stand here.

use std::collections::HashMap;

use maru_protocol::cursor::Place;
use ruma::{OwnedUserId, UserId};

use super::engine::{Connection, Insert, Kind, query};
use super::events::Notify;
use super::{Store, StoreError};

macro_rules! COUNTS {
    () => {
        "SELECT e.room, e.thread, COUNT(*), CAST(SUM(CASE WHEN COALESCE(n.notify, e.notify) = 2 THEN 1 ELSE 0 END) AS BIGINT)"
    };
}
macro_rules! EACH {
    () => {
        "SELECT e.room, e.thread, e.place, COALESCE(n.notify, e.notify)"
    };
}
macro_rules! UNREAD_WHERE {
    () => {
        " LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place \
         WHERE e.outcome = 0 AND e.redacted_by IS NULL AND e.sender <> $1 AND COALESCE(n.notify, e.notify) > 0"
    };
}
macro_rules! SQLITE_UNREAD {
    () => {
        concat!(
            " FROM json_each($2) AS range CROSS JOIN events AS e ON e.room = json_extract(range.value, '$[0]') \
             AND e.place >= json_extract(range.value, '$[1]') AND e.place <= json_extract(range.value, '$[2]')",
            UNREAD_WHERE!()
        )
    };
}
macro_rules! POSTGRES_UNREAD {
    () => {
        concat!(
            // The offset keeps the ranges apart: one plan for all of them would read the rooms whole.
            " FROM json_array_elements($2::json) AS range (value) CROSS JOIN LATERAL ( \
             SELECT * FROM events WHERE events.room = (range.value->>0)::bigint \
             AND events.place >= (range.value->>1)::bigint AND events.place <= (range.value->>2)::bigint OFFSET 0) AS e",
            UNREAD_WHERE!()
        )
    };
}

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

/// How many events are unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Events that notify.
    pub notifications: u64,
    /// Those of them that are highlighted.
    pub highlights: u64,
}

/// Where a user's unread events of a room begin.
#[derive(Clone, Debug, Default)]
pub struct ReadUpTo {
    /// The place of the newest receipt that spans all threads; what the user joined at if there is none.
    pub all: Place,
    /// The places of newer receipts for the main timeline (`main`) and for threads.
    pub threads: HashMap<String, Place>,
}

impl ReadUpTo {
    fn first_unread(&self) -> Place {
        Place(self.all.0 + 1)
    }

    fn has_read(&self, thread: Option<&str>, place: Place) -> bool {
        self.threads
            .get(thread.unwrap_or("main"))
            .is_some_and(|read| place <= *read)
    }
}

impl Store {
    /// How many events of others are unread, per room and thread (none for the main timeline), up to a place in each
    /// room. Counted in the database, so costs grow with the unread events but little is read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unread(
        &self,
        user_id: &UserId,
        rooms: &HashMap<i64, (ReadUpTo, Place)>,
    ) -> Result<HashMap<i64, HashMap<Option<String>, Unread>>, StoreError> {
        let (plain, threaded): (Vec<_>, Vec<_>) =
            rooms.iter().partition(|(_, (read, _))| read.threads.is_empty());
        let mut unread: HashMap<i64, HashMap<_, Unread>> = HashMap::new();
        for row in self.unread_rows(user_id, &plain, true).await? {
            let counts = unread
                .entry(row.get(0)?)
                .or_default()
                .entry(row.get(1)?)
                .or_default();
            counts.notifications += row.get::<i64>(2)?.unsigned_abs();
            counts.highlights += row.get::<i64>(3)?.unsigned_abs();
        }
        for row in self.unread_rows(user_id, &threaded, false).await? {
            let (room, thread): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            let place = Place(row.get(2)?);
            if rooms
                .get(&room)
                .is_some_and(|(read, _)| read.has_read(thread.as_deref(), place))
            {
                continue;
            }
            let counts = unread.entry(room).or_default().entry(thread).or_default();
            counts.notifications += 1;
            counts.highlights += u64::from(Notify::from_number(row.get(3)?) == Notify::Highlight);
        }
        Ok(unread)
    }

    async fn unread_rows(
        &self,
        user_id: &UserId,
        rooms: &[(&i64, &(ReadUpTo, Place))],
        counted: bool,
    ) -> Result<Vec<super::engine::Row>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Vec<(i64, i64, i64)> = rooms
            .iter()
            .map(|(room, (read, up_to))| (**room, read.first_unread().0, up_to.0))
            .collect();
        let ranges = serde_json::to_string(&ranges).map_err(StoreError::encoding)?;
        let sql = match (self.is_sqlite(), counted) {
            (true, true) => concat!(COUNTS!(), SQLITE_UNREAD!(), " GROUP BY e.room, e.thread"),
            (true, false) => concat!(EACH!(), SQLITE_UNREAD!()),
            (false, true) => concat!(COUNTS!(), POSTGRES_UNREAD!(), " GROUP BY e.room, e.thread"),
            (false, false) => concat!(EACH!(), POSTGRES_UNREAD!()),
        };
        query(sql)
            .bind(user_id.as_str())
            .bind(ranges)
            .all(&self.readers)
            .await
    }
}
