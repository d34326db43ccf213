//! Log lines that others cause as often as they like, and that are written now and then all the same.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A line that is written at most once in so long.
#[derive(Debug)]
pub struct Seldom {
    pause: Duration,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Seldom {
    /// At most once in `pause`.
    #[must_use]
    pub const fn new(pause: Duration) -> Self {
        Self {
            pause,
            last: Mutex::new(None),
        }
    }

    /// Whether the line is due: then how many were left out since the last one.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, left_out)) if now.duration_since(*at) < self.pause => {
                *left_out += 1;
                None
            }
            other => Some(other.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::observe::rate_limited_log::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let (seldom, begun) = (Seldom::new(Duration::from_secs(10)), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let due = [0, 1, 9, 10, 11, 30].map(|seconds| seldom.due(after(seconds)));
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
