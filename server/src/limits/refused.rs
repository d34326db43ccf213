//! How often what was asked for went over a budget in time, since the process started.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Budget;

static REFUSED: [AtomicU64; Budget::ALL.len()] = [const { AtomicU64::new(0) }; Budget::ALL.len()];

/// Counts a refusal.
pub(super) fn count(budget: Budget) {
    if let Some(count) = REFUSED.get(budget as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each budget with its refusals.
pub fn refused() -> impl Iterator<Item = (Budget, u64)> {
    let counts = REFUSED.iter().map(|count| count.load(Ordering::Relaxed));
    Budget::ALL.into_iter().zip(counts)
}
