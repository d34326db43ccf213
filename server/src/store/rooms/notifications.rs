//! Unread counts: the default outcome stands with each event, exceptions stand here.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::Place;
use ruma::{OwnedUserId, UserId};

use super::events::{Notify, Outcome, StoredEvent};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::rooms::RoomTables;

// Main timelines: what is unread begins after the receipt, or after what the user sent last in the main timeline. Changes of
// the user's own membership say nothing of what was read. What was sent after the range is passed over for what was before.
macro_rules! main_counts {
    ($ranges:literal) => {
        concat!(
            "SELECT e.room, COUNT(*), CAST(SUM(CASE WHEN COALESCE(n.notify, e.notify) = 2 THEN 1 ELSE 0 END) AS BIGINT) \
             FROM (SELECT asked.room, asked.last, CASE \
               WHEN sent.place IS NULL OR sent.place < asked.first THEN asked.first \
               WHEN sent.place <= asked.last THEN sent.place + 1 \
               ELSE COALESCE((SELECT own.place + 1 FROM events AS own WHERE own.room = asked.room \
                 AND own.place >= asked.first AND own.place <= asked.last AND own.sender = $1 AND own.thread IS NULL \
                 AND own.outcome = 0 AND (own.state_key IS NULL OR own.state_key <> $1 OR own.type <> 'm.room.member') \
                 ORDER BY own.place DESC LIMIT 1), asked.first) END AS first FROM ",
            $ranges,
            " WHERE e.outcome = 0 AND e.thread IS NULL AND e.sender <> $1 AND e.redacted_by IS NULL \
             AND COALESCE(n.notify, e.notify) > 0 GROUP BY e.room"
        )
    };
}
const SQLITE_MAIN: &str = main_counts!(
    "(SELECT json_extract(value, '$[0]') AS room, json_extract(value, '$[1]') AS first, \
       json_extract(value, '$[2]') AS last FROM json_each($2)) AS asked \
     LEFT JOIN last_sent AS sent ON sent.room = asked.room AND sent.user_id = $1) AS range \
     CROSS JOIN events AS e ON e.room = range.room AND e.place >= range.first AND e.place <= range.last \
     LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place"
);
// The offsets keep the ranges apart, and the exceptions: one plan for all of them would read the rooms whole, and all that
// the user's own rules ever said.
const POSTGRES_MAIN: &str = main_counts!(
    "(SELECT (value->>0)::bigint AS room, (value->>1)::bigint AS first, (value->>2)::bigint AS last \
       FROM json_array_elements($2::json)) AS asked \
     LEFT JOIN LATERAL (SELECT last_sent.place FROM last_sent WHERE last_sent.room = asked.room \
     AND last_sent.user_id = $1 OFFSET 0) AS sent ON TRUE OFFSET 0) AS range \
     CROSS JOIN LATERAL (SELECT * FROM events WHERE events.room = range.room \
     AND events.place >= range.first AND events.place <= range.last OFFSET 0) AS e \
     LEFT JOIN LATERAL (SELECT rules.notify FROM notifications AS rules \
     WHERE rules.user_id = $1 AND rules.room = e.room AND rules.place = e.place OFFSET 0) AS n ON TRUE"
);

// Threads: each begins after its own receipt, or after what the user said last in it.
macro_rules! in_threads {
    ($events:literal) => {
        concat!(
            "SELECT e.room, e.thread, e.place, COALESCE(n.notify, e.notify), \
             CAST(CASE WHEN e.sender = $1 THEN 1 ELSE 0 END AS BIGINT) FROM ",
            $events,
            " WHERE e.outcome = 0 AND (e.sender = $1 OR e.redacted_by IS NULL AND COALESCE(n.notify, e.notify) > 0)"
        )
    };
}
const SQLITE_THREADS: &str = in_threads!(
    "json_each($2) AS range CROSS JOIN events AS e ON e.room = json_extract(range.value, '$[0]') \
     AND e.place >= json_extract(range.value, '$[1]') AND e.place <= json_extract(range.value, '$[2]') \
     AND e.thread IS NOT NULL \
     LEFT JOIN notifications AS n ON n.user_id = $1 AND n.room = e.room AND n.place = e.place"
);
const POSTGRES_THREADS: &str = in_threads!(
    "json_array_elements($2::json) AS range (value) CROSS JOIN LATERAL ( \
     SELECT * FROM events WHERE events.room = (range.value->>0)::bigint AND events.thread IS NOT NULL \
     AND events.place >= (range.value->>1)::bigint AND events.place <= (range.value->>2)::bigint OFFSET 0) AS e \
     LEFT JOIN LATERAL (SELECT rules.notify FROM notifications AS rules \
     WHERE rules.user_id = $1 AND rules.room = e.room AND rules.place = e.place OFFSET 0) AS n ON TRUE"
);

/// What one user's push rules say of an event, where that differs from the event's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

static LAST_SENT: Insert = Insert {
    table: "last_sent",
    columns: &[("room", Kind::Int), ("user_id", Kind::Text), ("place", Kind::Int)],
    on_conflict: "ON CONFLICT (room, user_id) DO UPDATE SET place = excluded.place",
};

/// Notes where users of this server have sent something in a main timeline: each has read it up to there. `events` are in
/// the order of the log.
pub(in crate::store) async fn note_sent(
    connection: &mut Connection,
    events: impl Iterator<Item = &Arc<StoredEvent>>,
) -> Result<(), StoreError> {
    let mut last: HashMap<(i64, &str), i64> = HashMap::new();
    for stored in events.filter(|stored| stored.own && stored.outcome == Outcome::Accepted) {
        let (event, sender) = (&stored.event, stored.event.sender.as_str());
        if let (Some(place), None) = (stored.place, &stored.thread)
            && !event.is_state_at("m.room.member", sender)
        {
            last.insert((stored.room, sender), place.0);
        }
    }
    if last.is_empty() {
        return Ok(());
    }
    let rows = last.into_iter();
    let rows = rows.map(|((room, sender), place)| vec![room.into(), sender.into(), place.into()]);
    LAST_SENT.rows(connection, rows.collect()).await
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

/// The name of the main timeline in receipts.
const MAIN: &str = "main";

impl ReadUpTo {
    /// The first place that may be unread in any thread.
    fn first_in_threads(&self) -> Place {
        Place(self.all.0 + 1)
    }

    /// The first place that may be unread in the main timeline.
    fn first_in_main(&self) -> Place {
        let main = self.threads.get(MAIN).copied().unwrap_or_default();
        Place(self.all.max(main).0 + 1)
    }
}

/// Unread events of a room, by thread; none for the main timeline.
pub type UnreadByThread = HashMap<Option<String>, Unread>;

impl RoomTables {
    /// How many events of others are unread, per room and thread, up to a place in each room. Whoever sends an event has
    /// read its thread up to there (client-server API, "Receiving notifications"). Costs grow with what others sent in the
    /// main timeline after the user, and with what was sent in threads after the receipt of the room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unread(
        &self,
        user_id: &UserId,
        rooms: &HashMap<i64, (ReadUpTo, Place)>,
    ) -> Result<HashMap<i64, UnreadByThread>, StoreError> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let (main, threads) = match self.readers.is_sqlite() {
            true => (SQLITE_MAIN, SQLITE_THREADS),
            false => (POSTGRES_MAIN, POSTGRES_THREADS),
        };
        let main = self
            .in_ranges(main, user_id, rooms, ReadUpTo::first_in_main)
            .await?;
        let mut unread: HashMap<i64, UnreadByThread> = HashMap::new();
        for row in main {
            let counts = Unread {
                notifications: row.get::<i64>(1)?.unsigned_abs(),
                highlights: row.get::<i64>(2)?.unsigned_abs(),
            };
            unread.entry(row.get(0)?).or_default().insert(None, counts);
        }
        let threads = self.in_ranges(threads, user_id, rooms, ReadUpTo::first_in_threads);
        count_threads(&threads.await?, rooms, &mut unread)?;
        Ok(unread)
    }

    async fn in_ranges(
        &self,
        sql: &'static str,
        user_id: &UserId,
        rooms: &HashMap<i64, (ReadUpTo, Place)>,
        first: fn(&ReadUpTo) -> Place,
    ) -> Result<Vec<Row>, StoreError> {
        let ranges: Vec<(i64, i64, i64)> = rooms
            .iter()
            .map(|(room, (read, up_to))| (*room, first(read).0, up_to.0))
            .filter(|(_, first, last)| first <= last)
            .collect();
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let ranges = serde_json::to_string(&ranges).map_err(StoreError::encoding)?;
        query(sql)
            .bind(user_id.as_str())
            .bind(ranges)
            .all(&self.readers)
            .await
    }
}

/// Counts what is unread in threads: what stands after the thread's receipt and after what the user said there.
fn count_threads(
    rows: &[Row],
    rooms: &HashMap<i64, (ReadUpTo, Place)>,
    unread: &mut HashMap<i64, UnreadByThread>,
) -> Result<(), StoreError> {
    let mut said: HashMap<(i64, String), Place> = HashMap::new();
    let mut others = Vec::new();
    for row in rows {
        let (room, thread): (i64, String) = (row.get(0)?, row.get(1)?);
        let place = Place(row.get(2)?);
        if row.get::<bool>(4)? {
            let last = said.entry((room, thread)).or_default();
            *last = place.max(*last);
        } else {
            others.push((room, thread, place, Notify::from_number(row.get(3)?)));
        }
    }
    for (room, thread, place, notify) in others {
        let receipt = rooms.get(&room).and_then(|(read, _)| read.threads.get(&thread));
        let key = (room, thread);
        let read = said.get(&key).max(receipt);
        if read.is_some_and(|read| place <= *read) {
            continue;
        }
        let counts = unread.entry(room).or_default().entry(Some(key.1)).or_default();
        counts.notifications += 1;
        counts.highlights += u64::from(notify == Notify::Highlight);
    }
    Ok(())
}
