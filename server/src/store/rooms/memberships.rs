//! Memberships in the current state of rooms: table `memberships`.

use std::collections::{HashMap, HashSet};

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use ruma::{OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, Value, query};
use crate::store::rooms::RoomTables;

/// A membership in a room's current state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The room (rooms.nid).
    pub room: i64,
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// `join`, `invite`, `leave`, `ban` or `knock`.
    pub membership: String,
    /// The membership event.
    pub event: EventNid,
    /// JSON array of stripped state, for invites and knocks of rooms that this server is not in.
    pub stripped_state: Option<String>,
}

/// A membership as it is read back.
#[derive(Clone, Debug)]
pub struct StoredMembership {
    /// The membership.
    pub membership: Membership,
    /// The room's id.
    pub room_id: OwnedRoomId,
    /// When this server learnt of it.
    pub position: Position,
    /// When the user joined last, who has been joined from then on, or was until something ended it; 0 for never.
    pub joined_at: Position,
    /// Whether the user has forgotten the room.
    pub forgotten: bool,
}

static UPSERT: Insert = Insert {
    table: "memberships",
    columns: &[
        ("room", Kind::Int),
        ("user_id", Kind::Text),
        ("membership", Kind::Text),
        ("event", Kind::Int),
        ("position", Kind::Int),
        ("forgotten", Kind::Int),
        ("stripped_state", Kind::Text),
        ("joined_at", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (room, user_id) DO UPDATE SET membership = excluded.membership, event = excluded.event, \
                  position = excluded.position, forgotten = 0, stripped_state = excluded.stripped_state, \
                  joined_at = CASE WHEN excluded.membership = 'join' AND memberships.membership <> 'join' \
                  THEN excluded.joined_at ELSE memberships.joined_at END",
};

/// Stores memberships, in log order: of each user in each room the last one. One statement, and one more for each time
/// that somebody comes and goes within the batch, since who was not joined for a moment has joined anew.
pub(in crate::store) async fn store(
    connection: &mut Connection,
    memberships: impl Iterator<Item = (i64, &Membership)> + Send,
) -> Result<(), StoreError> {
    let mut rounds: Vec<HashMap<_, (i64, i64, &Membership)>> = Vec::new();
    let mut last: HashMap<_, (usize, bool)> = HashMap::new();
    for (position, membership) in memberships {
        let key = (membership.room, &*membership.user_id);
        let is_join = membership.membership == "join";
        let round = match last.get(&key) {
            Some((round, was_join)) => round + usize::from(*was_join != is_join),
            None => 0,
        };
        last.insert(key, (round, is_join));
        if rounds.len() == round {
            rounds.push(HashMap::new());
        }
        if let Some(rows) = rounds.get_mut(round) {
            let first = rows.get(&key).map_or(position, |(first, ..)| *first);
            rows.insert(key, (first, position, membership));
        }
    }
    for rows in rounds {
        let rows = rows
            .into_values()
            .map(|(first, position, membership)| membership_row(first, position, membership));
        UPSERT.rows(&mut *connection, rows.collect()).await?;
    }
    Ok(())
}

/// `first` is the position of the first of several equal memberships in a row.
fn membership_row(first: i64, position: i64, membership: &Membership) -> Vec<Value> {
    let is_join = membership.membership == "join";
    vec![
        membership.room.into(),
        membership.user_id.as_str().into(),
        membership.membership.as_str().into(),
        membership.event.0.into(),
        position.into(),
        false.into(),
        membership.stripped_state.clone().into(),
        (if is_join { first } else { 0 }).into(),
    ]
}

fn read_membership(row: &Row) -> Result<StoredMembership, StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("memberships", error);
    Ok(StoredMembership {
        membership: Membership {
            room: row.get(0)?,
            user_id: row.get::<String>(1)?.try_into().map_err(bad)?,
            membership: row.get(2)?,
            event: EventNid(row.get(3)?),
            stripped_state: row.get(6)?,
        },
        position: Position(row.get(4)?),
        joined_at: Position(row.get(8)?),
        forgotten: row.get(5)?,
        room_id: row.get::<String>(7)?.try_into().map_err(bad)?,
    })
}

impl RoomTables {
    /// A user's membership in a room, if there ever was one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn membership(
        &self,
        room: i64,
        user_id: &UserId,
    ) -> Result<Option<StoredMembership>, StoreError> {
        let row = query(
            "SELECT m.room, m.user_id, m.membership, m.event, m.position, m.forgotten, m.stripped_state, rooms.room_id, m.joined_at \
             FROM memberships AS m JOIN rooms ON rooms.nid = m.room WHERE m.room = $1 AND m.user_id = $2",
        );
        let row = row.bind(room).bind(user_id.as_str());
        row.optional(&self.readers)
            .await?
            .as_ref()
            .map(read_membership)
            .transpose()
    }

    /// All memberships of a user. Costs grow with the rooms the user was ever in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn memberships_of(&self, user_id: &UserId) -> Result<Vec<StoredMembership>, StoreError> {
        let rows = query(
            "SELECT m.room, m.user_id, m.membership, m.event, m.position, m.forgotten, m.stripped_state, rooms.room_id, m.joined_at \
             FROM memberships AS m JOIN rooms ON rooms.nid = m.room WHERE m.user_id = $1 ORDER BY m.position",
        );
        rows.bind(user_id.as_str())
            .all(&self.readers)
            .await?
            .iter()
            .map(read_membership)
            .collect()
    }

    /// The members of a room with one of these memberships. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn members(
        &self,
        room: i64,
        memberships: &[&str],
    ) -> Result<Vec<StoredMembership>, StoreError> {
        let memberships: Vec<String> = memberships.iter().map(|text| (*text).to_owned()).collect();
        let rows = query(
            "SELECT m.room, m.user_id, m.membership, m.event, m.position, m.forgotten, m.stripped_state, rooms.room_id, m.joined_at \
             FROM memberships AS m JOIN rooms ON rooms.nid = m.room \
             WHERE m.room = $1 AND m.membership = ANY($2) ORDER BY m.position",
        );
        rows.bind(room)
            .bind(memberships)
            .all(&self.readers)
            .await?
            .iter()
            .map(read_membership)
            .collect()
    }

    /// The users of a server who are or were something to a room. Costs grow with everybody who ever was.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn members_of_server(
        &self,
        room: i64,
        server_name: &ServerName,
    ) -> Result<Vec<OwnedUserId>, StoreError> {
        let rows = query("SELECT user_id FROM memberships WHERE room = $1").bind(room);
        let mut users = Vec::new();
        for row in rows.all(&self.readers).await? {
            let user_id = OwnedUserId::try_from(row.get::<String>(0)?);
            let user_id = user_id.map_err(|error| StoreError::corrupt("memberships", error))?;
            if user_id.server_name() == server_name {
                users.push(user_id);
            }
        }
        Ok(users)
    }

    /// The joined users of rooms. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn joined_members(
        &self,
        rooms: Vec<i64>,
    ) -> Result<HashMap<i64, HashSet<OwnedUserId>>, StoreError> {
        let rows =
            query("SELECT room, user_id FROM memberships WHERE room = ANY($1) AND membership = 'join'");
        let mut members: HashMap<i64, HashSet<_>> = HashMap::new();
        for row in rows.bind(rooms).all(&self.readers).await? {
            let user_id = row.get::<String>(1)?.try_into();
            let user_id = user_id.map_err(|error| StoreError::corrupt("memberships", error))?;
            members.entry(row.get(0)?).or_default().insert(user_id);
        }
        Ok(members)
    }

    /// The memberships in rooms that have changed after a position. Costs grow with all who are or were in these rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn memberships_since(
        &self,
        rooms: Vec<i64>,
        after: Position,
    ) -> Result<Vec<StoredMembership>, StoreError> {
        let rows = query(
            "SELECT m.room, m.user_id, m.membership, m.event, m.position, m.forgotten, m.stripped_state, rooms.room_id, m.joined_at \
             FROM memberships AS m JOIN rooms ON rooms.nid = m.room WHERE m.room = ANY($1) AND m.position > $2",
        );
        let rows = rows.bind(rooms).bind(after.0);
        rows.all(&self.readers)
            .await?
            .iter()
            .map(read_membership)
            .collect()
    }

    /// The rooms that these users are in. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_joined_by(&self, users: Vec<String>) -> Result<Vec<(OwnedUserId, i64)>, StoreError> {
        let rows =
            query("SELECT user_id, room FROM memberships WHERE user_id = ANY($1) AND membership = 'join'");
        let read = |row: &Row| {
            let user_id = row.get::<String>(0)?.try_into();
            let user_id = user_id.map_err(|error| StoreError::corrupt("memberships", error))?;
            Ok((user_id, row.get(1)?))
        };
        rows.bind(users)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// Drops a room that the user has left from the user's account; false when the user is not out of it.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget(&self, room: i64, user_id: &UserId) -> Result<bool, StoreError> {
        let user_id = user_id.to_string();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let update = query(
                        "UPDATE memberships SET forgotten = 1 \
                     WHERE room = $1 AND user_id = $2 AND membership IN ('leave', 'ban')",
                    );
                    Ok(update
                        .bind(room)
                        .bind(user_id)
                        .execute(&mut tx.connection)
                        .await?
                        > 0)
                })
            })
            .await
    }
}
