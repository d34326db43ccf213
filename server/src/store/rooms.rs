//! Rooms, their heads, memberships and aliases.
//!
//! Over 500 lines, because heads, memberships and aliases are rows of the same joins, with their types beside them.

pub mod event_sizes;
pub mod events;
pub mod gaps;
pub(super) mod history;
pub mod notifications;
pub(super) mod placeholder_rooms;
pub mod receipts;
pub mod relations;
pub(super) mod shared_rooms;
pub mod state;
pub mod threads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use maru_protocol::ingest::Extremity;
use maru_protocol::state::{EventNid, State, StateNid};
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId,
    ServerName, UserId,
};

use super::engine::{Connection, Insert, Kind, Row, Value, query};
use super::log::{Change, Record};
use super::{Store, StoreError};

/// A room that is new to this server.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// Its local number.
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version, as in `m.room.create`.
    pub version: String,
    /// Whether it is listed in the public directory.
    pub published: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What the next event of a room is built on.
#[derive(Clone, Debug)]
pub struct RoomHead {
    /// The room (rooms.nid).
    pub room: i64,
    /// The forward extremities, each with the state after it.
    pub extremities: Arc<[Extremity]>,
    /// The room's current state.
    pub state: State,
    /// How many joined users each server has. Not stored: counted from the memberships when the room is read.
    pub servers: Arc<BTreeMap<OwnedServerName, u64>>,
    /// The lowest timeline place in use.
    pub first_place: Place,
    /// The highest timeline place in use.
    pub last_place: Place,
    /// The depth of the deepest extremity.
    pub depth: u64,
    /// How many users are joined.
    pub joined: u64,
    /// How many users are invited.
    pub invited: u64,
}

/// A membership in a room's current state.
#[derive(Clone, Debug)]
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

/// A room as it is read back.
#[derive(Clone, Debug)]
pub struct StoredRoom {
    /// Its local number.
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: String,
    /// Whether it is listed in the public directory.
    pub published: bool,
}

/// A name for a room.
#[derive(Clone, Debug)]
pub struct NewAlias {
    /// The name.
    pub alias: OwnedRoomAliasId,
    /// The room (rooms.nid).
    pub room: i64,
    /// Who made it.
    pub creator: OwnedUserId,
}

static INSERT_ROOM: Insert = Insert {
    table: "rooms",
    columns: &[
        ("nid", Kind::Int),
        ("room_id", Kind::Text),
        ("version", Kind::Text),
        ("published", Kind::Int),
        ("created_at", Kind::Int),
    ],
    on_conflict: "",
};

static UPSERT_HEAD: Insert = Insert {
    table: "room_heads",
    columns: &[
        ("room", Kind::Int),
        ("extremities", Kind::Text),
        ("state", Kind::Int),
        ("first_place", Kind::Int),
        ("last_place", Kind::Int),
        ("depth", Kind::Int),
        ("joined", Kind::Int),
        ("invited", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (room) DO UPDATE SET extremities = excluded.extremities, state = excluded.state, \
                  first_place = excluded.first_place, last_place = excluded.last_place, depth = excluded.depth, \
                  joined = excluded.joined, invited = excluded.invited",
};

static UPSERT_MEMBERSHIP: Insert = Insert {
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

static INSERT_ALIAS: Insert = Insert {
    table: "aliases",
    columns: &[
        ("alias", Kind::Text),
        ("room", Kind::Int),
        ("creator", Kind::Text),
    ],
    on_conflict: "",
};

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) async fn store_rooms(connection: &mut Connection, rooms: Vec<&NewRoom>) -> Result<(), StoreError> {
    let rows = rooms.into_iter().map(|room| {
        vec![
            room.nid.into(),
            room.room_id.as_str().into(),
            room.version.as_str().into(),
            room.published.into(),
            room.created_at.into(),
        ]
    });
    INSERT_ROOM.rows(connection, rows.collect()).await
}

fn extremity_ids(head: &RoomHead) -> Result<String, StoreError> {
    let ids: Vec<_> = head.extremities.iter().map(|extremity| &extremity.id).collect();
    serde_json::to_string(&ids).map_err(StoreError::encoding)
}

pub(super) async fn store_heads(
    connection: &mut Connection,
    heads: Vec<&RoomHead>,
) -> Result<(), StoreError> {
    let row = |head: &RoomHead| {
        Ok(vec![
            head.room.into(),
            extremity_ids(head)?.into(),
            head.state.nid().map(|state| state.0).into(),
            head.first_place.0.into(),
            head.last_place.0.into(),
            number(head.depth).into(),
            number(head.joined).into(),
            number(head.invited).into(),
        ])
    };
    let rows: Result<_, StoreError> = heads.into_iter().map(row).collect();
    UPSERT_HEAD.rows(connection, rows?).await
}

/// Stores memberships, in log order: of each user in each room the last one. One statement, and one more for each time
/// that somebody comes and goes within the batch, since who was not joined for a moment has joined anew.
pub(super) async fn store_memberships(
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
        UPSERT_MEMBERSHIP.rows(&mut *connection, rows.collect()).await?;
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

pub(super) async fn store_aliases(
    connection: &mut Connection,
    aliases: Vec<&NewAlias>,
) -> Result<(), StoreError> {
    let rows = aliases.into_iter().map(|alias| {
        vec![
            alias.alias.as_str().into(),
            alias.room.into(),
            alias.creator.as_str().into(),
        ]
    });
    INSERT_ALIAS.rows(connection, rows.collect()).await
}

fn read_room(row: &Row) -> Result<StoredRoom, StoreError> {
    Ok(StoredRoom {
        nid: row.get(0)?,
        room_id: row
            .get::<String>(1)?
            .try_into()
            .map_err(|error| StoreError::corrupt("rooms", error))?,
        version: row.get(2)?,
        published: row.get(3)?,
    })
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

fn read_extremities(row: &Row) -> Result<Vec<OwnedEventId>, StoreError> {
    serde_json::from_str(&row.get::<String>(1)?).map_err(|error| StoreError::corrupt("room_heads", error))
}

/// A head from its row. `states_after` has the states after extremities where there are several; the state after the
/// only one is the room's.
fn read_head(
    row: &Row,
    states: &HashMap<StateNid, State>,
    states_after: &HashMap<OwnedEventId, StateNid>,
) -> Result<RoomHead, StoreError> {
    let count = |index| {
        row.get::<i64>(index)
            .map(|value| u64::try_from(value).unwrap_or(0))
    };
    let state = match row.get::<Option<i64>>(2)? {
        Some(nid) => states
            .get(&StateNid(nid))
            .cloned()
            .ok_or_else(|| StoreError::corrupt("states", format!("{nid} is missing")))?,
        None => State::default(),
    };
    let extremities = read_extremities(row)?.into_iter().map(|id| Extremity {
        state: states_after
            .get(&id)
            .and_then(|nid| states.get(nid))
            .unwrap_or(&state)
            .clone(),
        id,
    });
    Ok(RoomHead {
        room: row.get(0)?,
        extremities: extremities.collect(),
        state,
        servers: Arc::default(),
        first_place: Place(row.get(3)?),
        last_place: Place(row.get(4)?),
        depth: count(5)?,
        joined: count(6)?,
        invited: count(7)?,
    })
}

impl Store {
    /// A room by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room(&self, room_id: &RoomId) -> Result<Option<StoredRoom>, StoreError> {
        let row = query("SELECT nid, room_id, version, published FROM rooms WHERE room_id = $1")
            .bind(room_id.as_str());
        row.optional(&self.readers)
            .await?
            .as_ref()
            .map(read_room)
            .transpose()
    }

    /// A room by its local number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_by_nid(&self, nid: i64) -> Result<Option<StoredRoom>, StoreError> {
        Ok(self.rooms_by_nid(vec![nid]).await?.pop())
    }

    /// Rooms by their local numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_by_nid(&self, nids: Vec<i64>) -> Result<Vec<StoredRoom>, StoreError> {
        let rows = query("SELECT nid, room_id, version, published FROM rooms WHERE nid = ANY($1)").bind(nids);
        rows.all(&self.readers).await?.iter().map(read_room).collect()
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

    /// The rooms listed in the public directory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn published_rooms(&self) -> Result<Vec<StoredRoom>, StoreError> {
        let rows =
            query("SELECT nid, room_id, version, published FROM rooms WHERE published = 1 ORDER BY nid");
        rows.all(&self.readers).await?.iter().map(read_room).collect()
    }

    /// The committed head of a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_head(&self, room: i64) -> Result<Option<RoomHead>, StoreError> {
        Ok(self.room_heads(vec![room]).await?.pop())
    }

    /// The committed heads of rooms, in two queries.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_heads(&self, rooms: Vec<i64>) -> Result<Vec<RoomHead>, StoreError> {
        let rows = query(
            "SELECT room, extremities, state, first_place, last_place, depth, joined, invited \
             FROM room_heads WHERE room = ANY($1)",
        );
        let rows = rows.bind(rooms).all(&self.readers).await?;
        let mut numbers = Vec::with_capacity(rows.len());
        for row in &rows {
            numbers.extend(row.get::<Option<i64>>(2)?.map(StateNid));
        }
        let states_after = self.states_after_forks(&rows).await?;
        numbers.extend(states_after.values());
        let states = match numbers[..] {
            [] => HashMap::new(),
            [only] => HashMap::from([(only, self.state(only).await?)]),
            _ => self.states(numbers).await?,
        };
        rows.iter()
            .map(|row| read_head(row, &states, &states_after))
            .collect()
    }

    /// The states after the extremities of those heads that have several.
    async fn states_after_forks(&self, heads: &[Row]) -> Result<HashMap<OwnedEventId, StateNid>, StoreError> {
        let mut ids = Vec::new();
        for row in heads {
            let extremities = read_extremities(row)?;
            if extremities.len() > 1 {
                ids.extend(extremities.into_iter().map(String::from));
            }
        }
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = query("SELECT event_id, state FROM events WHERE event_id = ANY($1) AND state IS NOT NULL");
        let read = |row: &Row| {
            let id = row.get::<String>(0)?.try_into();
            let id = id.map_err(|error| StoreError::corrupt("events", error))?;
            Ok((id, StateNid(row.get(1)?)))
        };
        rows.bind(ids)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
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

    /// The room that an alias names.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_of_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<Option<(StoredRoom, OwnedUserId)>, StoreError> {
        let row = query(
            "SELECT rooms.nid, rooms.room_id, rooms.version, rooms.published, aliases.creator \
             FROM aliases JOIN rooms ON rooms.nid = aliases.room WHERE aliases.alias = $1",
        );
        let Some(row) = row.bind(alias.as_str()).optional(&self.readers).await? else {
            return Ok(None);
        };
        let creator = row
            .get::<String>(4)?
            .try_into()
            .map_err(|error| StoreError::corrupt("aliases", error))?;
        Ok(Some((read_room(&row)?, creator)))
    }

    /// The aliases of a room on this server.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn aliases_of(&self, room: i64) -> Result<Vec<OwnedRoomAliasId>, StoreError> {
        let rows = query("SELECT alias FROM aliases WHERE room = $1 ORDER BY alias")
            .bind(room)
            .all(&self.readers);
        let alias = |row: &Row| {
            row.get::<String>(0)?
                .try_into()
                .map_err(|error| StoreError::corrupt("aliases", error))
        };
        rows.await?.iter().map(alias).collect()
    }

    /// Stores an alias.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is taken.
    pub async fn add_alias(&self, alias: NewAlias) -> Result<(), StoreError> {
        self.append(Change::new(vec![Record::Alias(alias)]))
            .await
            .map(drop)
    }

    /// Removes an alias; whether it was there.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove_alias(&self, alias: &RoomAliasId) -> Result<bool, StoreError> {
        let alias = alias.to_string();
        self.transact(|tx| {
            Box::pin(async move {
                let removed = query("DELETE FROM aliases WHERE alias = $1")
                    .bind(alias)
                    .execute(&mut tx.connection);
                Ok(removed.await? > 0)
            })
        })
        .await
    }

    /// Makes all aliases of a room name another one.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn move_aliases(&self, from: i64, to: i64) -> Result<(), StoreError> {
        self.transact(move |tx| {
            Box::pin(async move {
                let update = query("UPDATE aliases SET room = $1 WHERE room = $2")
                    .bind(to)
                    .bind(from);
                update.run(&mut tx.connection).await
            })
        })
        .await
    }

    /// Lists a room in the public directory, or takes it out.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_published(&self, room: i64, published: bool) -> Result<(), StoreError> {
        self.transact(move |tx| {
            Box::pin(async move {
                let update = query("UPDATE rooms SET published = $1 WHERE nid = $2")
                    .bind(published)
                    .bind(room);
                update.run(&mut tx.connection).await
            })
        })
        .await
    }

    /// Drops a room that the user has left from the user's account; false when the user is not out of it.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget(&self, room: i64, user_id: &UserId) -> Result<bool, StoreError> {
        let user_id = user_id.to_string();
        self.transact(move |tx| {
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
