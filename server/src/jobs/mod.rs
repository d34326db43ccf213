//! Durable jobs: work with an effect outside a request, done once although servers stop, crash and lose their database.
//!
//! A job is a row of `server/src/store/jobs/` until it is finished. A [`JobKind`] says what is done and by which rules; the
//! [`Runner`] claims what is due, has it done and stores what came of it. Whoever needs work done makes a [`NewJob`] with
//! [`new_job`], in a transaction of its own or by [`JobTables::enqueue`].
//!
//! An effect in this database is exactly once: it is stored with the end of its job ([`Done::With`]) or is harmless to
//! repeat. An effect elsewhere is at least once, with the job's id to tell a repetition by; a kind that can do without
//! even that is not repeatable, and a job whose outcome is not known waits for the admin.
//!
//! [`JobTables::enqueue`]: crate::store::jobs::JobTables::enqueue
//! [`NewJob`]: crate::store::jobs::NewJob
//!
//! | file | what |
//! |---|---|
//! | `kind.rs` | what a kind of job says of itself |
//! | `backoff.rs` | how long what failed waits |
//! | `outcome.rs` | what becomes of a job by what came of an attempt |
//! | `runner.rs` | the task that runs jobs |
//! | `due_jobs.rs` | which of those that are due are claimed |

mod backoff;
mod due_jobs;
mod kind;
mod outcome;
mod runner;

pub use backoff::Backoff;
pub use kind::{Done, JobError, JobKind, Kinds, Rules, new_job};
pub use runner::{Runner, RunnerSettings};
