//! Which jobs are due, and taking them.
//!
//! The index of waiting jobs is ordered by kind, destination and due time. To look is to step from each pair of kind and
//! destination to the next and to see the earliest job of each: that costs the pairs for which anything waits, however much
//! does, and a destination at its limit is stepped over with all that waits for it.
//!
//! Measured on PostgreSQL, with 200,000 jobs waiting for 26 pairs: a millisecond to look, and one to claim 50. Jobs that were
//! finished while an old snapshot is open stay in front of those that wait: behind 80,000 of them it is 25 and 40, until a
//! vacuum has passed.

use std::collections::HashMap;

use super::{HeldJob, JobId, JobState, JobTables};
use crate::store::StoreError;
use crate::store::engine::{Connection, Row, query};
use crate::store::nodes::RunId;

/// Most pairs of kind and destination that are looked at together.
const HEADS: i64 = 256;

/// Held by who claims jobs that have a limit by destination, on PostgreSQL ("jobs").
const CLAIM_LOCK: i64 = 0x6a6f_6273;

/// The earliest job that waits for a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The kind.
    pub kind: String,
    /// The destination.
    pub destination: String,
    /// When it is due, in milliseconds since 1970.
    pub due_at: i64,
}

/// Jobs of a kind for a destination, to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kind.
    pub kind: &'static str,
    /// The destination.
    pub destination: String,
    /// How many at most.
    pub most: usize,
    /// How many of the kind may run for the destination, those of all nodes together.
    pub limit: Option<usize>,
}

const EARLIEST: &str = "SELECT jobs.id, jobs.kind, jobs.destination FROM json_each($1) AS place \
    CROSS JOIN jobs ON jobs.id IN (SELECT j.id FROM jobs AS j WHERE j.state = 0 \
    AND j.kind = json_extract(place.value, '$[0]') AND j.destination = json_extract(place.value, '$[1]') \
    AND j.due_at <= $2 ORDER BY j.due_at LIMIT $3)";

const EARLIEST_UNLOCKED: &str = "SELECT due.id, due.kind, due.destination \
    FROM json_array_elements($1::json) AS place (value) \
    CROSS JOIN LATERAL (SELECT j.id, j.kind, j.destination FROM jobs AS j WHERE j.state = 0 \
    AND j.kind = place.value->>0 AND j.destination = place.value->>1 \
    AND j.due_at <= $2 ORDER BY j.due_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS due";

impl JobTables {
    /// The earliest waiting job of each kind and destination after the given pair, in their order, 256 of them. Empty texts
    /// for the first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn heads(&self, after: (&str, &str)) -> Result<Vec<Head>, StoreError> {
        let rows = query(
            "WITH RECURSIVE heads (id, kind, destination, due_at, n) AS (\
             SELECT id, kind, destination, due_at, CAST(1 AS BIGINT) FROM jobs WHERE id = COALESCE(\
             (SELECT j.id FROM jobs AS j WHERE j.state = 0 AND j.kind = $1 AND j.destination > $2 \
             ORDER BY j.destination, j.due_at LIMIT 1), \
             (SELECT j.id FROM jobs AS j WHERE j.state = 0 AND j.kind > $1 \
             ORDER BY j.kind, j.destination, j.due_at LIMIT 1)) \
             UNION ALL \
             SELECT jobs.id, jobs.kind, jobs.destination, jobs.due_at, heads.n + 1 FROM heads JOIN jobs ON jobs.id = COALESCE(\
             (SELECT j.id FROM jobs AS j WHERE j.state = 0 AND j.kind = heads.kind AND j.destination > heads.destination \
             ORDER BY j.destination, j.due_at LIMIT 1), \
             (SELECT j.id FROM jobs AS j WHERE j.state = 0 AND j.kind > heads.kind \
             ORDER BY j.kind, j.destination, j.due_at LIMIT 1)) WHERE heads.n < $3) \
             SELECT kind, destination, due_at FROM heads",
        );
        let rows = rows.bind(after.0).bind(after.1).bind(HEADS);
        let head = |row: &Row| {
            Ok(Head {
                kind: row.get(0)?,
                destination: row.get(1)?,
                due_at: row.get(2)?,
            })
        };
        rows.all(&self.readers).await?.iter().map(head).collect()
    }

    /// How many pairs [`JobTables::heads`] gives where there are as many.
    #[must_use]
    pub fn heads_together(&self) -> usize {
        usize::try_from(HEADS).unwrap_or(usize::MAX)
    }

    /// Takes jobs that are due at `now` for a run, the earliest of each wanted destination. What others take at the
    /// same time is left to them, and a destination never has more running than its limit.
    ///
    /// # Errors
    /// When nothing was taken, or it is not known whether it was: what was is held by the run until it is released.
    pub async fn claim(&self, run: RunId, now: i64, wanted: Vec<Wanted>) -> Result<Vec<HeldJob>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let claimed = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let room = room(connection, wanted).await?;
                let ids = earliest(connection, now, room).await?;
                take(connection, run, ids).await
            })
        });
        claimed.await
    }
}

type Room = HashMap<(String, String), usize>;

/// How many jobs may be taken for each destination, by what runs for it.
async fn room(connection: &mut Connection, wanted: Vec<Wanted>) -> Result<Room, StoreError> {
    let limited = wanted.iter().filter(|wanted| wanted.limit.is_some());
    let limited: Vec<String> = limited.map(|wanted| wanted.kind.to_owned()).collect();
    let mut running = Room::new();
    if !limited.is_empty() {
        if !connection.is_sqlite() {
            let lock = query("SELECT 1 FROM pg_advisory_xact_lock($1)").bind(CLAIM_LOCK);
            lock.all(&mut *connection).await?;
        }
        let rows = query(
            "SELECT kind, destination, COUNT(*) FROM jobs WHERE state = 1 AND kind = ANY($1) AND destination <> '' \
             GROUP BY kind, destination",
        );
        for row in rows.bind(limited).all(connection).await? {
            let count = usize::try_from(row.get::<i64>(2)?).unwrap_or(usize::MAX);
            running.insert((row.get(0)?, row.get(1)?), count);
        }
    }
    let room = wanted.into_iter().map(|wanted| {
        let key = (wanted.kind.to_owned(), wanted.destination);
        let runs = running.get(&key).copied().unwrap_or(0);
        let left = wanted
            .limit
            .map_or(usize::MAX, |limit| limit.saturating_sub(runs));
        (key, wanted.most.min(left))
    });
    Ok(room.filter(|(_, most)| *most > 0).collect())
}

/// The earliest jobs that are due, as many for each destination as there is room for.
async fn earliest(connection: &mut Connection, now: i64, mut room: Room) -> Result<Vec<i64>, StoreError> {
    let Some(most) = room.values().max().copied() else {
        return Ok(Vec::new());
    };
    let places: Vec<_> = room.keys().collect();
    let places = serde_json::to_string(&places).map_err(StoreError::encoding)?;
    let due = match connection.is_sqlite() {
        true => query(EARLIEST),
        false => query(EARLIEST_UNLOCKED),
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut ids = Vec::new();
    for row in due.bind(places).bind(now).bind(most).all(connection).await? {
        if let Some(left) = room
            .get_mut(&(row.get(1)?, row.get(2)?))
            .filter(|left| **left > 0)
        {
            *left -= 1;
            ids.push(row.get(0)?);
        }
    }
    Ok(ids)
}

async fn take(connection: &mut Connection, run: RunId, ids: Vec<i64>) -> Result<Vec<HeldJob>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let taken = query(
        "UPDATE jobs SET state = 1, run = $1, attempts = attempts + 1 WHERE id = ANY($2) AND state = 0 \
         RETURNING id, kind, dedup_key, destination, attempts, failures, payload, created_at",
    );
    let held = |row: &Row| {
        Ok(HeldJob {
            id: JobId(row.get(0)?),
            kind: row.get(1)?,
            key: row.get(2)?,
            destination: row.get(3)?,
            run,
            attempt: row.get(4)?,
            failures: row.get(5)?,
            payload: row.get(6)?,
            created_at: row.get(7)?,
        })
    };
    debug_assert_eq!(JobState::Running.number(), 1);
    let rows = taken.bind(run.0).bind(ids).all(connection).await?;
    rows.iter().map(held).collect()
}
