//! The task that runs jobs: it claims what is due, has it done, and stores what came of it.
//!
//! It sleeps until the next job is due, one of its own has ended, or somebody has made one; where other processes make jobs
//! too, it looks every few seconds. What came of jobs is stored together, again and again until it is stored. When the server
//! stops, what runs has a while to end; the rest is given back.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::due_jobs::{DueJobs, Look};
use super::kind::AnyKind;
use super::outcome::{AttemptEnd, Verdict, decide, has_failed_too_often, milliseconds};
use super::{JobError, Kinds};
use crate::clock::Clock;
use crate::observe::metrics::JOBS;
use crate::store::StoreError;
use crate::store::jobs::{Ended, HeldJob, JobId, JobState, JobTables, NewJob, Outcome};
use crate::store::log::Change;
use crate::store::nodes::RunId;
use crate::tasks::panic_text;

/// How often jobs are looked for of which nobody tells: where other processes make some, and where none does.
const LOOK: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

/// The shortest sleep when nothing could be claimed: others may hold what is due.
const SHORTEST: Duration = Duration::from_millis(100);

/// The pause after the database has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How often jobs are counted for metrics.
const COUNTED_EVERY: Duration = Duration::from_secs(60);

/// Attempts whose ends are stored together.
const TOGETHER: usize = 64;

/// How long the last of them may take to be stored when the server stops.
const LAST_STORED: Duration = Duration::from_secs(5);

/// The key of a job that comes again and again.
const SCHEDULE: &str = "schedule";

/// How a runner works.
#[derive(Clone, Copy, Debug)]
pub struct RunnerSettings {
    /// Whose jobs they are while they run.
    pub run: RunId,
    /// How long they may go on when the server stops.
    pub grace: Duration,
}

/// Runs the jobs of some kinds.
#[derive(Debug)]
pub struct Runner {
    kinds: Kinds,
    tables: Arc<JobTables>,
    clock: Arc<Clock>,
    settings: RunnerSettings,
    due: DueJobs,
    running: JoinSet<AttemptEnd>,
    attempts: HashMap<Id, Attempt>,
    /// How many of them there are, by kind.
    counts: HashMap<&'static str, usize>,
    /// What is not stored yet, each with its effect.
    ended: Vec<(Ended, Option<Change>)>,
    /// Whether jobs may have been claimed of which this runner does not know.
    is_unsure: bool,
    counted: Option<Instant>,
}

/// What a task does.
#[derive(Debug)]
struct Attempt {
    kind: Arc<dyn AnyKind>,
    job: HeldJob,
    started_at: i64,
}

impl Runner {
    /// A runner of these kinds that has not begun.
    #[must_use]
    pub fn new(kinds: Kinds, tables: Arc<JobTables>, clock: Arc<Clock>, settings: RunnerSettings) -> Self {
        Self {
            kinds,
            tables,
            clock,
            settings,
            due: DueJobs::default(),
            running: JoinSet::new(),
            attempts: HashMap::new(),
            counts: HashMap::new(),
            ended: Vec::new(),
            is_unsure: false,
            counted: None,
        }
    }

    /// Runs jobs until `stop` is cancelled and what runs then has ended or was given back.
    pub async fn run(mut self, stop: CancellationToken) {
        if stop.run_until_cancelled(Box::pin(self.start())).await.is_some() {
            self.work(&stop).await;
        }
        self.wind_up().await;
    }

    /// Frees the jobs of runs that are over, and makes those that come again and again. Tries for as long as it takes.
    async fn start(&self) {
        while let Err(error) = self.try_start().await {
            tracing::warn!(%error, "jobs cannot begin yet");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_start(&self) -> Result<(), StoreError> {
        let (now, own) = (self.now(), self.settings.run);
        match self.tables.are_shared() {
            true => self.tables.release_unregistered(own, now).await?,
            false => self.tables.release_others(own, now).await?,
        };
        let recurring = self.kinds.rules().filter_map(|(kind, rules)| {
            let first = rules.every?.mul_f64(rand::random::<f64>() / 10.0);
            Some(NewJob {
                kind,
                key: Some(SCHEDULE.to_owned()),
                destination: String::new(),
                due_at: now.saturating_add(milliseconds(first)),
                repeatable: rules.repeatable,
                payload: "null".to_owned(),
                created_at: now,
            })
        });
        self.tables.enqueue(recurring.collect()).await
    }

    async fn work(&mut self, stop: &CancellationToken) {
        loop {
            let wait = self.step().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "jobs wait for the database");
                PAUSE
            });
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = self.running.join_next_with_id() => self.end(ended),
                () = self.tables.woken() => {}
                () = tokio::time::sleep(wait) => {}
            }
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.end(ended);
            }
        }
    }

    /// Stores what has ended and begins what is due. For how long nothing is.
    async fn step(&mut self) -> Result<Duration, StoreError> {
        self.settle().await?;
        self.count().await?;
        let now = self.now();
        let (tables, turn) = (&self.tables, rand::random::<u32>() as usize);
        let look = self.due.look(tables, &self.kinds, &self.counts, now, turn);
        let Look {
            wanted,
            is_over,
            next_due,
        } = look.await?;
        self.is_unsure = true;
        let claimed = self.tables.claim(self.settings.run, now, wanted).await?;
        self.is_unsure = false;
        let goes_on = !claimed.is_empty() || !is_over;
        claimed.into_iter().for_each(|job| self.begin(job, now));
        if goes_on {
            return Ok(Duration::ZERO);
        }
        let (shared, alone) = LOOK;
        let look = match self.tables.are_shared() {
            true => shared.mul_f64(0.75 + rand::random::<f64>() / 2.0),
            false => alone,
        };
        let until_due = next_due.map(|due| u64::try_from(due.saturating_sub(now)).unwrap_or(0));
        let until_due = until_due.map_or(look, Duration::from_millis);
        Ok(until_due.clamp(SHORTEST, look))
    }

    fn begin(&mut self, job: HeldJob, now: i64) {
        let Some(kind) = self.kinds.get(&job.kind).map(Arc::clone) else {
            return;
        };
        let rules = kind.rules();
        if has_failed_too_often(&rules, job.failures) {
            let why = format!(
                "the server ended while it ran, {} failures in a row",
                job.failures
            );
            let outcome = Outcome::DeadLetter(why);
            return self.ended.push((
                Ended {
                    job,
                    started_at: now,
                    ended_at: now,
                    outcome,
                },
                None,
            ));
        }
        let (done_by, done) = (Arc::clone(&kind), job.clone());
        let task = self.running.spawn(async move {
            let work = AssertUnwindSafe(done_by.perform(&done)).catch_unwind();
            match tokio::time::timeout(rules.timeout, work).await {
                Ok(Ok(told)) => AttemptEnd::Told(told),
                Ok(Err(panic)) => AttemptEnd::Cut(format!("it panicked: {}", panic_text(&*panic))),
                Err(_) => AttemptEnd::Cut(format!("it took longer than {} s", rules.timeout.as_secs())),
            }
        });
        *self.counts.entry(kind.name()).or_default() += 1;
        JOBS.note(kind.name(), |of| of.running += 1);
        let attempt = Attempt {
            kind,
            job,
            started_at: now,
        };
        self.attempts.insert(task.id(), attempt);
    }

    /// A task has ended.
    fn end(&mut self, ended: Result<(Id, AttemptEnd), JoinError>) {
        let (id, end) = ended.unwrap_or_else(|error| {
            let end = match error.is_cancelled() {
                true => AttemptEnd::Stopped,
                false => AttemptEnd::Cut("it panicked".into()),
            };
            (error.id(), end)
        });
        let Some(Attempt {
            kind,
            job,
            started_at,
        }) = self.attempts.remove(&id)
        else {
            return;
        };
        if let Some(count) = self.counts.get_mut(kind.name()) {
            *count = count.saturating_sub(1);
        }
        let ended_at = self.now();
        let verdict = decide(&kind.rules(), &job, end, ended_at, rand::random());
        let Verdict {
            outcome,
            effect,
            failed,
        } = verdict;
        JOBS.note(kind.name(), |of| {
            of.running -= 1;
            of.done += i64::from(failed == Some(false));
            of.failed += i64::from(failed == Some(true));
        });
        if failed == Some(true) {
            tracing::warn!(
                kind = kind.name(),
                job = job.id.0,
                attempt = job.attempt,
                ?outcome,
                "a job failed"
            );
        }
        let ended = Ended {
            job,
            started_at,
            ended_at,
            outcome,
        };
        self.ended.push((ended, effect));
    }

    /// Stores what became of jobs. What could not be stored stays for the next time.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.is_unsure {
            let known = self.attempts.values().map(|attempt| attempt.job.id);
            let known = known.chain(self.ended.iter().map(|(ended, _)| ended.job.id));
            let known: Vec<JobId> = known.collect();
            self.tables.release_unbegun(self.settings.run, known).await?;
            self.is_unsure = false;
        }
        while let Some(at) = self.ended.iter().position(|(_, effect)| effect.is_some()) {
            let (ended, effect) = self.ended.swap_remove(at);
            self.settle_with(ended, effect.unwrap_or_default()).await?;
        }
        while !self.ended.is_empty() {
            let together: Vec<_> = self
                .ended
                .iter()
                .take(TOGETHER)
                .map(|(ended, _)| ended.clone())
                .collect();
            let count = together.len();
            let lost = self.tables.settle(together).await?;
            self.ended.drain(..count);
            for job in lost {
                tracing::warn!(job = job.0, "a job was lost to another holder");
            }
        }
        Ok(())
    }

    async fn settle_with(&mut self, ended: Ended, effect: Change) -> Result<(), StoreError> {
        match self.tables.settle_with(ended.clone(), effect.clone()).await {
            Ok(()) => Ok(()),
            Err(StoreError::JobLost) => {
                tracing::warn!(job = ended.job.id.0, "a job was lost to another holder");
                Ok(())
            }
            Err(error) if error.is_temporary() => {
                self.ended.push((ended, Some(effect)));
                Err(error)
            }
            // The effect will never be stored.
            Err(error) => {
                if let Some(kind) = self.kinds.get(&ended.job.kind) {
                    let failed = AttemptEnd::Told(Err(JobError::Failed(error.to_string())));
                    let verdict = decide(&kind.rules(), &ended.job, failed, ended.ended_at, rand::random());
                    let outcome = verdict.outcome;
                    self.ended.push((Ended { outcome, ..ended }, None));
                }
                Ok(())
            }
        }
    }

    /// Waits for what runs, gives the rest back, and stores what became of it all.
    async fn wind_up(&mut self) {
        let grace = self.settings.grace;
        let ending = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.end(ended);
            }
        };
        if tokio::time::timeout(grace, ending).await.is_err() {
            self.running.abort_all();
            while let Some(ended) = self.running.join_next_with_id().await {
                self.end(ended);
            }
        }
        let storing = async {
            while let Err(error) = self.settle().await {
                tracing::warn!(%error, "what became of jobs is not stored yet");
                tokio::time::sleep(SHORTEST).await;
            }
        };
        if tokio::time::timeout(LAST_STORED, storing).await.is_err() {
            tracing::warn!("what became of the last jobs was not stored; they are done again");
        }
    }

    /// Counts the jobs for metrics, when it is time.
    async fn count(&mut self) -> Result<(), StoreError> {
        if self
            .counted
            .is_some_and(|counted| counted.elapsed() < COUNTED_EVERY)
        {
            return Ok(());
        }
        let (counts, now) = (self.tables.counts().await?, self.now());
        self.counted = Some(Instant::now());
        for (kind, _) in self.kinds.rules() {
            JOBS.note(kind, |of| {
                let of_state = |state| {
                    counts
                        .iter()
                        .find(|count| count.kind == kind && count.state == state)
                };
                let jobs = |state| of_state(state).map_or(0, |count| count.jobs);
                of.waiting = jobs(JobState::Waiting);
                of.unknown = jobs(JobState::Unknown);
                of.dead = jobs(JobState::DeadLetter);
                let first = of_state(JobState::Waiting).map_or(now, |count| count.first_due_at);
                of.oldest_due_ms = now.saturating_sub(first).max(0);
            });
        }
        Ok(())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }
}
