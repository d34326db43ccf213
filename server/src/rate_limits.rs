//! Limits on how often somebody may do something: a token bucket per limit and key, bounded in number.
//!
//! A bucket is one number, the time at which it will be full again (the "generic cell rate algorithm"): asking for one
//! more moves that time on by the pace of the rate, and is refused when it would lie further ahead than the burst.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Rate, Rates};
use crate::refusal::Refusal;

/// Buckets of one limit, two generations of this many. One that nobody asks for goes when there are more.
const BUCKETS: usize = 32_768;

/// What is limited. The keys are addresses ([`ClientAddress::for_limits`](crate::http::client_address::ClientAddress))
/// or user ids, by the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Attempts to log in from one address, and questions whether a name is free.
    LoginPerAddress,
    /// Attempts to log in to one account, or to prove its password, whether it exists or not.
    LoginPerAccount,
    /// Attempts to register from one address, and questions whether a registration token is good.
    RegistrationPerAddress,
    /// Events sent by one user.
    MessagesPerUser,
    /// Rooms made by one user.
    RoomsPerUser,
    /// Joins and knocks by one user.
    JoinsPerUser,
    /// Invitations by one user.
    InvitesPerUser,
    /// Uploads by one user.
    MediaUploadsPerUser,
    /// Searches by one user.
    SearchesPerUser,
}

/// All limits of a server.
#[derive(Debug)]
pub struct RateLimits {
    clock: Arc<Clock>,
    /// None when limits are off. One for each [`Limit`], in its order.
    buckets: Option<[Buckets; 9]>,
    hasher: RandomState,
}

/// The buckets of one limit.
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

impl RateLimits {
    /// Limits with these rates; none when `on` is false.
    #[must_use]
    pub fn new(on: bool, rates: &Rates, clock: Arc<Clock>) -> Self {
        let rates = [
            rates.login_per_address,
            rates.login_per_account,
            rates.registration_per_address,
            rates.messages_per_user,
            rates.rooms_per_user,
            rates.joins_per_user,
            rates.invites_per_user,
            rates.media_uploads_per_user,
            rates.searches_per_user,
        ];
        let buckets = rates.map(|rate| Buckets {
            pace: Pace::new(rate),
            times: Mutex::default(),
        });
        Self {
            clock,
            buckets: on.then_some(buckets),
            hasher: RandomState::new(),
        }
    }

    /// Counts one more thing done by `key`.
    ///
    /// # Errors
    /// [`Refusal::LimitExceeded`] when it is one too many; it does not count then.
    pub fn check(&self, limit: Limit, key: impl Hash) -> Result<(), Refusal> {
        self.check_several(limit, key, 1)
    }

    /// Counts several things done by `key` at once.
    ///
    /// # Errors
    /// [`Refusal::LimitExceeded`] when they are too many; none counts then.
    pub fn check_several(&self, limit: Limit, key: impl Hash, count: u32) -> Result<(), Refusal> {
        let Some(buckets) = self.buckets.as_ref().and_then(|all| all.get(limit as usize)) else {
            return Ok(());
        };
        let key = self.hasher.hash_one(key);
        let now = self.clock.now_ms() as f64;
        let mut times = buckets.times.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.pace.take(count.into(), times.get(key), now);
        let full_at = taken.map_err(|retry_after| Refusal::LimitExceeded { retry_after })?;
        times.set(key, full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(on: bool, per_second: f64, burst: u32) -> (RateLimits, Arc<Clock>) {
        let clock = Arc::new(Clock::Manual(AtomicU64::new(1_700_000_000_000)));
        let rates = Rates {
            messages_per_user: Rate { per_second, burst },
            ..Rates::default()
        };
        (RateLimits::new(on, &rates, Arc::clone(&clock)), clock)
    }

    fn pass(clock: &Clock, ms: u64) {
        let Clock::Manual(now) = clock else { unreachable!() };
        now.fetch_add(ms, Ordering::Relaxed);
    }

    fn wait(limits: &RateLimits, key: &str) -> Option<Duration> {
        match limits.check(Limit::MessagesPerUser, key) {
            Ok(()) => None,
            Err(Refusal::LimitExceeded { retry_after }) => Some(retry_after),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn several_at_once_count_as_many_and_pass_together_or_not_at_all() {
        let (limits, clock) = limits(true, 1.0, 5);
        let several = |count| limits.check_several(Limit::MessagesPerUser, "a", count).is_ok();
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
    fn off_means_off_and_limits_are_apart() {
        let (off, _) = limits(false, 0.0, 0);
        assert!((0..1000).all(|_| wait(&off, "a").is_none()));
        let (on, _) = limits(true, 0.0, 1);
        assert_eq!(wait(&on, "a"), None);
        assert!(wait(&on, "a").unwrap() > Duration::from_secs(3600));
        assert!(on.check(Limit::RoomsPerUser, "a").is_ok());
    }

    #[test]
    fn strangers_cannot_make_the_table_grow() {
        let (limits, _) = limits(true, 1.0, 1);
        for n in 0..BUCKETS * 3 {
            assert!(limits.check(Limit::LoginPerAddress, n).is_ok());
        }
        let all = limits.buckets.as_ref().unwrap();
        let times = all[Limit::LoginPerAddress as usize].times.lock().unwrap();
        assert!(times.young.len() + times.old.len() <= 2 * BUCKETS);
    }
}
