//! Committed heads of rooms, with their forward extremities: table `room_heads`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use maru_protocol::ingest::Extremity;
use maru_protocol::state::{State, StateNid};
use ruma::{OwnedEventId, OwnedServerName};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::rooms::RoomTables;

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
    /// When it was stored; the log's beginning while it is not durable. Of two heads of a room the later is the newer.
    pub position: Position,
}

static UPSERT: Insert = Insert {
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
        ("position", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (room) DO UPDATE SET extremities = excluded.extremities, state = excluded.state, \
                  first_place = excluded.first_place, last_place = excluded.last_place, depth = excluded.depth, \
                  joined = excluded.joined, invited = excluded.invited, \
                  position = excluded.position",
};

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn extremity_ids(head: &RoomHead) -> Result<String, StoreError> {
    let ids: Vec<_> = head.extremities.iter().map(|extremity| &extremity.id).collect();
    serde_json::to_string(&ids).map_err(StoreError::encoding)
}

pub(in crate::store) async fn store(
    connection: &mut Connection,
    heads: Vec<(i64, &RoomHead)>,
) -> Result<(), StoreError> {
    let row = |(position, head): (i64, &RoomHead)| {
        Ok(vec![
            head.room.into(),
            extremity_ids(head)?.into(),
            head.state.nid().map(|state| state.0).into(),
            head.first_place.0.into(),
            head.last_place.0.into(),
            number(head.depth).into(),
            number(head.joined).into(),
            number(head.invited).into(),
            position.into(),
        ])
    };
    let rows: Result<_, StoreError> = heads.into_iter().map(row).collect();
    UPSERT.rows(connection, rows?).await
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
        position: Position(row.get(8)?),
    })
}

impl RoomTables {
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
            "SELECT room, extremities, state, first_place, last_place, depth, joined, invited, position \
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
}
