//! The seeds that every change is held against.

use std::sync::atomic::{AtomicU64, Ordering};

use maru_simulation::{Report, SEEDS, run};

/// Plays the seeds on all cores; each by itself is one thread's.
fn play(seeds: u64) -> Vec<Report> {
    let next = AtomicU64::new(0);
    let worker = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return reports;
            }
            reports.push(run(seed, false));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    })
}

#[test]
fn replicas_come_to_agree_whatever_befalls_them() {
    let reports = play(SEEDS);
    assert_eq!(u64::try_from(reports.len()), Ok(SEEDS), "a run has panicked");
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| !report.findings.is_empty())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let events: usize = reports.iter().map(|report| report.events).sum();
    assert!(
        events > 20_000,
        "the runs are too quiet to prove anything: {events} events"
    );
}

#[test]
fn a_seed_is_always_the_same_run() {
    let (one, other) = (run(7, false), run(7, false));
    assert_eq!((one.happenings, one.events), (other.happenings, other.events));
    assert_eq!(one.findings, other.findings);
}
