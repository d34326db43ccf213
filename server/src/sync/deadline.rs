//! Waiting no longer than a device wants to.

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

/// Waits until a deadline for something; whether it came and was true. A deadline that has passed costs no time: a timer
/// would fire at its next tick, up to two milliseconds later.
pub(super) async fn before(deadline: Instant, wait: impl Future<Output = bool>) -> bool {
    if deadline <= Instant::now() {
        return wait.now_or_never().unwrap_or(false);
    }
    timeout_at(deadline, wait).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_deadline_that_has_passed_is_not_left_to_a_timer() {
        let now = Instant::now();
        assert_eq!(before(now, pending()).now_or_never(), Some(false));
        assert_eq!(
            before(now, ready(true)).now_or_never(),
            Some(true),
            "what is there counts"
        );
        let later = now + std::time::Duration::from_secs(30);
        assert_eq!(before(later, pending()).now_or_never(), None);
    }
}
