//! States of rooms: one row a change, read back as shared runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use maru_protocol::state::{Run, State, StateNid};

use super::engine::{Connection, Insert, Kind, query};
use super::{Store, StoreError};

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

pub(super) async fn store(connection: &mut Connection, states: Vec<&NewState>) -> Result<(), StoreError> {
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

impl Store {
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
        let rows = query(
            "WITH RECURSIVE chain (nid) AS ( \
               SELECT nid FROM states WHERE nid = ANY($1) \
               UNION SELECT states.below FROM states JOIN chain ON states.nid = chain.nid WHERE states.below IS NOT NULL \
             ) SELECT states.nid, states.below, states.entries FROM states JOIN chain ON chain.nid = states.nid ORDER BY states.nid",
        )
        .bind(nids.iter().map(|nid| nid.0).collect::<Vec<_>>())
        .all(&self.readers)
        .await?;
        // A state stands on older ones only, so its foundations come first.
        let mut runs: HashMap<i64, Arc<Run>> = HashMap::new();
        for row in rows {
            let nid: i64 = row.get(0)?;
            let run = match self.runs.get(StateNid(nid)) {
                Some(run) => run,
                None => {
                    let below = row.get::<Option<i64>>(1)?.map(|below| {
                        let missing = || StoreError::corrupt("states", format!("{below} is missing"));
                        runs.get(&below).cloned().ok_or_else(missing)
                    });
                    let run = Run::from_bytes(StateNid(nid), below.transpose()?, &row.get::<Vec<u8>>(2)?);
                    let run = Arc::new(run.map_err(|error| StoreError::corrupt("states", error))?);
                    self.runs.remember(&run);
                    run
                }
            };
            runs.insert(nid, run);
        }
        Ok(nids
            .into_iter()
            .filter_map(|nid| Some((nid, State::from_run(runs.get(&nid.0)?.clone()))))
            .collect())
    }
}
