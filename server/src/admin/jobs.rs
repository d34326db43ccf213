//! What the admin asks of durable jobs, and is told.

use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::StoreError;
use crate::store::jobs::{JobCount, JobId, StoredAttempt, StoredJob};

/// What to do with jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum JobCommand {
    /// Count all, and list those that somebody has to look at, or some of a kind.
    List {
        /// The kind.
        kind: Option<String>,
    },
    /// Show one with its attempts.
    Show {
        /// Its number.
        id: i64,
    },
    /// Have one done now that waits, has an unknown outcome or was given up.
    Retry {
        /// Its number.
        id: i64,
    },
    /// Remove one that does not run.
    Drop {
        /// Its number.
        id: i64,
    },
}

/// How many jobs of a kind are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCountLine {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: String,
    /// How many.
    pub jobs: i64,
    /// In how many seconds the first is due; negative where it has been.
    pub due_in_seconds: i64,
}

/// One job in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// Whom it burdens; empty for nobody.
    pub destination: String,
    /// Where it stands.
    pub state: String,
    /// In how many seconds it is due; negative where it has been.
    pub due_in_seconds: i64,
    /// Attempts begun.
    pub attempts: i64,
    /// Attempts in a row that failed.
    pub failures: i64,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
}

/// One attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptLine {
    /// Which.
    pub attempt: i64,
    /// How it ended.
    pub outcome: String,
    /// How many seconds ago.
    pub seconds_ago: i64,
    /// How long it took, in milliseconds, if that is known.
    pub took_ms: Option<i64>,
    /// Why, where it failed.
    pub error: Option<String>,
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: JobCommand) -> Result<AdminReply, Refusal> {
    let (jobs, now) = (&server.store.jobs, server.now());
    let done = |is_done: bool, message: &str| match is_done {
        true => Ok(AdminReply::Done {
            message: message.to_owned(),
        }),
        false => Err(Refusal::not_found("there is no such job, or it runs")),
    };
    match command {
        JobCommand::List { kind } => {
            let counts = jobs.counts().await?;
            let listed = match kind {
                Some(kind) => jobs.of_kind(&kind).await?,
                None => jobs.stopped().await?,
            };
            Ok(AdminReply::Jobs {
                counts: counts.into_iter().map(|count| count_line(count, now)).collect(),
                jobs: listed.iter().map(|job| line(job, now)).collect(),
            })
        }
        JobCommand::Show { id } => {
            let job = jobs.job(JobId(id)).await?;
            let job = job.ok_or_else(|| Refusal::not_found("there is no such job; it may be finished"))?;
            let attempts = jobs.attempts_of(job.id).await?;
            Ok(AdminReply::Job {
                job: line(&job, now),
                payload: job.payload,
                attempts: attempts.into_iter().map(|one| attempt_line(one, now)).collect(),
            })
        }
        JobCommand::Retry { id } => {
            let retried = jobs.retry(JobId(id), now).await;
            let retried = retried.map_err(|error| match error {
                StoreError::Conflict(_) => {
                    Refusal::invalid("another job with the same key waits in its place")
                }
                error => error.into(),
            });
            done(retried?, "it is due now")
        }
        JobCommand::Drop { id } => done(jobs.drop_job(JobId(id)).await?, "dropped"),
    }
}

fn count_line(count: JobCount, now: i64) -> JobCountLine {
    JobCountLine {
        kind: count.kind,
        state: count.state.name().to_owned(),
        jobs: count.jobs,
        due_in_seconds: (count.first_due_at - now) / 1000,
    }
}

fn line(job: &StoredJob, now: i64) -> JobLine {
    JobLine {
        id: job.id.0,
        kind: job.kind.clone(),
        destination: job.destination.clone(),
        state: job.state.name().to_owned(),
        due_in_seconds: (job.due_at - now) / 1000,
        attempts: job.attempts,
        failures: job.failures,
        last_error: job.last_error.clone(),
    }
}

fn attempt_line(attempt: StoredAttempt, now: i64) -> AttemptLine {
    AttemptLine {
        attempt: attempt.attempt,
        outcome: attempt.outcome.to_owned(),
        seconds_ago: (now - attempt.ended_at) / 1000,
        took_ms: attempt.started_at.map(|started| attempt.ended_at - started),
        error: attempt.error,
    }
}
