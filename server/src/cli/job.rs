//! `maru job`: durable jobs, as the database has them.

use clap::Subcommand;

use super::admin::{execute, print};
use super::{Failure, Flags};
use crate::admin::{AdminCommand, AttemptLine, JobCommand, JobCountLine, JobLine};

/// What to do with durable jobs.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Count jobs by kind, and list those with an unknown outcome and dead letters; with a kind, some of its jobs
    List {
        /// The kind of which to list jobs in any state
        #[arg(long)]
        kind: Option<String>,
    },
    /// Show a job, what is to be done, and its last attempts
    Show {
        /// Its number
        id: i64,
    },
    /// Have a job done now, as if it had never failed
    Retry {
        /// Its number
        id: i64,
    },
    /// Remove a job that does not run
    Drop {
        /// Its number
        id: i64,
    },
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let command = match action {
        Action::List { kind } => JobCommand::List { kind },
        Action::Show { id } => JobCommand::Show { id },
        Action::Retry { id } => JobCommand::Retry { id },
        Action::Drop { id } => JobCommand::Drop { id },
    };
    let config = flags.load()?.config;
    print(execute(&config, AdminCommand::Job(command)).await?)
}

/// When something is due, in words.
fn due(seconds: i64) -> String {
    match seconds {
        0.. => format!("in {seconds} s"),
        _ => format!("since {} s", -seconds),
    }
}

/// A count as a line of text.
pub(super) fn count_line(count: &JobCountLine) -> String {
    let first = match count.state.as_str() {
        "waiting" => format!(", the first due {}", due(count.due_in_seconds)),
        _ => String::new(),
    };
    format!("{}: {} {}{first}", count.kind, count.jobs, count.state)
}

/// A job as a line of text.
pub(super) fn line(job: &JobLine) -> String {
    let to = match job.destination.as_str() {
        "" => String::new(),
        destination => format!(" to {destination}"),
    };
    let state = match job.state.as_str() {
        "waiting" => format!("waiting, due {}", due(job.due_in_seconds)),
        state => state.to_owned(),
    };
    let error = job.last_error.as_ref().map(|error| format!(": {error}"));
    format!(
        "{} {}{to}: {state}, {} attempts, {} failed in a row{}",
        job.id,
        job.kind,
        job.attempts,
        job.failures,
        error.unwrap_or_default()
    )
}

/// An attempt as a line of text.
pub(super) fn attempt_line(attempt: &AttemptLine) -> String {
    let took = attempt.took_ms.map(|ms| format!(", took {ms} ms"));
    let error = attempt.error.as_ref().map(|error| format!(": {error}"));
    format!(
        "  attempt {}, {} s ago{}: {}{}",
        attempt.attempt,
        attempt.seconds_ago,
        took.unwrap_or_default(),
        attempt.outcome,
        error.unwrap_or_default()
    )
}
