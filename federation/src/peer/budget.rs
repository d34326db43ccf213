//! How often a peer may say what makes work for us.

use std::time::Duration;

use super::Offence;

/// At most so many in each span of time.
#[derive(Debug)]
pub(super) struct Budget {
    each: u32,
    span: Duration,
    spent: u32,
    since: Duration,
}

impl Budget {
    pub(super) fn new(each: u32, span: Duration) -> Self {
        Self {
            each,
            span,
            spent: 0,
            since: Duration::ZERO,
        }
    }

    pub(super) fn spend(&mut self, now: Duration) -> Result<(), Offence> {
        if now.saturating_sub(self.since) >= self.span {
            self.since = now;
            self.spent = 0;
        }
        self.spent += 1;
        if self.spent > self.each {
            return Err(Offence::limit("said the same kind of thing too often"));
        }
        Ok(())
    }
}
