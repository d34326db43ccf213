//! Reads by log position: what a cursor has not seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use maru_protocol::state::EventNid;
use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::engine::{Row, query};
use crate::store::rooms::RoomTables;
use crate::store::rooms::events::{SELECT, StoredEvent, read_all, select_events};

/// A part of a room's timeline, as one position saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins; none when it is empty.
    pub first: Option<Place>,
    /// Where the room's live timeline ended.
    pub last: Place,
}

impl RoomTables {
    /// Which part of each room's timeline came after the position that stands with it and up to `until`, and where the
    /// timeline ended then. Rooms without a live event by then are left out. Two index searches a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stretches(
        &self,
        rooms: &[(i64, Position)],
        until: Position,
    ) -> Result<HashMap<i64, Stretch>, StoreError> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        // Live in the words of `Place::is_live`.
        macro_rules! stretches {
            ($rooms:literal) => {
                concat!(
                    "SELECT r.nid, (SELECT e.place FROM events AS e WHERE e.room = r.nid AND e.position > r.since \
                       AND e.position <= $2 AND e.place >= 1 AND (e.place - 1) % 4294967296 < 2147483648 \
                       ORDER BY e.position LIMIT 1) AS first, \
                     (SELECT e.place FROM events AS e WHERE e.room = r.nid \
                       AND e.position <= $2 AND e.place >= 1 AND (e.place - 1) % 4294967296 < 2147483648 \
                       ORDER BY e.position DESC LIMIT 1) AS last FROM ",
                    $rooms
                )
            };
        }
        let sql = if self.readers.is_sqlite() {
            stretches!(
                // An object, whose members come apart without being searched.
                "(SELECT CAST(room.key AS INTEGER) AS nid, room.value AS since FROM json_each($1) AS room) AS r"
            )
        } else {
            stretches!(
                "(SELECT room.key::bigint AS nid, room.value::bigint AS since \
                  FROM json_each_text($1::json) AS room (key, value)) AS r"
            )
        };
        let since: BTreeMap<i64, i64> = rooms.iter().map(|(room, since)| (*room, since.0)).collect();
        let since = serde_json::to_string(&since).map_err(StoreError::encoding)?;
        let rows = query(sql).bind(since).bind(until.0).all(&self.readers).await?;
        let mut stretches = HashMap::new();
        for row in rows {
            if let Some(last) = row.get::<Option<i64>>(2)? {
                let first = row.get::<Option<i64>>(1)?.map(Place);
                let last = Place(last);
                stretches.insert(row.get(0)?, Stretch { first, last });
            }
        }
        Ok(stretches)
    }

    /// When something last happened in each of these rooms: the position of the newest head.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn activity(&self, rooms: Vec<i64>) -> Result<HashMap<i64, Position>, StoreError> {
        let rows = query("SELECT room, position FROM room_heads WHERE room = ANY($1)").bind(rooms);
        let read = |row: &Row| Ok((row.get(0)?, Position(row.get(1)?)));
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// When somebody last said something in each of these rooms: the position of the newest event of the types by which
    /// clients sort rooms (MSC4186, `bump_stamp`). Where none of the newest hundred events is of these, that of the oldest
    /// of them. One index search a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn bump_stamps(&self, rooms: Vec<i64>) -> Result<HashMap<i64, Position>, StoreError> {
        let rows = query(
            "SELECT r.nid, (SELECT COALESCE(MAX(CASE WHEN newest.type IN ('m.room.create', 'm.room.message', \
               'm.room.encrypted', 'm.sticker', 'm.call.invite', 'm.poll.start', 'm.beacon_info') \
               THEN newest.position END), MIN(newest.position)) \
               FROM (SELECT e.type, e.position FROM events AS e WHERE e.room = r.nid AND e.place >= 1 \
                     ORDER BY e.place DESC LIMIT 100) AS newest) \
             FROM rooms AS r WHERE r.nid = ANY($1)",
        );
        let mut stamps = HashMap::new();
        for row in rows.bind(rooms).all(&self.readers).await? {
            if let Some(stamp) = row.get::<Option<i64>>(1)? {
                stamps.insert(row.get(0)?, Position(stamp));
            }
        }
        Ok(stamps)
    }

    /// The accepted state events of a room from one place up to, and without, another, oldest first. Costs grow with
    /// the state events there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn state_events_between(
        &self,
        room: i64,
        from: Place,
        to: Place,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let rows = query(select_events!(
            "WHERE events.room = $1 AND events.place >= $2 AND events.place < $3 \
             AND events.state_key IS NOT NULL AND events.outcome = 0 ORDER BY events.place"
        ));
        read_all(&rows.bind(room).bind(from.0).bind(to.0).all(&self.readers).await?)
    }

    /// Those of these events that are no memberships. Costs grow with the events asked for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn without_members(&self, events: &[EventNid]) -> Result<Vec<EventNid>, StoreError> {
        let nids: Vec<i64> = events.iter().map(|nid| nid.0).collect();
        let rows = query("SELECT nid FROM events WHERE nid = ANY($1) AND type <> 'm.room.member'").bind(nids);
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| Ok(EventNid(row.get(0)?)))
            .collect()
    }

    /// Where in each room's timeline a user joined who has been there since. One index search a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn joined_places(
        &self,
        user_id: &UserId,
        rooms: Vec<i64>,
    ) -> Result<Vec<(i64, Place)>, StoreError> {
        // Live in the words of `Place::is_live`.
        let rows = query(
            "SELECT m.room, COALESCE((SELECT e.place FROM events AS e WHERE e.room = m.room \
               AND e.position <= m.joined_at AND e.place >= 1 AND (e.place - 1) % 4294967296 < 2147483648 \
               ORDER BY e.position DESC LIMIT 1), 0) \
             FROM memberships AS m WHERE m.user_id = $1 AND m.room = ANY($2) AND m.membership = 'join'",
        );
        let rows = rows.bind(user_id.as_str()).bind(rooms).all(&self.readers).await?;
        rows.iter()
            .map(|row| Ok((row.get(0)?, Place(row.get(1)?))))
            .collect()
    }

    /// Which of these users share no joined room with the caller.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn strangers_to(
        &self,
        user_id: &UserId,
        others: &[OwnedUserId],
    ) -> Result<Vec<OwnedUserId>, StoreError> {
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = others.iter().map(ToString::to_string).collect();
        let rows = query(
            "SELECT DISTINCT theirs.user_id FROM memberships AS theirs JOIN memberships AS mine \
             ON mine.room = theirs.room WHERE theirs.user_id = ANY($2) AND theirs.membership = 'join' \
             AND mine.user_id = $1 AND mine.membership = 'join'",
        );
        let shared = read_users(&rows.bind(user_id.as_str()).bind(names).all(&self.readers).await?)?;
        Ok(others
            .iter()
            .filter(|user_id| !shared.contains(user_id))
            .cloned()
            .collect())
    }

    /// Up to `limit` members of each room who are joined or invited, without one user, in order of arrival: the heroes
    /// of rooms without a name. Costs grow with the members of the rooms asked for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn heroes(
        &self,
        rooms: Vec<i64>,
        without: &UserId,
        limit: usize,
    ) -> Result<HashMap<i64, Vec<OwnedUserId>>, StoreError> {
        let mut heroes: HashMap<i64, Vec<OwnedUserId>> = HashMap::new();
        if rooms.is_empty() {
            return Ok(heroes);
        }
        let rows = query(
            "SELECT room, user_id FROM (SELECT room, user_id, ROW_NUMBER() OVER (PARTITION BY room ORDER BY position) AS n \
             FROM memberships WHERE room = ANY($1) AND user_id <> $2 AND membership IN ('join', 'invite')) AS numbered \
             WHERE n <= $3 ORDER BY room, n",
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        for row in rows
            .bind(rooms)
            .bind(without.as_str())
            .bind(limit)
            .all(&self.readers)
            .await?
        {
            let user_id: String = row.get(1)?;
            let user_id = user_id
                .try_into()
                .map_err(|error| StoreError::corrupt("memberships", error))?;
            heroes.entry(row.get(0)?).or_default().push(user_id);
        }
        Ok(heroes)
    }
}

pub(in crate::store) fn read_users(rows: &[Row]) -> Result<Vec<OwnedUserId>, StoreError> {
    let user = |row: &Row| {
        row.get::<String>(0)?
            .try_into()
            .map_err(|error| StoreError::corrupt("memberships", error))
    };
    rows.iter().map(user).collect()
}
