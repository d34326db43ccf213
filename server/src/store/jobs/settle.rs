//! What became of attempts, and the jobs of runs that have ended.

use std::collections::HashMap;

use serde_json::json;

use super::attempts::{self, NewAttempt};
use super::{HeldJob, JobId, JobState, JobTables};
use crate::store::StoreError;
use crate::store::engine::{Connection, query};
use crate::store::log::Change;
use crate::store::nodes::RunId;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The job is finished, and its row goes.
    Done,
    /// The job waits again: it failed, was put off, or comes again and again.
    Again {
        /// When it is due, in milliseconds since 1970.
        due_at: i64,
        /// Attempts in a row that have failed.
        failures: i64,
        /// Why, where it failed.
        error: Option<String>,
    },
    /// Whether it was done is not known, and it may not be done twice.
    Unknown(String),
    /// It failed for good.
    DeadLetter(String),
}

impl Outcome {
    fn error(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Again { error, .. } => error.as_deref(),
            Self::Unknown(error) | Self::DeadLetter(error) => Some(error),
        }
    }

    const fn number(&self) -> i64 {
        match self {
            Self::Done => 0,
            Self::Again { .. } => 1,
            Self::Unknown(_) => 2,
            Self::DeadLetter(_) => 3,
        }
    }
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The job, as it was held.
    pub job: HeldJob,
    /// When it began, in milliseconds since 1970.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: i64,
    /// How.
    pub outcome: Outcome,
}

const HELD: &str = "SELECT id, attempts, run FROM jobs WHERE id = ANY($1) AND state = 1 ORDER BY id";
const HELD_LOCKED: &str =
    "SELECT id, attempts, run FROM jobs WHERE id = ANY($1) AND state = 1 ORDER BY id FOR UPDATE";

const MOVE: &str = "UPDATE jobs SET state = json_extract(item.value, '$[1]'), due_at = json_extract(item.value, '$[2]'), \
    failures = json_extract(item.value, '$[3]'), last_error = COALESCE(json_extract(item.value, '$[4]'), last_error), \
    run = NULL FROM json_each($1) AS item WHERE jobs.id = json_extract(item.value, '$[0]')";
const MOVE_ON_POSTGRES: &str = "UPDATE jobs SET state = (item.value->>1)::bigint, due_at = (item.value->>2)::bigint, \
    failures = (item.value->>3)::bigint, last_error = COALESCE(item.value->>4, last_error), \
    run = NULL FROM json_array_elements($1::json) AS item (value) WHERE jobs.id = (item.value->>0)::bigint";

impl JobTables {
    /// Stores what became of attempts; those whose holder has lost the job change nothing and are given back.
    ///
    /// # Errors
    /// When nothing was stored, or it is not known whether it was: it may be tried again, and shows as lost then.
    pub async fn settle(&self, ended: Vec<Ended>) -> Result<Vec<JobId>, StoreError> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let settled = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { settle(&mut tx.connection, ended).await }));
        settled.await
    }

    /// Stores what became of an attempt together with records of the log that are its effect, which must stand on no
    /// room's head.
    ///
    /// # Errors
    /// [`StoreError::JobLost`] when its holder has lost the job: nothing was stored.
    pub async fn settle_with(&self, ended: Ended, effect: Change) -> Result<(), StoreError> {
        let settled = self.log.transact(move |tx| {
            Box::pin(async move {
                if !settle(&mut tx.connection, vec![ended]).await?.is_empty() {
                    return Err(StoreError::JobLost);
                }
                effect.records.into_iter().for_each(|record| tx.push(record));
                Ok(())
            })
        });
        settled.await
    }

    /// Frees the jobs of runs that have ended: they wait again, or, where they may not be done twice, their outcome is
    /// unknown. How many there were.
    ///
    /// # Errors
    /// When nothing was stored, or it is not known whether it was: to try again does no harm.
    pub async fn release(&self, runs: Vec<RunId>, now: i64) -> Result<usize, StoreError> {
        let runs: Vec<i64> = runs.into_iter().map(|run| run.0).collect();
        let freed = query(
            "UPDATE jobs SET state = CASE WHEN repeatable = 1 THEN 0 ELSE 2 END, due_at = $1, failures = failures + 1, \
             last_error = 'the server that had it has ended' WHERE state = 1 AND run = ANY($2) \
             RETURNING id, attempts, kind, run",
        );
        self.freed(freed.bind(now).bind(runs), now).await
    }

    /// As [`JobTables::release`], of all runs but one: for who has the database to itself.
    ///
    /// # Errors
    /// As [`JobTables::release`].
    pub async fn release_others(&self, own: RunId, now: i64) -> Result<usize, StoreError> {
        let freed = query(
            "UPDATE jobs SET state = CASE WHEN repeatable = 1 THEN 0 ELSE 2 END, due_at = $1, failures = failures + 1, \
             last_error = 'the server that had it has ended' WHERE state = 1 AND run <> $2 \
             RETURNING id, attempts, kind, run",
        );
        self.freed(freed.bind(now).bind(own.0), now).await
    }

    /// As [`JobTables::release`], of all runs that are not registered as nodes, but one: a node that started again has
    /// another run, and whoever runs jobs is registered before.
    ///
    /// # Errors
    /// As [`JobTables::release`].
    pub async fn release_unregistered(&self, own: RunId, now: i64) -> Result<usize, StoreError> {
        let freed = query(
            "UPDATE jobs SET state = CASE WHEN repeatable = 1 THEN 0 ELSE 2 END, due_at = $1, failures = failures + 1, \
             last_error = 'the server that had it has ended' WHERE state = 1 AND run <> $2 \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.run = jobs.run) RETURNING id, attempts, kind, run",
        );
        self.freed(freed.bind(now).bind(own.0), now).await
    }

    /// Has jobs wait again that a run holds without knowing it, since the claim was not answered: all but those that it
    /// knows. None of them was begun.
    ///
    /// # Errors
    /// As [`JobTables::release`].
    pub async fn release_unbegun(&self, run: RunId, known: Vec<JobId>) -> Result<(), StoreError> {
        let known: Vec<i64> = known.into_iter().map(|job| job.0).collect();
        let freed = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query(
                    "UPDATE jobs SET state = 0, run = NULL WHERE state = 1 AND run = $1 AND NOT (id = ANY($2))",
                );
                update.bind(run.0).bind(known).run(&mut tx.connection).await
            })
        });
        freed.await
    }

    async fn freed(&self, freed: crate::store::engine::Query, now: i64) -> Result<usize, StoreError> {
        let freed = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let rows = freed.all(&mut tx.connection).await?;
                let mut ended = Vec::new();
                for row in &rows {
                    ended.push(NewAttempt {
                        job: JobId(row.get(0)?),
                        attempt: row.get(1)?,
                        kind: row.get(2)?,
                        run: row.get(3)?,
                        started_at: None,
                        ended_at: now,
                        outcome: attempts::RUN_ENDED,
                        error: None,
                    });
                }
                attempts::store(&mut tx.connection, now, ended).await?;
                Ok(rows.len())
            })
        });
        let freed = freed.await?;
        if freed > 0 {
            self.wake();
        }
        Ok(freed)
    }
}

/// Stores what became of attempts whose jobs are still held by them; the others.
async fn settle(connection: &mut Connection, ended: Vec<Ended>) -> Result<Vec<JobId>, StoreError> {
    let ids: Vec<i64> = ended.iter().map(|ended| ended.job.id.0).collect();
    let held = match connection.is_sqlite() {
        true => query(HELD),
        false => query(HELD_LOCKED),
    };
    let mut holders = HashMap::new();
    for row in held.bind(ids).all(&mut *connection).await? {
        holders.insert(
            row.get::<i64>(0)?,
            (row.get::<i64>(1)?, row.get::<Option<i64>>(2)?),
        );
    }
    let is_held = |ended: &Ended| {
        let job = &ended.job;
        holders.get(&job.id.0) == Some(&(job.attempt, Some(job.run.0)))
    };
    let (ended, lost): (Vec<_>, Vec<_>) = ended.into_iter().partition(is_held);
    let (mut done, mut moved, mut stored, mut now) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for Ended {
        job,
        started_at,
        ended_at,
        outcome,
    } in ended
    {
        let (id, waiting) = (job.id.0, JobState::Waiting.number());
        let state = match &outcome {
            Outcome::Unknown(_) => JobState::Unknown,
            _ => JobState::DeadLetter,
        };
        match &outcome {
            Outcome::Done => done.push(id),
            Outcome::Again {
                due_at,
                failures,
                error,
            } => {
                moved.push(json!([id, waiting, due_at, failures, error]));
            }
            Outcome::Unknown(error) | Outcome::DeadLetter(error) => {
                moved.push(json!([id, state.number(), ended_at, job.failures + 1, error]));
            }
        }
        now = now.max(ended_at);
        stored.push(NewAttempt {
            job: job.id,
            attempt: job.attempt,
            kind: job.kind,
            run: job.run.0,
            started_at: Some(started_at),
            ended_at,
            outcome: outcome.number(),
            error: outcome.error().map(str::to_owned),
        });
    }
    if !done.is_empty() {
        query("DELETE FROM jobs WHERE id = ANY($1)")
            .bind(done)
            .run(&mut *connection)
            .await?;
    }
    if !moved.is_empty() {
        let moved = serde_json::to_string(&moved).map_err(StoreError::encoding)?;
        let change = match connection.is_sqlite() {
            true => query(MOVE),
            false => query(MOVE_ON_POSTGRES),
        };
        change.bind(moved).run(&mut *connection).await?;
    }
    attempts::store(connection, now, stored).await?;
    Ok(lost.into_iter().map(|ended| ended.job.id).collect())
}
