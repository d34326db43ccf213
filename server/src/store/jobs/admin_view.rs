//! What the admin sees of jobs, and does with them.

use super::{JobId, JobState, JobTables};
use crate::store::StoreError;
use crate::store::engine::{Row, query};

/// Jobs that are counted at most.
const COUNTED: i64 = 100_000;

/// Jobs of a list.
const LISTED: i64 = 500;

/// A job as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its number.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// The key that no other job of the kind has until this one is finished.
    pub key: Option<String>,
    /// Whom it burdens; empty for nobody.
    pub destination: String,
    /// Where it stands.
    pub state: JobState,
    /// When it is due, in milliseconds since 1970.
    pub due_at: i64,
    /// Attempts begun.
    pub attempts: i64,
    /// Attempts in a row that have failed.
    pub failures: i64,
    /// The run that holds it.
    pub run: Option<i64>,
    /// What is to be done, as JSON.
    pub payload: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
}

/// How many jobs of a kind are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobCount {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: JobState,
    /// How many.
    pub jobs: i64,
    /// When the first of them was or is due, in milliseconds since 1970.
    pub first_due_at: i64,
}

fn read(row: &Row) -> Result<StoredJob, StoreError> {
    Ok(StoredJob {
        id: JobId(row.get(0)?),
        kind: row.get(1)?,
        key: row.get(2)?,
        destination: row.get(3)?,
        state: JobState::of(row.get(4)?),
        due_at: row.get(5)?,
        attempts: row.get(6)?,
        failures: row.get(7)?,
        run: row.get(8)?,
        payload: row.get(9)?,
        created_at: row.get(10)?,
        last_error: row.get(11)?,
    })
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, dedup_key, destination, state, due_at, attempts, failures, run, payload, created_at, \
             last_error FROM jobs ",
            $rest
        )
    };
}

impl JobTables {
    /// A job that is not finished.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn job(&self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        let row = query(select!("WHERE id = $1")).bind(id.0);
        row.optional(&self.readers).await?.as_ref().map(read).transpose()
    }

    /// Jobs whose outcome is unknown and dead letters, some hundreds, by kind.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stopped(&self) -> Result<Vec<StoredJob>, StoreError> {
        let rows = query(select!("WHERE state >= 2 ORDER BY kind, id LIMIT $1")).bind(LISTED);
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// Jobs of a kind: those that run, some hundreds of those that wait, by destination and due time, and of those that
    /// do neither.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn of_kind(&self, kind: &str) -> Result<Vec<StoredJob>, StoreError> {
        let mut jobs = Vec::new();
        let running = query(select!("WHERE state = 1 AND kind = $1 LIMIT $2"));
        let waiting = query(select!(
            "WHERE state = 0 AND kind = $1 ORDER BY destination, due_at LIMIT $2"
        ));
        let stopped = query(select!("WHERE state >= 2 AND kind = $1 ORDER BY id LIMIT $2"));
        for part in [running, waiting, stopped] {
            let rows = part.bind(kind).bind(LISTED).all(&self.readers).await?;
            for row in &rows {
                jobs.push(read(row)?);
            }
        }
        Ok(jobs)
    }

    /// How many jobs there are, by kind and state; where there are more than 100,000, of some of them. Costs grow with
    /// them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn counts(&self) -> Result<Vec<JobCount>, StoreError> {
        let rows = query(
            "SELECT kind, state, COUNT(*), MIN(due_at) FROM (SELECT kind, state, due_at FROM jobs LIMIT $1) AS counted \
             GROUP BY kind, state ORDER BY kind, state",
        );
        let count = |row: &Row| {
            Ok(JobCount {
                kind: row.get(0)?,
                state: JobState::of(row.get(1)?),
                jobs: row.get(2)?,
                first_due_at: row.get(3)?,
            })
        };
        let rows = rows.bind(COUNTED).all(&self.readers).await?;
        rows.iter().map(count).collect()
    }

    /// Has a job that does not run done now, as if it had never failed. False where there is none, or it runs.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a dead letter in whose place another job with its key waits; or when it was not stored.
    pub async fn retry(&self, id: JobId, now: i64) -> Result<bool, StoreError> {
        let retried = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query(
                    "UPDATE jobs SET state = 0, due_at = $2, failures = 0 WHERE id = $1 AND state <> 1",
                );
                update.bind(id.0).bind(now).execute(&mut tx.connection).await
            })
        });
        let retried = retried.await? > 0;
        self.wake();
        Ok(retried)
    }

    /// Removes a job that does not run. False where there is none, or it runs.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_job(&self, id: JobId) -> Result<bool, StoreError> {
        let dropped = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let delete = query("DELETE FROM jobs WHERE id = $1 AND state <> 1");
                delete.bind(id.0).execute(&mut tx.connection).await
            })
        });
        Ok(dropped.await? > 0)
    }
}
