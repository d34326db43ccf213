//! How long to wait before a peer that could not be reached is dialled again.

use std::time::Duration;

/// Waiting times that double from one failure to the next, up to a limit, each with jitter so that many
/// servers do not dial a returning one in the same moment.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The peer was reached: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure. `chance` is drawn evenly from 0 to 1; the time lies between half and all of what
    /// is due after so many failures.
    pub(super) fn failed(&mut self, chance: f64) -> Duration {
        let due = self
            .first
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        due.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_the_limit_and_begins_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<u64> = (0..8).map(|_| backoff.failed(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.failed(0.0), Duration::from_secs(30));
        backoff.reset();
        assert_eq!(backoff.failed(1.0), Duration::from_secs(1));
        for _ in 0..100 {
            assert!(backoff.failed(0.5) <= Duration::from_secs(60));
        }
    }
}
