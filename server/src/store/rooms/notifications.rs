//! Unread counts: the default outcome stands with each event, exceptions stand here.

use std::collections::HashMap;

use maru_protocol::cursor::Place;
use ruma::{OwnedUserId, UserId};

use super::events::Notify;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::{Store, StoreError};

macro_rules! COUNTS {
    () => {
        "SELECT e.room, e.thread, COUNT(CASE WHEN e.sender <> $1 THEN 1 END), \
         CAST(SUM(CASE WHEN e.sender <> $1 AND COALESCE(n.notify, e.notify) = 2 THEN 1 ELSE 0 END) AS BIGINT), \
         MAX(CASE WHEN e.sender = $1 THEN e.place END)"
    };
}
macro_rules! EACH {
    () => {
        "SELECT e.room, e.thread, e.place, COALESCE(n.notify, e.notify), \
         CAST(CASE WHEN e.sender = $1 THEN 1 ELSE 0 END AS BIGINT)"
    };
}
// What counts for the user, and what the user sent meanwhile.
macro_rules! UNREAD_WHERE {
    () => {
        " WHERE e.outcome = 0 AND (CASE WHEN e.sender = $1 \
         THEN e.state_key IS NULL OR e.state_key <> $1 OR e.type <> 'm.room.member' \
         ELSE e.redacted_by IS NULL AND COALESCE(n.notify, e.notify) > 0 END)"
    };
}
macro_rules! SQLITE_UNREAD {
    () => {
        concat!(
            " FROM json_each($2) AS range CROSS JOIN events AS e ON e.room = json_extract(range.value, '$[0]') \
             AND e.place >= json_extract(range.value, '$[1]') AND e.place <= json_extract(range.value, '$[2]') \
             LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place",
            UNREAD_WHERE!()
        )
    };
}
macro_rules! POSTGRES_UNREAD {
    () => {
        concat!(
            // The offsets keep the ranges apart, and the exceptions: one plan for all of them would read the rooms whole,
            // and all that the user's own rules ever said.
            " FROM json_array_elements($2::json) AS range (value) CROSS JOIN LATERAL ( \
             SELECT * FROM events WHERE events.room = (range.value->>0)::bigint \
             AND events.place >= (range.value->>1)::bigint AND events.place <= (range.value->>2)::bigint OFFSET 0) AS e \
             LEFT JOIN LATERAL (SELECT own.notify FROM notifications AS own \
             WHERE own.user_id = $1 AND own.room = e.room AND own.place = e.place OFFSET 0) AS n ON TRUE",
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

pub(in crate::store) async fn store(
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
    fn from(all: Place) -> Self {
        let threads = HashMap::new();
        Self { all, threads }
    }

    fn first_unread(&self) -> Place {
        Place(self.all.0 + 1)
    }
}

/// The name of a thread in receipts.
fn thread_name(root: Option<&str>) -> String {
    root.unwrap_or("main").to_owned()
}

impl Store {
    /// How many events of others are unread, per room and thread (none for the main timeline), up to a place in each
    /// room. Whoever sends an event has read its thread up to there (client-server API, "Receiving notifications"); a
    /// change of one's own membership, as by a new name, says nothing of that. Counted in the database, so costs grow
    /// with the unread events but little is read; what came after the user last spoke is read one by one.
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
        let mut spoke: HashMap<i64, (ReadUpTo, Place)> = HashMap::new();
        for row in self.unread_rows(user_id, &plain, true).await? {
            let (room, thread): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            if let Some(own) = row.get::<Option<i64>>(4)?.map(Place) {
                let up_to = rooms.get(&room).map(|(_, up_to)| *up_to).unwrap_or_default();
                let (read, _) = spoke.entry(room).or_insert_with(|| (ReadUpTo::from(own), up_to));
                read.all = read.all.min(own);
                read.threads.insert(thread_name(thread.as_deref()), own);
                continue;
            }
            let counts = unread.entry(room).or_default().entry(thread).or_default();
            counts.notifications += row.get::<i64>(2)?.unsigned_abs();
            counts.highlights += row.get::<i64>(3)?.unsigned_abs();
        }
        let one_by_one: Vec<_> = threaded.into_iter().chain(&spoke).collect();
        let rows = self.unread_rows(user_id, &one_by_one, false).await?;
        let mut read: HashMap<i64, HashMap<String, Place>> = one_by_one
            .iter()
            .map(|(room, (read, _))| (**room, read.threads.clone()))
            .collect();
        let mut others = Vec::new();
        for row in rows {
            let (room, thread): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            let place = Place(row.get(2)?);
            if row.get::<i64>(4)? == 0 {
                others.push((room, thread, place, Notify::from_number(row.get(3)?)));
            } else {
                let own = read
                    .entry(room)
                    .or_default()
                    .entry(thread_name(thread.as_deref()));
                let own = own.or_insert(place);
                *own = place.max(*own);
            }
        }
        for (room, thread, place, notify) in others {
            let up_to = read
                .get(&room)
                .and_then(|read| read.get(&thread_name(thread.as_deref())));
            // Threads where the user did not speak have been counted.
            let is_counted = up_to.is_none() && spoke.contains_key(&room);
            if is_counted || up_to.is_some_and(|up_to| place <= *up_to) {
                continue;
            }
            let counts = unread.entry(room).or_default().entry(thread).or_default();
            counts.notifications += 1;
            counts.highlights += u64::from(notify == Notify::Highlight);
        }
        Ok(unread)
    }

    async fn unread_rows(
        &self,
        user_id: &UserId,
        rooms: &[(&i64, &(ReadUpTo, Place))],
        counted: bool,
    ) -> Result<Vec<Row>, StoreError> {
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
