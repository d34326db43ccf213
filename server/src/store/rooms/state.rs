//! States of rooms: one row a change, read back as shared runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use maru_protocol::auth::StateSlot;
use maru_protocol::ingest::Outcome;
use maru_protocol::state::{EventNid, Run, State, StateNid};
use ruma::OwnedEventId;

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, query};
use crate::store::rooms::RoomTables;

/// A state to store.
#[derive(Clone, Debug)]
pub struct NewState {
    /// The room (rooms.nid).
    pub room: i64,
    /// Its number.
    pub nid: StateNid,
    /// The state it stands on.
    pub below: Option<StateNid>,
    /// Its own entries, as [`Run::to_bytes`] makes them.
    pub entries: Arc<[u8]>,
}

impl NewState {
    /// The row of a state's top run.
    #[must_use]
    pub fn of(room: i64, run: &Run) -> Self {
        Self {
            room,
            nid: run.nid,
            below: run.below.as_ref().map(|run| run.nid),
            entries: run.to_bytes().into(),
        }
    }
}

/// What a state needs to know of an event that is part of it.
#[derive(Clone, Debug)]
pub struct StatePart {
    /// Its local number.
    pub nid: EventNid,
    /// Its slot; none for one that is no state event.
    pub slot: Option<StateSlot>,
}

static INSERT: Insert = Insert {
    table: "states",
    columns: &[
        ("nid", Kind::Int),
        ("room", Kind::Int),
        ("below", Kind::Int),
        ("entries", Kind::Blob),
    ],
    on_conflict: "",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    states: Vec<&NewState>,
) -> Result<(), StoreError> {
    let rows = states.into_iter().map(|state| {
        vec![
            state.nid.0.into(),
            state.room.into(),
            state.below.map(|below| below.0).into(),
            state.entries[..].into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

/// A run as it is read: what it stands on, and its entries.
type StoredRun = (Option<i64>, Vec<u8>);

/// Runs that are in memory already; shared by every state that stands on them.
#[derive(Debug, Default)]
pub struct RunCache(Mutex<HashMap<StateNid, std::sync::Weak<Run>>>);

impl RunCache {
    /// How many dead entries may pile up before they are swept.
    const SWEEP_AT: usize = 65_536;

    fn get(&self, nid: StateNid) -> Option<Arc<Run>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&nid)?
            .upgrade()
    }

    /// Remembers a run for as long as somebody holds it.
    pub fn remember(&self, run: &Arc<Run>) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= Self::SWEEP_AT {
            runs.retain(|_, run| run.strong_count() > 0);
        }
        runs.insert(run.nid, Arc::downgrade(run));
    }
}

impl RoomTables {
    /// The state numbered `nid`: as many rows as it has runs, in one query.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub async fn state(&self, nid: StateNid) -> Result<State, StoreError> {
        if let Some(run) = self.runs.get(nid) {
            return Ok(State::from_run(run));
        }
        let mut states = self.states(vec![nid]).await?;
        states
            .remove(&nid)
            .ok_or_else(|| StoreError::corrupt("states", format!("{} is missing", nid.0)))
    }

    /// Several states at once, in one query.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn states(&self, nids: Vec<StateNid>) -> Result<HashMap<StateNid, State>, StoreError> {
        let held = |nid: &StateNid| Some((*nid, State::from_run(self.runs.get(*nid)?)));
        if let Some(held) = nids.iter().map(held).collect() {
            return Ok(held);
        }
        let rows = query(
            "WITH RECURSIVE chain (nid) AS ( \
               SELECT nid FROM states WHERE nid = ANY($1) \
               UNION SELECT states.below FROM states JOIN chain ON states.nid = chain.nid WHERE states.below IS NOT NULL \
             ) SELECT states.nid, states.below, states.entries FROM states JOIN chain ON chain.nid = states.nid",
        )
        .bind(nids.iter().map(|nid| nid.0).collect::<Vec<_>>())
        .all(&self.readers)
        .await?;
        let mut stored = HashMap::with_capacity(rows.len());
        for row in rows {
            stored.insert(row.get::<i64>(0)?, (row.get(1)?, row.get(2)?));
        }
        let mut runs = HashMap::new();
        for nid in &nids {
            if stored.contains_key(&nid.0) {
                self.build(nid.0, &mut stored, &mut runs)?;
            }
        }
        Ok(nids
            .into_iter()
            .filter_map(|nid| Some((nid, State::from_run(runs.get(&nid.0)?.clone()))))
            .collect())
    }

    /// Builds the run numbered `nid` from stored ones, after those below it. Their numbers say nothing of the order: that of
    /// an outlier that found its place later is lower than those of the states before it.
    fn build(
        &self,
        nid: i64,
        stored: &mut HashMap<i64, StoredRun>,
        runs: &mut HashMap<i64, Arc<Run>>,
    ) -> Result<(), StoreError> {
        let mut open = vec![nid];
        while let Some(nid) = open.last().copied() {
            let known = runs.get(&nid).cloned().or_else(|| self.runs.get(StateNid(nid)));
            let run = match known {
                Some(run) => run,
                None => {
                    let missing = || StoreError::corrupt("states", format!("{nid} is missing"));
                    let below = stored.get(&nid).ok_or_else(missing)?.0;
                    let built = below.map(|below| runs.get(&below).cloned());
                    if let (Some(below), Some(None)) = (below, &built) {
                        open.push(below);
                        continue;
                    }
                    let (_, entries) = stored.remove(&nid).ok_or_else(missing)?;
                    let run = Run::from_bytes(StateNid(nid), built.flatten(), &entries);
                    let run = Arc::new(run.map_err(|error| StoreError::corrupt("states", error))?);
                    self.runs.remember(&run);
                    run
                }
            };
            runs.insert(nid, run);
            open.pop();
        }
        Ok(())
    }

    /// Those of some events of a room that may be part of a state, without their contents: the rejected ones may not.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn state_parts(&self, room: i64, ids: &[OwnedEventId]) -> Result<Vec<StatePart>, StoreError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        // A sum, so that no index of rooms is of use: its prefix would bring all of the room's events.
        let rows = query(
            "SELECT nid, type, state_key FROM events WHERE event_id = ANY($1) AND room + 0 = $2 AND outcome <> $3",
        );
        let rows = rows.bind(ids).bind(room).bind(Outcome::Rejected as i64);
        let rows = rows.all(&self.readers).await?;
        let parts = rows.iter().map(|row| {
            let state_key = row.get::<Option<String>>(2)?;
            let event_type = row.get::<String>(1)?;
            Ok(StatePart {
                nid: EventNid(row.get(0)?),
                slot: state_key.map(|key| StateSlot::new(&event_type, &key)),
            })
        });
        parts.collect()
    }
}
