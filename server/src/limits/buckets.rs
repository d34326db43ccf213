//! How often somebody may do something, while the server runs: a token bucket per budget and key, bounded in number.
//!
//! A bucket is one number, the time at which it will be full again (the "generic cell rate algorithm"): asking for one
//! more moves that time on by the pace of the rate, and is refused when it would lie further ahead than the burst.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Budget, Rate, Rates, refused};
use crate::clock::Clock;

/// Buckets of one budget, two generations of this many. One that nobody asks for goes when there are more.
const BUCKETS: usize = 32_768;

/// More than a budget allows; nothing of it counted. The same may be tried again after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub Duration);

/// All budgets of a server that are rates.
#[derive(Debug)]
pub struct Budgets {
    clock: Arc<Clock>,
    /// None when rates are not limited. One for each [`Budget`], in its order.
    buckets: Option<[Buckets; Budget::ALL.len()]>,
    hasher: RandomState,
}

/// The buckets of one budget.
#[derive(Debug)]
struct Buckets {
    pace: Pace,
    times: Mutex<Generations>,
}

/// A rate in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    /// From one to the next in the long run.
    interval: f64,
    /// How far a bucket may be from full.
    burst: f64,
}

/// The times at which buckets are full again, by the hash of their keys: young ones and those not asked for lately.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, f64>,
    old: HashMap<u64, f64>,
}

impl Pace {
    fn new(rate: Rate) -> Self {
        // Even a rate of nothing a second lets a bucket fill in the end, after a year.
        let interval = (1000.0 / rate.per_second).clamp(0.0, 3.2e10);
        Self {
            interval,
            burst: interval * f64::from(rate.burst.max(1)),
        }
    }

    /// Takes `count` from a bucket that is full at `full_at`: when it is full after that, or how long to wait. A full
    /// bucket gives everything it has for more than that.
    fn take(self, count: f64, full_at: f64, now: f64) -> Result<f64, Duration> {
        let next = full_at.max(now) + (self.interval * count).min(self.burst);
        let excess = next - now - self.burst;
        // A thousandth of a millisecond is the error of arithmetic, not of the caller.
        if excess <= 0.001 {
            return Ok(next);
        }
        Err(Duration::try_from_secs_f64(excess / 1000.0).unwrap_or(Duration::MAX))
    }
}

impl Generations {
    fn get(&self, key: u64) -> f64 {
        let known = self.young.get(&key).or_else(|| self.old.get(&key));
        known.copied().unwrap_or(0.0)
    }

    fn set(&mut self, key: u64, full_at: f64) {
        if self.young.len() >= BUCKETS && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, full_at);
    }
}

impl Budgets {
    /// Budgets with these rates; none when `on` is false.
    #[must_use]
    pub fn new(on: bool, rates: &Rates, clock: Arc<Clock>) -> Self {
        let buckets = Budget::ALL.map(|budget| Buckets {
            pace: Pace::new(rates.of(budget)),
            times: Mutex::default(),
        });
        Self {
            clock,
            buckets: on.then_some(buckets),
            hasher: RandomState::new(),
        }
    }

    /// Whether rates are limited at all.
    #[must_use]
    pub fn apply(&self) -> bool {
        self.buckets.is_some()
    }

    /// Spends one of what `key` has of a budget.
    ///
    /// # Errors
    /// [`TooMany`] when it has none.
    pub fn spend(&self, budget: Budget, key: impl Hash) -> Result<(), TooMany> {
        self.spend_several(budget, key, 1)
    }

    /// Spends several of what `key` has of a budget at once.
    ///
    /// # Errors
    /// [`TooMany`] when it has fewer.
    pub fn spend_several(&self, budget: Budget, key: impl Hash, count: u32) -> Result<(), TooMany> {
        let Some(buckets) = self.buckets.as_ref().and_then(|all| all.get(budget as usize)) else {
            return Ok(());
        };
        let key = self.hasher.hash_one(key);
        let now = self.clock.now_ms() as f64;
        let mut times = buckets.times.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.pace.take(count.into(), times.get(key), now);
        match taken {
            Ok(full_at) => times.set(key, full_at),
            Err(retry_after) => {
                refused::count(budget);
                return Err(TooMany(retry_after));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(on: bool, per_second: f64, burst: u32) -> (Budgets, Arc<Clock>) {
        let clock = Arc::new(Clock::Manual(AtomicU64::new(1_700_000_000_000)));
        let rates = Rates {
            messages_per_user: Rate { per_second, burst },
            ..Rates::default()
        };
        (Budgets::new(on, &rates, Arc::clone(&clock)), clock)
    }

    fn pass(clock: &Clock, ms: u64) {
        let Clock::Manual(now) = clock else { unreachable!() };
        now.fetch_add(ms, Ordering::Relaxed);
    }

    fn wait(limits: &Budgets, key: &str) -> Option<Duration> {
        match limits.spend(Budget::Events, key) {
            Ok(()) => None,
            Err(TooMany(retry_after)) => Some(retry_after),
        }
    }

    #[test]
    fn several_at_once_count_as_many_and_pass_together_or_not_at_all() {
        let (limits, clock) = limits(true, 1.0, 5);
        let several = |count| limits.spend_several(Budget::Events, "a", count).is_ok();
        assert!(several(3));
        assert!(!several(3));
        assert!(several(2) && !several(1), "what was refused did not count");
        pass(&clock, 5_000);
        assert!(several(100), "more than the burst takes all of it");
        assert!(!several(1));
        assert!(several(0), "nothing costs nothing");
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (limits, clock) = limits(true, 2.0, 5);
        for _ in 0..5 {
            assert_eq!(wait(&limits, "a"), None);
        }
        let told = wait(&limits, "a").unwrap();
        assert_eq!(told, Duration::from_millis(500));
        assert_eq!(
            wait(&limits, "a").unwrap(),
            told,
            "a refused attempt does not count"
        );
        assert_eq!(wait(&limits, "b"), None, "others are not held up");
        pass(&clock, 499);
        assert!(wait(&limits, "a").is_some());
        pass(&clock, 1);
        assert_eq!(wait(&limits, "a"), None, "what was told is true");
        assert!(wait(&limits, "a").is_some());
        pass(&clock, 60_000);
        for _ in 0..5 {
            assert_eq!(wait(&limits, "a"), None);
        }
        assert!(
            wait(&limits, "a").is_some(),
            "a long pause saves up no more than the burst"
        );
    }

    #[test]
    fn refusals_are_counted_by_budget() {
        let rates = Rates {
            searches_per_user: Rate {
                per_second: 1.0,
                burst: 2,
            },
            ..Rates::default()
        };
        let (_, clock) = limits(true, 1.0, 1);
        let limits = Budgets::new(true, &rates, clock);
        let refused = || {
            let mut all = refused::refused();
            all.find(|(budget, _)| *budget == Budget::Searches).unwrap().1
        };
        let before = refused();
        let spent = (0..5).filter(|_| limits.spend(Budget::Searches, "a").is_ok());
        assert_eq!(spent.count(), 2);
        assert_eq!(refused() - before, 3);
    }

    #[test]
    fn off_means_off_and_budgets_are_apart() {
        let (off, _) = limits(false, 0.0, 0);
        assert!((0..1000).all(|_| wait(&off, "a").is_none()));
        let (on, _) = limits(true, 0.0, 1);
        assert_eq!(wait(&on, "a"), None);
        assert!(wait(&on, "a").unwrap() > Duration::from_secs(3600));
        assert!(on.spend(Budget::Rooms, "a").is_ok());
    }

    #[test]
    fn strangers_cannot_make_the_table_grow() {
        let (limits, _) = limits(true, 1.0, 1);
        for n in 0..BUCKETS * 3 {
            assert!(limits.spend(Budget::LoginsFromAddress, n).is_ok());
        }
        let all = limits.buckets.as_ref().unwrap();
        let times = all[Budget::LoginsFromAddress as usize].times.lock().unwrap();
        assert!(times.young.len() + times.old.len() <= 2 * BUCKETS);
    }
}
