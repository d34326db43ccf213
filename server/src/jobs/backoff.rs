//! How long what failed waits before it is tried again.

use std::time::Duration;

/// Waits that double from the first to the longest, with jitter, so that what failed together does not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure, at most.
    pub first: Duration,
    /// After many.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: between half of the doubled wait and all of it, by `random` from 0 to 1.
    #[must_use]
    pub fn wait(&self, failures: i64, random: f64) -> Duration {
        let doublings = u32::try_from(failures.clamp(1, 32) - 1).unwrap_or(0);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_within_their_bounds(
            first_ms in 1_u64..100_000,
            times in 1_u64..10_000,
            failures in -3_i64..10_000,
            random in 0.0_f64..=1.0,
        ) {
            let first = Duration::from_millis(first_ms);
            let backoff = Backoff { first, longest: first * u32::try_from(times).unwrap() };
            let wait = backoff.wait(failures, random);
            prop_assert!(wait >= first / 2 && wait <= backoff.longest);
            // The least wait after one more failure is no less than the least before, and twice it until the longest.
            let (least, next) = (backoff.wait(failures, 0.0), backoff.wait(failures + 1, 0.0));
            prop_assert!(next >= least);
            if failures >= 1 && backoff.wait(failures + 1, 1.0) < backoff.longest {
                prop_assert!(next.as_nanos().abs_diff(least.as_nanos() * 2) <= 2);
            }
            // Jitter takes away half at most.
            prop_assert!(backoff.wait(failures, 1.0) <= least * 2 + Duration::from_nanos(2));
            prop_assert!(wait >= least && wait <= backoff.wait(failures, 1.0));
        }
    }
}
