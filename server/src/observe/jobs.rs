//! What is counted of durable jobs, by kind.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::metrics::{Family, Metric, announce};

const fn family(name: &'static str, kind: &'static str, help: &'static str) -> Family {
    Family { name, kind, help }
}

const FAMILIES: [Family; 7] = [
    family(
        "maru_jobs_waiting",
        "gauge",
        "Jobs that wait, on all nodes, by kind; at most 100,000 are counted.",
    ),
    family(
        "maru_jobs_running",
        "gauge",
        "Jobs that run on this node, by kind.",
    ),
    family(
        "maru_jobs_unknown",
        "gauge",
        "Jobs of which it is not known whether they were done, by kind.",
    ),
    family(
        "maru_jobs_dead",
        "gauge",
        "Jobs that were given up (dead letters), by kind.",
    ),
    family(
        "maru_jobs_oldest_due_seconds",
        "gauge",
        "For how long the first job that waits has been due, by kind.",
    ),
    family(
        "maru_jobs_done_total",
        "counter",
        "Attempts of jobs on this node that succeeded, by kind.",
    ),
    family(
        "maru_jobs_failed_total",
        "counter",
        "Attempts of jobs on this node that failed, by kind.",
    ),
];

/// What is known of the jobs of a kind: those of all nodes as they were last counted, and those of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfKind {
    /// Jobs that wait.
    pub waiting: i64,
    /// Jobs that run here.
    pub running: i64,
    /// Jobs whose outcome is unknown.
    pub unknown: i64,
    /// Dead letters.
    pub dead: i64,
    /// For how long the first that waits has been due, in milliseconds.
    pub oldest_due_ms: i64,
    /// Attempts that succeeded.
    pub done: i64,
    /// Attempts that failed.
    pub failed: i64,
}

/// Counts by kind: kinds are constants of the program, so that there are few.
pub struct JobCounts(Mutex<BTreeMap<&'static str, OfKind>>);

impl JobCounts {
    /// Nothing is known.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Changes what is known of a kind.
    pub fn note(&self, kind: &'static str, change: impl FnOnce(&mut OfKind)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(kind).or_default());
    }

    /// What is known of a kind.
    pub fn of(&self, kind: &'static str) -> OfKind {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(kind).copied().unwrap_or_default()
    }
}

impl Metric for JobCounts {
    fn families(&self) -> Vec<Family> {
        FAMILIES.to_vec()
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (which, family) in FAMILIES.into_iter().enumerate() {
            announce(out, family)?;
            for (kind, of) in &counts {
                write!(out, "{}{{kind=\"{kind}\"}} ", family.name)?;
                match which {
                    0 => writeln!(out, "{}", of.waiting)?,
                    1 => writeln!(out, "{}", of.running)?,
                    2 => writeln!(out, "{}", of.unknown)?,
                    3 => writeln!(out, "{}", of.dead)?,
                    4 => writeln!(out, "{}", of.oldest_due_ms as f64 / 1000.0)?,
                    5 => writeln!(out, "{}", of.done)?,
                    _ => writeln!(out, "{}", of.failed)?,
                }
            }
        }
        Ok(())
    }
}
