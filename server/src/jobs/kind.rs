//! What a kind of job says of itself: its name, its rules, and what is to be done.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Backoff;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::jobs::{HeldJob, NewJob};
use crate::store::log::Change;

/// A kind of job.
pub trait JobKind: Send + Sync + fmt::Debug + 'static {
    /// Its name: in the table, in metrics, for the admin. Never changed while jobs of it wait.
    const NAME: &'static str;

    /// By which rules its jobs are done.
    const RULES: Rules;

    /// What one job says. Older jobs must stay readable.
    type Payload: Serialize + DeserializeOwned + Send + 'static;

    /// Does the job. It may be dropped at any `await` when it takes too long or the server stops.
    fn perform(
        &self,
        job: &HeldJob,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Done, JobError>> + Send;
}

/// By which rules jobs of a kind are done.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long what failed waits.
    pub backoff: Backoff,
    /// Failures in a row after which a job is a dead letter; none for one that is tried for ever.
    pub most_failures: Option<i64>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Jobs that one node does at the same time.
    pub at_once: usize,
    /// Those of them for one destination, on all nodes together.
    pub per_destination: Option<usize>,
    /// Whether a job may be done again when it is not known whether it was done.
    pub repeatable: bool,
    /// For what comes again and again: there is one job of the kind, due so long after its last end.
    pub every: Option<Duration>,
}

impl Rules {
    /// One at a time, for a minute; what fails is tried again after 10 seconds to an hour, 20 times.
    pub const USUAL: Self = Self {
        backoff: Backoff {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(60 * 60),
        },
        most_failures: Some(20),
        timeout: Duration::from_secs(60),
        at_once: 1,
        per_destination: None,
        repeatable: true,
        every: None,
    };

    /// For what comes again so long after its last end, and is never given up.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self {
            most_failures: None,
            every: Some(interval),
            ..Self::USUAL
        }
    }
}

/// What came of a job that was done.
#[derive(Debug)]
pub enum Done {
    /// Nothing more is to be stored.
    Finished,
    /// Of what comes again and again, only a part: the rest is due at once.
    Partly,
    /// These records are its effect, stored with its end or not at all. They must stand on no room's head.
    With(Change),
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It may succeed later.
    #[error("{0}")]
    Failed(String),
    /// It is not its time: it is put off for so long, which is no failure.
    #[error("put off for {} s", .0.as_secs())]
    Later(Duration),
    /// It never will succeed.
    #[error("{0}")]
    ForGood(String),
    /// Whether it was done is not known.
    #[error("{0}")]
    Unknown(String),
}

impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.in_full())
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A job to make, due at `due_at` (milliseconds since 1970, as `now`).
///
/// # Errors
/// When the payload has no JSON.
pub fn new_job<K: JobKind>(
    payload: &K::Payload,
    key: Option<String>,
    destination: String,
    due_at: i64,
    now: i64,
) -> Result<NewJob, serde_json::Error> {
    Ok(NewJob {
        kind: K::NAME,
        key,
        destination,
        due_at,
        repeatable: K::RULES.repeatable,
        payload: serde_json::to_string(payload)?,
        created_at: now,
    })
}

/// The kinds that a server does.
#[derive(Clone, Debug, Default)]
pub struct Kinds(BTreeMap<&'static str, Arc<dyn AnyKind>>);

impl Kinds {
    /// These and one more.
    #[must_use]
    pub fn with<K: JobKind>(mut self, kind: K) -> Self {
        self.0.insert(K::NAME, Arc::new(Erased(kind)));
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<dyn AnyKind>> {
        self.0.get(name)
    }

    /// Their names and rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&'static str, Rules)> {
        self.0.iter().map(|(name, kind)| (*name, kind.rules()))
    }
}

/// A kind whose payload is not known to who calls it.
pub(super) trait AnyKind: Send + Sync + fmt::Debug {
    fn name(&self) -> &'static str;
    fn rules(&self) -> Rules;
    fn perform<'k>(&'k self, job: &'k HeldJob) -> BoxFuture<'k, Result<Done, JobError>>;
}

#[derive(Debug)]
struct Erased<K>(K);

impl<K: JobKind> AnyKind for Erased<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn rules(&self) -> Rules {
        K::RULES
    }

    fn perform<'k>(&'k self, job: &'k HeldJob) -> BoxFuture<'k, Result<Done, JobError>> {
        Box::pin(async move {
            let unreadable = |error| JobError::ForGood(format!("its payload cannot be read: {error}"));
            let payload = serde_json::from_str(&job.payload).map_err(unreadable)?;
            self.0.perform(job, payload).await
        })
    }
}
