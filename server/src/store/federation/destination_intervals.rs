//! Which peer is sent which events: intervals of log positions, by server and room.
//!
//! An interval is written in the commit that stores the event which opens or closes it, so the destinations of every
//! event are fixed when it is stored. A peer's cursor is read by room and position within its intervals; the log is never
//! scanned.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::Position;
use maru_protocol::destinations::Interested;
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::engine::{Connection, Row, query};
use crate::store::federation::FederationTables;
use crate::store::rooms::events::{SELECT, StoredEvent, read_all, select_events};

/// Positions of the log that are looked at together for a peer, from its next event on.
const WINDOW: i64 = 2_048;

/// A change of a server's interest in a room, at the event before it in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// The room (rooms.nid).
    pub room: i64,
    /// Which server.
    pub server_name: OwnedServerName,
    /// How it changes.
    pub change: Interested,
}

pub(in crate::store) async fn store(
    connection: &mut Connection,
    interests: Vec<(i64, &Interest)>,
) -> Result<(), StoreError> {
    for (position, interest) in interests {
        let sql = match interest.change {
            Interested::From => {
                "INSERT INTO interests (server_name, room, from_position) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
            }
            Interested::Until => {
                "UPDATE interests SET to_position = $3 WHERE server_name = $1 AND room = $2 AND to_position IS NULL"
            }
            Interested::Once => {
                "INSERT INTO interests (server_name, room, from_position, to_position) VALUES ($1, $2, $3, $3) \
                 ON CONFLICT DO NOTHING"
            }
        };
        query(sql)
            .bind(interest.server_name.as_str())
            .bind(interest.room)
            .bind(position)
            .run(connection)
            .await?;
    }
    Ok(())
}

/// Positions of the log whose own events of a room a server is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first.
    pub from: Position,
    /// The last; none while it lasts.
    pub until: Option<Position>,
}

impl Interval {
    /// Whether an event at a position falls into it.
    #[must_use]
    pub fn holds(&self, at: Position) -> bool {
        at >= self.from && self.until.is_none_or(|until| at <= until)
    }
}

/// A room whose events a peer has not been sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The room (rooms.nid).
    pub room: i64,
    /// Its first own event after the peer's cursor, within the peer's interest.
    pub next: Position,
}

fn read_name(row: &Row) -> Result<OwnedServerName, StoreError> {
    let name = row.get::<String>(0)?.try_into();
    name.map_err(|error| StoreError::corrupt("interests", error))
}

impl FederationTables {
    /// The rooms in which a peer has something to come after a position, in the order of what comes first. Costs grow
    /// with the peer's intervals, not with the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn waiting_for(&self, peer: &ServerName, after: Position) -> Result<Vec<Waiting>, StoreError> {
        let rows = query(
            "SELECT room, next FROM ( \
               SELECT i.room AS room, i.to_position AS until, \
                 (SELECT MIN(e.position) FROM events AS e WHERE e.room = i.room AND e.own = 1 \
                   AND e.position > $2 AND e.position >= i.from_position) AS next \
               FROM interests AS i WHERE i.server_name = $1 AND (i.to_position IS NULL OR i.to_position > $2) \
             ) AS waiting WHERE next IS NOT NULL AND (until IS NULL OR next <= until) ORDER BY next",
        );
        let rows = rows.bind(peer.as_str()).bind(after.0).all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    room: row.get(0)?,
                    next: Position(row.get(1)?),
                })
            })
            .collect()
    }

    /// This server's events that a peer is to be sent after a position, in log order, `limit` at most, and the position
    /// up to which they are all. Empty when nothing waits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_for(
        &self,
        peer: &ServerName,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<Arc<StoredEvent>>, Position), StoreError> {
        // What is durable now is all in the answer; what comes while it is read may be missing.
        let durable = self.log.position();
        let waiting = self.waiting_for(peer, after).await?;
        let Some(first) = waiting.first() else {
            return Ok((Vec::new(), durable.max(after)));
        };
        let end = Position((first.next.0 + WINDOW).min(durable.0));
        let rooms: Vec<i64> = waiting
            .iter()
            .filter(|waiting| waiting.next <= end)
            .map(|waiting| waiting.room)
            .collect();
        let rows = query(select_events!(
            "JOIN interests AS i ON i.room = events.room AND i.server_name = $1 \
               AND events.position >= i.from_position AND (i.to_position IS NULL OR events.position <= i.to_position) \
             WHERE events.room = ANY($2) AND events.own = 1 AND events.position > $3 AND events.position <= $4 \
             ORDER BY events.position LIMIT $5"
        ));
        let rows = rows
            .bind(peer.as_str())
            .bind(rooms)
            .bind(after.0)
            .bind(end.0)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .all(&self.readers)
            .await?;
        let mut events = read_all(&rows)?;
        let full = events.len() >= limit;
        events.dedup_by_key(|stored| stored.nid);
        let reached = match events.last().and_then(|stored| stored.position()) {
            Some(last) if full => last,
            _ => end.max(after),
        };
        Ok((events, reached))
    }

    /// A server's intervals in some rooms, but for those that ended at a position or before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn intervals_in(
        &self,
        peer: &ServerName,
        rooms: &[i64],
        after: Position,
    ) -> Result<HashMap<i64, Vec<Interval>>, StoreError> {
        let mut intervals: HashMap<i64, Vec<Interval>> = HashMap::new();
        if rooms.is_empty() {
            return Ok(intervals);
        }
        let rows = query(
            "SELECT room, from_position, to_position FROM interests \
             WHERE server_name = $1 AND room = ANY($2) AND (to_position IS NULL OR to_position > $3)",
        );
        let rows = rows.bind(peer.as_str()).bind(rooms.to_vec()).bind(after.0);
        for row in rows.all(&self.readers).await? {
            intervals.entry(row.get(0)?).or_default().push(Interval {
                from: Position(row.get(1)?),
                until: row.get::<Option<i64>>(2)?.map(Position),
            });
        }
        Ok(intervals)
    }

    /// Whether more than `count` own events of a room come after a position. Costs grow with `count`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn waits_more_than(
        &self,
        room: i64,
        after: Position,
        count: usize,
    ) -> Result<bool, StoreError> {
        let row = query(
            "SELECT nid FROM events WHERE room = $1 AND own = 1 AND position > $2 ORDER BY position LIMIT 1 OFFSET $3",
        );
        let row = row
            .bind(room)
            .bind(after.0)
            .bind(i64::try_from(count).unwrap_or(i64::MAX));
        Ok(row.optional(&self.readers).await?.is_some())
    }

    /// The rooms that a server takes part in now, by this server's account.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_shared_with(&self, peer: &ServerName) -> Result<Vec<(i64, OwnedRoomId)>, StoreError> {
        let rows = query(
            "SELECT rooms.nid, rooms.room_id FROM interests AS i JOIN rooms ON rooms.nid = i.room \
             WHERE i.server_name = $1 AND i.to_position IS NULL ORDER BY rooms.nid",
        );
        rows.bind(peer.as_str())
            .all(&self.readers)
            .await?
            .iter()
            .map(|row| {
                let id = row.get::<String>(1)?.try_into();
                Ok((
                    row.get(0)?,
                    id.map_err(|error| StoreError::corrupt("rooms", error))?,
                ))
            })
            .collect()
    }

    /// When a server's last interest in a room ended, if it had any that lasted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn interest_ended(
        &self,
        room: i64,
        server_name: &ServerName,
    ) -> Result<Option<Position>, StoreError> {
        let row = query(
            "SELECT to_position FROM interests WHERE server_name = $1 AND room = $2 AND to_position > from_position \
             ORDER BY to_position DESC LIMIT 1",
        );
        let row = row.bind(server_name.as_str()).bind(room);
        let row = row.optional(&self.readers).await?;
        row.map(|row| Ok(Position(row.get(0)?))).transpose()
    }

    /// When a server was first in a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn first_interest(
        &self,
        room: i64,
        server_name: &ServerName,
    ) -> Result<Option<Position>, StoreError> {
        let row = query("SELECT MIN(from_position) FROM interests WHERE server_name = $1 AND room = $2");
        let row = row.bind(server_name.as_str()).bind(room);
        let row = row.optional(&self.readers).await?;
        let first = row.map_or(Ok(None), |row| row.get::<Option<i64>>(0))?;
        Ok(first.map(Position))
    }

    /// The rooms in which any other server is interested now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_with_others(&self) -> Result<Vec<OwnedRoomId>, StoreError> {
        let rows = query(
            "SELECT DISTINCT rooms.room_id FROM interests AS i JOIN rooms ON rooms.nid = i.room \
             WHERE i.to_position IS NULL",
        );
        let rows = rows.all(&self.readers).await?;
        let bad = |error: ruma::IdParseError| StoreError::corrupt("rooms", error);
        rows.iter()
            .map(|row| row.get::<String>(0)?.try_into().map_err(bad))
            .collect()
    }

    /// The servers that are interested in a room now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn interested_in(&self, room: i64) -> Result<Vec<OwnedServerName>, StoreError> {
        let rows = query("SELECT server_name FROM interests WHERE room = $1 AND to_position IS NULL");
        rows.bind(room)
            .all(&self.readers)
            .await?
            .iter()
            .map(read_name)
            .collect()
    }

    /// Servers that are in a room with this one: whose interest in one lasts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn interested_servers(&self) -> Result<Vec<OwnedServerName>, StoreError> {
        let rows = query("SELECT DISTINCT server_name FROM interests WHERE to_position IS NULL");
        rows.all(&self.readers).await?.iter().map(read_name).collect()
    }

    /// Other servers for which something may wait: messages to devices, or how they left a room, where that was after a
    /// time (milliseconds since 1970). One that has heard nothing for longer asks when it comes back.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn servers_to_tell(&self, since: i64) -> Result<Vec<OwnedServerName>, StoreError> {
        let rows = query(
            "SELECT server_name FROM peer_waiting WHERE who = '' AND messages > 0 UNION \
             SELECT i.server_name FROM interests AS i \
               JOIN events AS e ON e.room = i.room AND e.position = i.to_position \
               WHERE i.to_position IS NOT NULL AND e.origin_server_ts >= $1",
        );
        rows.bind(since)
            .all(&self.readers)
            .await?
            .iter()
            .map(read_name)
            .collect()
    }

    /// Lets a peer's interest in a room begin anew after a position: what lies before is fetched by the peer.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn skip_to(&self, peer: &ServerName, room: i64, after: Position) -> Result<(), StoreError> {
        let peer = peer.to_string();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let skip = query(
                        "UPDATE interests SET from_position = $3 \
                     WHERE server_name = $1 AND room = $2 AND to_position IS NULL AND from_position <= $3",
                    );
                    let skip = skip.bind(peer).bind(room).bind(after.0 + 1);
                    skip.run(&mut tx.connection).await
                })
            })
            .await
    }
}
