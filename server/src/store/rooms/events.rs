//! Events: stored once, read by id, by number, by timeline place and by log position.
//!
//! Over 500 lines, because every read of whole events shares one row shape and its columns are listed once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use maru_protocol::cursor::{Place, Position};
use maru_protocol::event::Event;
pub use maru_protocol::ingest::Outcome;
use maru_protocol::state::{EventNid, StateNid};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};

use super::threads;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::engine::row_packing;
use crate::store::engine::{Connection, Insert, Kind, Query, Readers, Row, query};
use crate::store::rooms::RoomTables;

/// What push rules say of an event to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Notify {
    /// Nothing.
    Nothing = 0,
    /// It counts as unread.
    Notify = 1,
    /// It counts as unread and is highlighted.
    Highlight = 2,
}

impl Notify {
    /// From its stored number.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Notify,
            _ => Self::Highlight,
        }
    }
}

/// The relation of an event to an earlier one (`m.relates_to`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The earlier event.
    pub to: OwnedEventId,
    /// `rel_type`, for example `m.annotation`.
    pub kind: String,
}

/// An event and what this server alone knows of it.
#[derive(Debug)]
pub struct StoredEvent {
    /// The event itself.
    pub event: Arc<Event>,
    /// Its local number.
    pub nid: EventNid,
    /// Its room (rooms.nid).
    pub room: i64,
    /// Its place in the timeline; none for an outlier.
    pub place: Option<Place>,
    /// The state after it.
    pub state: Option<StateNid>,
    /// The state event that it replaced.
    pub replaces: Option<EventNid>,
    /// What became of it.
    pub outcome: Outcome,
    /// What the default push rules say of it to a member whom it does not mention.
    pub notify: Notify,
    /// The root of its thread.
    pub thread: Option<OwnedEventId>,
    /// What it relates to.
    pub relation: Option<Relation>,
    /// The event that took its content away.
    pub redacted_by: Option<OwnedEventId>,
    /// Whether this server made it.
    pub own: bool,
    position: OnceLock<Position>,
}

impl StoredEvent {
    /// An event of this server that is about to be stored as an accepted part of its room; the other facts start empty.
    #[must_use]
    pub fn new(
        event: Arc<Event>,
        nid: EventNid,
        room: i64,
        place: Option<Place>,
        state: Option<StateNid>,
    ) -> Self {
        Self {
            event,
            nid,
            room,
            place,
            state,
            replaces: None,
            outcome: Outcome::Accepted,
            notify: Notify::Nothing,
            thread: None,
            relation: None,
            redacted_by: None,
            own: true,
            position: OnceLock::new(),
        }
    }

    /// When this server learnt of it; none while it is not durable.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position.get().copied()
    }

    pub(in crate::store) fn set_position(&self, position: Position) {
        // Set once, when the commit has succeeded: a batch that is halved is placed again, at other positions.
        let _ = self.position.set(position);
    }

    /// Whether events before it were missing when it came. They may have been backfilled since.
    #[must_use]
    pub fn follows_gap(&self) -> bool {
        self.place.is_some_and(Place::begins_stretch) && !self.event.prev_events.is_empty()
    }

    /// The same event in another form, as some of its readers get it.
    #[must_use]
    pub fn with_event(&self, event: Arc<Event>) -> Self {
        Self {
            event,
            redacted_by: self.redacted_by.clone(),
            thread: self.thread.clone(),
            relation: None,
            position: self.position.clone(),
            ..*self
        }
    }

    /// The same event after a redaction.
    #[must_use]
    pub fn redacted(&self, event: Arc<Event>, by: OwnedEventId) -> Self {
        Self {
            event,
            redacted_by: Some(by),
            thread: self.thread.clone(),
            relation: None,
            position: self.position.clone(),
            ..*self
        }
    }
}

/// Removes an event's content for good.
#[derive(Clone, Debug)]
pub struct Redaction {
    /// The target's local number.
    pub target: EventNid,
    /// The target's room (rooms.nid).
    pub room: i64,
    /// The target without its content.
    pub event: Arc<Event>,
    /// The redaction event.
    pub by: OwnedEventId,
}

/// A redaction of an event that is not here yet.
#[derive(Clone, Debug)]
pub struct EarlyRedaction {
    /// The room (rooms.nid).
    pub room: i64,
    /// The event that it redacts.
    pub target: OwnedEventId,
    /// The redaction event.
    pub by: OwnedEventId,
    /// Who redacts.
    pub sender: OwnedUserId,
}

/// A client's transaction id (unique per user, device and scope) and the event that it became.
#[derive(Clone, Debug)]
pub struct NewTransaction {
    /// Who sent it.
    pub user_id: OwnedUserId,
    /// From which device.
    pub device_id: String,
    /// What the request was, so that another one may have the same id.
    pub scope: String,
    /// The client's id.
    pub transaction_id: String,
    /// The event.
    pub event_id: OwnedEventId,
    /// Milliseconds since 1970.
    pub used_at: u64,
}

static INSERT: Insert = Insert {
    table: "events",
    columns: &[
        ("nid", Kind::Int),
        ("event_id", Kind::Text),
        ("room", Kind::Int),
        ("position", Kind::Int),
        ("place", Kind::Int),
        ("type", Kind::Text),
        ("state_key", Kind::Text),
        ("sender", Kind::Text),
        ("origin_server_ts", Kind::Int),
        ("state", Kind::Int),
        ("replaces", Kind::Int),
        ("outcome", Kind::Int),
        ("notify", Kind::Int),
        ("thread", Kind::Text),
        ("relates_to", Kind::Text),
        ("relation", Kind::Text),
        ("own", Kind::Int),
        ("json", Kind::Text),
    ],
    on_conflict: "",
};

static INSERT_EARLY_REDACTION: Insert = Insert {
    table: "early_redactions",
    columns: &[
        ("target", Kind::Text),
        ("redaction", Kind::Text),
        ("room", Kind::Int),
        ("sender", Kind::Text),
    ],
    on_conflict: "ON CONFLICT DO NOTHING",
};

static INSERT_TRANSACTION: Insert = Insert {
    table: "transactions",
    columns: &[
        ("user_id", Kind::Text),
        ("device_id", Kind::Text),
        ("scope", Kind::Text),
        ("transaction_id", Kind::Text),
        ("event_id", Kind::Text),
        ("position", Kind::Int),
        ("used_at", Kind::Int),
    ],
    on_conflict: "",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    events: Vec<(i64, &Arc<StoredEvent>)>,
) -> Result<(), StoreError> {
    let rows = events.into_iter().map(|(position, stored)| {
        let event = &stored.event;
        vec![
            stored.nid.0.into(),
            event.id.as_str().into(),
            stored.room.into(),
            position.into(),
            stored.place.map(|place| place.0).into(),
            (*event.event_type).into(),
            event.state_key.as_deref().into(),
            event.sender.as_str().into(),
            i64::try_from(event.origin_server_ts).unwrap_or(i64::MAX).into(),
            stored.state.map(|state| state.0).into(),
            stored.replaces.map(|nid| nid.0).into(),
            (stored.outcome as i64).into(),
            (stored.notify as i64).into(),
            stored.thread.as_ref().map(|id| id.as_str()).into(),
            stored
                .relation
                .as_ref()
                .map(|relation| relation.to.as_str())
                .into(),
            stored
                .relation
                .as_ref()
                .map(|relation| relation.kind.as_str())
                .into(),
            stored.own.into(),
            (*event.json).into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

pub(in crate::store) async fn redact(
    connection: &mut Connection,
    redaction: &Redaction,
) -> Result<(), StoreError> {
    threads::leave(connection, redaction.target.0).await?;
    query("UPDATE events SET json = $1, redacted_by = $2, relates_to = NULL, relation = NULL, notify = 0 WHERE nid = $3")
        .bind(&*redaction.event.json)
        .bind(redaction.by.as_str())
        .bind(redaction.target.0)
        .run(connection)
        .await
}

pub(in crate::store) async fn store_early_redactions(
    connection: &mut Connection,
    early: Vec<&EarlyRedaction>,
) -> Result<(), StoreError> {
    let rows = early.into_iter().map(|redaction| {
        vec![
            redaction.target.as_str().into(),
            redaction.by.as_str().into(),
            redaction.room.into(),
            redaction.sender.as_str().into(),
        ]
    });
    INSERT_EARLY_REDACTION.rows(connection, rows.collect()).await
}

pub(in crate::store) async fn store_transactions(
    connection: &mut Connection,
    transactions: Vec<(i64, &NewTransaction)>,
) -> Result<(), StoreError> {
    let rows = transactions.into_iter().map(|(position, transaction)| {
        vec![
            transaction.user_id.as_str().into(),
            transaction.device_id.as_str().into(),
            transaction.scope.as_str().into(),
            transaction.transaction_id.as_str().into(),
            transaction.event_id.as_str().into(),
            position.into(),
            i64::try_from(transaction.used_at).unwrap_or(i64::MAX).into(),
        ]
    });
    INSERT_TRANSACTION.rows(connection, rows.collect()).await
}

/// Parts of a long answer that are read at the same time.
const READ_AT_ONCE: usize = 3;

/// The columns every read of whole events selects, in this order; a query names `events` and `rooms`.
macro_rules! SELECT {
    () => {
        "SELECT events.nid, events.event_id, events.room, events.position, events.place, events.state, \
         events.replaces, events.outcome, events.notify, events.thread, events.relates_to, events.relation, \
         events.redacted_by, events.json, rooms.room_id, events.own FROM "
    };
}
/// A read of whole events.
macro_rules! select_events {
    ($rest:literal) => {
        concat!(SELECT!(), "events JOIN rooms ON rooms.nid = events.room ", $rest)
    };
}
pub(in crate::store) use SELECT;
pub(in crate::store) use select_events;

/// The names of those columns, for [`Query::packed`](crate::store::engine::Query::packed).
const EVENT_COLUMNS: &str = "nid, event_id, room, position, place, state, replaces, outcome, notify, thread, relates_to, \
                             relation, redacted_by, json, room_id, own";

fn read(row: &Row) -> Result<Arc<StoredEvent>, StoreError> {
    let nid = row.get::<i64>(0)?;
    let bad = |what: String| StoreError::corrupt("events", format!("{nid}: {what}"));
    let event_id = |text: String| OwnedEventId::try_from(text).map_err(|error| bad(error.to_string()));
    let room_id = OwnedRoomId::try_from(row.get::<String>(14)?).map_err(|error| bad(error.to_string()))?;
    let event = Event::from_stored(event_id(row.get(1)?)?, room_id, row.get::<String>(13)?.into());
    let relation = match (row.get::<Option<String>>(10)?, row.get::<Option<String>>(11)?) {
        (Some(to), Some(kind)) => Some(Relation {
            to: event_id(to)?,
            kind,
        }),
        _ => None,
    };
    Ok(Arc::new(StoredEvent {
        event: Arc::new(event.map_err(|error| bad(error.to_string()))?),
        nid: EventNid(nid),
        room: row.get(2)?,
        position: OnceLock::from(Position(row.get(3)?)),
        place: row.get::<Option<i64>>(4)?.map(Place),
        state: row.get::<Option<i64>>(5)?.map(StateNid),
        replaces: row.get::<Option<i64>>(6)?.map(EventNid),
        outcome: match row.get::<i64>(7)? {
            0 => Outcome::Accepted,
            1 => Outcome::SoftFailed,
            _ => Outcome::Rejected,
        },
        notify: Notify::from_number(row.get(8)?),
        thread: row.get::<Option<String>>(9)?.map(event_id).transpose()?,
        relation,
        redacted_by: row.get::<Option<String>>(12)?.map(event_id).transpose()?,
        own: row.get(15)?,
    }))
}

pub(in crate::store) fn read_all(rows: &[Row]) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
    rows.iter().map(read).collect()
}

/// Which way a timeline is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From newer to older.
    Backward,
    /// From older to newer.
    Forward,
}

impl Direction {
    /// Where reading goes on after an event at this place, as [`RoomTables::timeline`] takes it.
    fn beyond(self, place: Place) -> Place {
        match self {
            Self::Backward => place,
            Self::Forward => Place(place.0.saturating_add(1)),
        }
    }
}

/// Reads the parts of a long answer, a few at a time: while this thread parses one, the database finds the next.
async fn side_by_side(
    reads: Vec<impl Future<Output = Result<Vec<Arc<StoredEvent>>, StoreError>>>,
) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
    let parts = stream::iter(reads).buffered(READ_AT_ONCE);
    let parts: Vec<_> = parts.try_collect().await?;
    Ok(parts.into_iter().flatten().collect())
}

/// Events by their local numbers.
pub(in crate::store) async fn by_nid(
    readers: &Readers,
    nids: &[EventNid],
) -> Result<HashMap<EventNid, Arc<StoredEvent>>, StoreError> {
    let parts = nids.chunks(row_packing::ROWS).map(|part| {
        let part: Vec<i64> = part.iter().map(|nid| nid.0).collect();
        read_packed(
            readers,
            query(select_events!("WHERE events.nid = ANY($1)")).bind(part),
        )
    });
    let events = side_by_side(parts.collect()).await?;
    Ok(events.into_iter().map(|stored| (stored.nid, stored)).collect())
}

/// Events after a local number, by number; `limit` at most.
pub(in crate::store) async fn after_nid(
    readers: &Readers,
    nid: EventNid,
    limit: usize,
) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
    let page = query(select_events!(
        "WHERE events.nid > $1 ORDER BY events.nid LIMIT $2"
    ));
    let limit = limit.min(row_packing::ROWS);
    read_packed(
        readers,
        page.bind(nid.0).bind(i64::try_from(limit).unwrap_or(i64::MAX)),
    )
    .await
}

async fn read_packed(readers: &Readers, query: Query) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
    read_all(&query.packed(EVENT_COLUMNS, readers).await?)
}

/// The transaction ids that were used from one position to another, both included.
pub(in crate::store) async fn transactions_between(
    readers: &Readers,
    from: Position,
    to: Position,
) -> Result<BTreeMap<Position, NewTransaction>, StoreError> {
    let rows = query(
        "SELECT position, user_id, device_id, scope, transaction_id, event_id, used_at FROM transactions \
         WHERE position >= $1 AND position <= $2",
    );
    let bad = |error: ruma::IdParseError| StoreError::corrupt("transactions", error);
    let read = |row: &Row| {
        let transaction = NewTransaction {
            user_id: row.get::<String>(1)?.try_into().map_err(bad)?,
            device_id: row.get(2)?,
            scope: row.get(3)?,
            transaction_id: row.get(4)?,
            event_id: row.get::<String>(5)?.try_into().map_err(bad)?,
            used_at: u64::try_from(row.get::<i64>(6)?).unwrap_or(0),
        };
        Ok((Position(row.get(0)?), transaction))
    };
    let rows = rows.bind(from.0).bind(to.0).all(readers).await?;
    rows.iter().map(read).collect()
}

impl RoomTables {
    /// An event by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn event(&self, event_id: &EventId) -> Result<Option<Arc<StoredEvent>>, StoreError> {
        let row = query(select_events!("WHERE events.event_id = $1")).bind(event_id.as_str());
        row.optional(&self.readers).await?.as_ref().map(read).transpose()
    }

    /// Events by their ids; those that are not stored are left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_by_id(&self, ids: Vec<String>) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        read_all(
            &query(select_events!("WHERE events.event_id = ANY($1)"))
                .bind(ids)
                .all(&self.readers)
                .await?,
        )
    }

    /// Whether any of these events is here, or was redacted in a room before it came.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn heard_of_any(&self, room: i64, ids: Vec<String>) -> Result<bool, StoreError> {
        let row = query(
            "SELECT nid FROM events WHERE event_id = ANY($1) \
             UNION ALL SELECT room FROM early_redactions WHERE target = ANY($1) AND room = $2 LIMIT 1",
        );
        let row = row.bind(ids).bind(room).optional(&self.readers).await?;
        Ok(row.is_some())
    }

    /// Redactions of a room that came before these events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn early_redactions(
        &self,
        room: i64,
        targets: Vec<String>,
    ) -> Result<Vec<EarlyRedaction>, StoreError> {
        let rows = query(
            "SELECT target, redaction, sender FROM early_redactions WHERE target = ANY($1) AND room = $2 \
             ORDER BY target, redaction",
        );
        let rows = rows.bind(targets).bind(room).all(&self.readers).await?;
        let bad = |error: ruma::IdParseError| StoreError::corrupt("early_redactions", error);
        rows.iter()
            .map(|row| {
                Ok(EarlyRedaction {
                    room,
                    target: row.get::<String>(0)?.try_into().map_err(bad)?,
                    by: row.get::<String>(1)?.try_into().map_err(bad)?,
                    sender: row.get::<String>(2)?.try_into().map_err(bad)?,
                })
            })
            .collect()
    }

    /// Events by their local numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_by_nid(
        &self,
        nids: &[EventNid],
    ) -> Result<HashMap<EventNid, Arc<StoredEvent>>, StoreError> {
        by_nid(&self.readers, nids).await
    }

    async fn read_events(&self, query: Query) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        read_packed(&self.readers, query).await
    }

    /// Up to `limit` accepted timeline events of a room, next to a place: those below `from` going backward, those
    /// at or above it going forward. Costs grow with `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn timeline(
        &self,
        room: i64,
        from: Place,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let sql = match direction {
            Direction::Backward => {
                select_events!(
                    "WHERE events.room = $1 AND events.place < $2 AND events.outcome = 0 \
                     ORDER BY events.place DESC LIMIT $3"
                )
            }
            Direction::Forward => {
                select_events!(
                    "WHERE events.room = $1 AND events.place >= $2 AND events.outcome = 0 \
                     ORDER BY events.place ASC LIMIT $3"
                )
            }
        };
        let (mut from, mut events) = (from, Vec::new());
        loop {
            let wanted = limit.saturating_sub(events.len()).min(row_packing::ROWS);
            let rows = i64::try_from(wanted).unwrap_or(i64::MAX);
            let part = self
                .read_events(query(sql).bind(room).bind(from.0).bind(rows))
                .await?;
            let is_last = part.len() < wanted || events.len() + wanted >= limit;
            events.extend(part);
            match events.last().and_then(|stored| stored.place) {
                Some(place) if !is_last => from = direction.beyond(place),
                _ => return Ok(events),
            }
        }
    }

    /// The accepted timeline events of many rooms at once: for each room, those from one place up to another, of which
    /// there are about `each`, in order of place. Costs grow with the events returned.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn timelines(
        &self,
        ranges: &[(i64, Place, Place)],
        each: i64,
    ) -> Result<HashMap<i64, Vec<Arc<StoredEvent>>>, StoreError> {
        let sql = if self.readers.is_sqlite() {
            select_events!(
                "JOIN json_each($1) AS range ON events.room = json_extract(range.value, '$[0]') \
                 AND events.place >= json_extract(range.value, '$[1]') \
                 AND events.place <= json_extract(range.value, '$[2]') \
                 WHERE events.outcome = 0 ORDER BY events.room, events.place"
            )
        } else {
            concat!(
                SELECT!(),
                // The offset keeps the ranges apart: one plan for all of them would read the rooms whole.
                "json_array_elements($1::json) AS range (value) CROSS JOIN LATERAL (SELECT * FROM events AS e \
                 WHERE e.room = (range.value->>0)::bigint AND e.place >= (range.value->>1)::bigint \
                 AND e.place <= (range.value->>2)::bigint OFFSET 0) AS events \
                 JOIN rooms ON rooms.nid = events.room \
                 WHERE events.outcome = 0 ORDER BY events.room, events.place"
            )
        };
        let rooms = row_packing::ROWS / usize::try_from(each).unwrap_or(0).clamp(1, row_packing::ROWS);
        let mut reads = Vec::new();
        for part in ranges.chunks(rooms) {
            let part: Vec<(i64, i64, i64)> = part
                .iter()
                .map(|(room, from, to)| (*room, from.0, to.0))
                .collect();
            let part = serde_json::to_string(&part).map_err(StoreError::encoding)?;
            reads.push(self.read_events(query(sql).bind(part)));
        }
        let mut timelines: HashMap<i64, Vec<_>> = HashMap::new();
        for stored in side_by_side(reads).await? {
            timelines.entry(stored.room).or_default().push(stored);
        }
        Ok(timelines)
    }

    /// The event that a transaction id became, if it was used.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transaction(
        &self,
        user_id: &ruma::UserId,
        device_id: &str,
        scope: &str,
        transaction_id: &str,
    ) -> Result<Option<OwnedEventId>, StoreError> {
        let row = query(
            "SELECT event_id FROM transactions \
             WHERE user_id = $1 AND device_id = $2 AND scope = $3 AND transaction_id = $4",
        );
        let row = row
            .bind(user_id.as_str())
            .bind(device_id)
            .bind(scope)
            .bind(transaction_id);
        let Some(row) = row.optional(&self.readers).await? else {
            return Ok(None);
        };
        let id = row
            .get::<String>(0)?
            .try_into()
            .map_err(|error| StoreError::corrupt("transactions", error))?;
        Ok(Some(id))
    }

    /// The transaction ids that a device has used, with their scopes; at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transactions_of(
        &self,
        user_id: &ruma::UserId,
        device_id: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let rows = query(
            "SELECT scope, transaction_id FROM transactions WHERE user_id = $1 AND device_id = $2 LIMIT $3",
        );
        let rows = rows
            .bind(user_id.as_str())
            .bind(device_id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let id = |row: &Row| Ok((row.get(0)?, row.get(1)?));
        rows.all(&self.readers).await?.iter().map(id).collect()
    }

    /// Forgets transaction ids that were used before a time, in milliseconds since 1970, as long as the oldest
    /// `step` ids are all that old; how many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget_transactions(&self, before_ms: u64, step: usize) -> Result<u64, StoreError> {
        let before = i64::try_from(before_ms).unwrap_or(i64::MAX);
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let mut forgotten = 0;
        loop {
            let oldest = query(
                "SELECT MAX(position), MAX(used_at) FROM \
                 (SELECT position, used_at FROM transactions ORDER BY position LIMIT $1) AS oldest",
            );
            let row = oldest.bind(step).optional(&self.readers).await?;
            let up_to = match row {
                Some(row) if row.get::<Option<i64>>(1)?.is_some_and(|newest| newest < before) => {
                    row.get::<i64>(0)?
                }
                _ => return Ok(forgotten),
            };
            let delete = query("DELETE FROM transactions WHERE position <= $1").bind(up_to);
            forgotten += self
                .log
                .transact_unlogged(|tx| Box::pin(async move { delete.execute(&mut tx.connection).await }))
                .await?;
        }
    }
}
