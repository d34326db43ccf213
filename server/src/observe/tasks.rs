//! What is counted of supervised tasks, by name.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::metrics::{Family, Metric, announce};

/// Running, panics, restarts.
const FAMILIES: [Family; 3] = [
    Family {
        name: "maru_tasks_running",
        kind: "gauge",
        help: "Tasks that run beside requests, by name.",
    },
    Family {
        name: "maru_task_panics_total",
        kind: "counter",
        help: "Tasks that panicked, by name.",
    },
    Family {
        name: "maru_task_restarts_total",
        kind: "counter",
        help: "Tasks that were begun anew after a panic, by name.",
    },
];

/// Counts by the name of a task: a constant of the program, so that there are few.
pub struct TaskCounts(Mutex<BTreeMap<&'static str, Arc<OfTask>>>);

/// The counts of the tasks of a name.
#[derive(Debug, Default)]
pub struct OfTask([AtomicI64; 3]);

/// A task that runs, for as long as this value lives.
#[derive(Debug)]
pub struct Running(Arc<OfTask>);

impl TaskCounts {
    /// Nothing runs.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The counts of a name.
    pub fn of(&self, name: &'static str) -> Arc<OfTask> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(name).or_default())
    }

    /// A task begins.
    pub fn begin(&self, name: &'static str) -> Running {
        let counts = self.of(name);
        counts.add(0, 1);
        Running(counts)
    }
}

impl OfTask {
    /// It panicked.
    pub fn panicked(&self) {
        self.add(1, 1);
    }

    /// It was begun anew.
    pub fn restarted(&self) {
        self.add(2, 1);
    }

    /// Running, panics, restarts.
    pub fn counts(&self) -> [i64; 3] {
        [0, 1, 2].map(|which: usize| self.0.get(which).map_or(0, |count| count.load(Ordering::Relaxed)))
    }

    fn add(&self, which: usize, count: i64) {
        if let Some(counted) = self.0.get(which) {
            counted.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Running {
    /// It panicked.
    pub fn panicked(&self) {
        self.0.panicked();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.add(0, -1);
    }
}

impl Metric for TaskCounts {
    fn families(&self) -> Vec<Family> {
        FAMILIES.to_vec()
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (which, family) in FAMILIES.into_iter().enumerate() {
            announce(out, family)?;
            for (name, counted) in &counts {
                let count = counted.counts().get(which).copied().unwrap_or(0);
                writeln!(out, "{}{{task=\"{name}\"}} {count}", family.name)?;
            }
        }
        Ok(())
    }
}
