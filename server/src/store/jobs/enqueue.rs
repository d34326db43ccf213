//! Making jobs.

use super::{JobState, JobTables};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind};

/// Longest payload of a job, in bytes: what is larger is kept elsewhere and named.
const PAYLOAD_BYTES: usize = 64 * 1024;

/// A job to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its kind.
    pub kind: &'static str,
    /// What names the work: where a job of the kind with this key is not finished, none is made. A dead letter keeps none
    /// away. It has to name the work with its content, since the job that is there may be running already.
    pub key: Option<String>,
    /// Whom it burdens, for limits; empty for nobody.
    pub destination: String,
    /// When it is due, in milliseconds since 1970.
    pub due_at: i64,
    /// Whether it may be done again when it is not known whether it was done.
    pub repeatable: bool,
    /// What is to be done, as JSON.
    pub payload: String,
    /// When it is made, in milliseconds since 1970.
    pub created_at: i64,
}

static INSERT: Insert = Insert {
    table: "jobs",
    columns: &[
        ("id", Kind::Int),
        ("kind", Kind::Text),
        ("dedup_key", Kind::Text),
        ("destination", Kind::Text),
        ("due_at", Kind::Int),
        ("state", Kind::Int),
        ("repeatable", Kind::Int),
        ("attempts", Kind::Int),
        ("failures", Kind::Int),
        ("payload", Kind::Text),
        ("created_at", Kind::Int),
    ],
    on_conflict: "ON CONFLICT DO NOTHING",
};

/// Makes jobs in a transaction, of the log or beside it. Whoever commits it calls [`JobTables::wake`].
pub(in crate::store) async fn enqueue(
    connection: &mut Connection,
    mut jobs: Vec<NewJob>,
) -> Result<(), StoreError> {
    if let Some(job) = jobs.iter().find(|job| job.payload.len() > PAYLOAD_BYTES) {
        let why = format!(
            "a job of kind {} has a payload of {} bytes",
            job.kind,
            job.payload.len()
        );
        return Err(StoreError::Program(why));
    }
    // In one order everywhere: two who make the same jobs never wait for each other in a circle.
    jobs.sort_by(|one, other| (one.kind, &one.key).cmp(&(other.kind, &other.key)));
    let rows = jobs.into_iter().map(|job| {
        vec![
            rand::random_range(1..i64::MAX).into(),
            job.kind.into(),
            job.key.into(),
            job.destination.into(),
            job.due_at.into(),
            JobState::Waiting.number().into(),
            job.repeatable.into(),
            0_i64.into(),
            0_i64.into(),
            job.payload.into(),
            job.created_at.into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

impl JobTables {
    /// Makes jobs, but for those that are there by their keys.
    ///
    /// # Errors
    /// When nothing was stored, or it is not known whether it was: jobs with keys may be made again.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let stored = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { enqueue(&mut tx.connection, jobs).await }));
        stored.await?;
        self.wake();
        Ok(())
    }
}
