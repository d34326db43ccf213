//! Attempts that have ended: appended, never changed, kept for one to two days and dropped a table at a time.
//!
//! Three tables take turns by the day (UTC), rather than partitions of one: the same SQL serves both engines, nothing has to
//! make tables while the server runs, and emptying one leaves no dead rows behind on either.

use super::{JobId, JobTables};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Attempts of a job that are shown.
const SHOWN: i64 = 100;

/// How an attempt ended whose run did.
pub(super) const RUN_ENDED: i64 = 4;

/// An attempt to keep.
#[derive(Debug)]
pub(super) struct NewAttempt {
    pub(super) job: JobId,
    pub(super) attempt: i64,
    pub(super) kind: String,
    pub(super) run: i64,
    pub(super) started_at: Option<i64>,
    pub(super) ended_at: i64,
    pub(super) outcome: i64,
    pub(super) error: Option<String>,
}

/// An attempt as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAttempt {
    /// Which, from 1 on.
    pub attempt: i64,
    /// The run that made it.
    pub run: i64,
    /// When it began, in milliseconds since 1970; none where its run ended.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: i64,
    /// How: `done`, `again`, `unknown`, `dead letter` or `run ended`.
    pub outcome: &'static str,
    /// Why, where it failed.
    pub error: Option<String>,
}

const COLUMNS: &[(&str, Kind)] = &[
    ("job", Kind::Int),
    ("attempt", Kind::Int),
    ("kind", Kind::Text),
    ("run", Kind::Int),
    ("started_at", Kind::Int),
    ("ended_at", Kind::Int),
    ("outcome", Kind::Int),
    ("error", Kind::Text),
];

static TABLES: [Insert; 3] = [
    Insert {
        table: "job_attempts_0",
        columns: COLUMNS,
        on_conflict: "",
    },
    Insert {
        table: "job_attempts_1",
        columns: COLUMNS,
        on_conflict: "",
    },
    Insert {
        table: "job_attempts_2",
        columns: COLUMNS,
        on_conflict: "",
    },
];

/// The table of a day that is so many days after that of `now`.
fn table(now: i64, days: i64) -> usize {
    usize::try_from((now / DAY_MS + days).rem_euclid(3)).unwrap_or(0)
}

/// Keeps attempts that end now.
pub(super) async fn store(
    connection: &mut Connection,
    now: i64,
    attempts: Vec<NewAttempt>,
) -> Result<(), StoreError> {
    let rows = attempts.into_iter().map(|ended| {
        vec![
            ended.job.0.into(),
            ended.attempt.into(),
            ended.kind.into(),
            ended.run.into(),
            ended.started_at.into(),
            ended.ended_at.into(),
            ended.outcome.into(),
            ended.error.into(),
        ]
    });
    match TABLES.get(table(now, 0)) {
        Some(insert) => insert.rows(connection, rows.collect()).await,
        None => Ok(()),
    }
}

impl JobTables {
    /// The last attempts of a job that are still kept, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn attempts_of(&self, job: JobId) -> Result<Vec<StoredAttempt>, StoreError> {
        let rows = query(
            "SELECT * FROM (SELECT attempt, run, started_at, ended_at, outcome, error FROM job_attempts_0 WHERE job = $1 \
             ORDER BY attempt DESC LIMIT $2) AS ended_0 UNION ALL \
             SELECT * FROM (SELECT attempt, run, started_at, ended_at, outcome, error FROM job_attempts_1 WHERE job = $1 \
             ORDER BY attempt DESC LIMIT $2) AS ended_1 UNION ALL \
             SELECT * FROM (SELECT attempt, run, started_at, ended_at, outcome, error FROM job_attempts_2 WHERE job = $1 \
             ORDER BY attempt DESC LIMIT $2) AS ended_2 \
             ORDER BY attempt DESC LIMIT $2",
        );
        let read = |row: &Row| {
            Ok(StoredAttempt {
                attempt: row.get(0)?,
                run: row.get(1)?,
                started_at: row.get(2)?,
                ended_at: row.get(3)?,
                outcome: match row.get::<i64>(4)? {
                    0 => "done",
                    1 => "again",
                    2 => "unknown",
                    3 => "dead letter",
                    _ => "run ended",
                },
                error: row.get(5)?,
            })
        };
        let rows = rows.bind(job.0).bind(SHOWN).all(&self.readers).await?;
        rows.iter().rev().map(read).collect()
    }

    /// Empties the table whose turn is tomorrow, with the attempts of the day before yesterday in it. To be called every
    /// few hours. Waits no longer than some seconds for who reads it.
    ///
    /// # Errors
    /// When it was not done; it can be done again.
    pub async fn drop_old_attempts(&self, now: i64) -> Result<(), StoreError> {
        let (found, delete, truncate) = match table(now, 1) {
            0 => (
                "SELECT 1 FROM job_attempts_0 LIMIT 1",
                "DELETE FROM job_attempts_0",
                "TRUNCATE job_attempts_0",
            ),
            1 => (
                "SELECT 1 FROM job_attempts_1 LIMIT 1",
                "DELETE FROM job_attempts_1",
                "TRUNCATE job_attempts_1",
            ),
            _ => (
                "SELECT 1 FROM job_attempts_2 LIMIT 1",
                "DELETE FROM job_attempts_2",
                "TRUNCATE job_attempts_2",
            ),
        };
        if query(found).optional(&self.readers).await?.is_none() {
            return Ok(());
        }
        let empty = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                match tx.connection.is_sqlite() {
                    true => query(delete).run(&mut tx.connection).await,
                    false => query(truncate).run(&mut tx.connection).await,
                }
            })
        });
        empty.await
    }
}
