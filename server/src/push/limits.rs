//! What a user's push rules may be, and how much work they may make.
//!
//! Rules are written by one user, texts by another, and their product is what it costs. So both are bounded: the rules
//! when they are made, the work for each event by a number of steps. A step is about a nanosecond: a character that a
//! wildcard is tried on takes several, a byte that a word is looked for in takes one.

/// Rules of one user, predefined ones included.
pub(super) const RULES: usize = 300;

/// Conditions of one user's own rules.
pub(super) const CONDITIONS: usize = 1000;

/// Characters of those of a user's own patterns that have wildcards: what they take in memory.
pub(super) const WILD_CHARACTERS: usize = 2048;

/// Different keys of `notifications` that a user's rules may ask for (the specification has one); others are never held.
pub(super) const KEYS: usize = 8;

/// A user's rules as they are stored, in bytes.
pub(super) const ALL_BYTES: usize = 128 * 1024;

/// Conditions of one rule, and actions of one rule.
pub(super) const PARTS_PER_RULE: usize = 50;

/// Longest rule id, pattern or key, in bytes.
pub(super) const TEXT_BYTES: usize = 1000;

/// Steps that one user's own rules may take for one event.
const STEPS_PER_USER: u64 = 2_000_000;

/// Steps that the own rules of all members together may take for one event.
const STEPS_PER_EVENT: u64 = 20_000_000;

/// Steps for one event that are taken where it is sent; more are taken off the async threads.
pub(super) const STEPS_AT_ONCE: u64 = 100_000;

/// Steps that may still be taken.
#[derive(Debug)]
pub(super) struct Steps {
    left: u64,
    taken: u64,
}

impl Steps {
    /// So many.
    pub(super) fn new(left: u64) -> Self {
        Self { left, taken: 0 }
    }

    /// For predefined rules, which are few: each looks at a text once.
    pub(super) fn without_limit() -> Self {
        Self::new(u64::MAX)
    }

    /// The share of each of so many users in the work for one event.
    pub(super) fn share(users: usize) -> u64 {
        STEPS_PER_USER.min(STEPS_PER_EVENT / users.max(1) as u64)
    }

    /// Takes some, if so many are left.
    pub(super) fn take(&mut self, steps: u64) -> bool {
        let enough = steps <= self.left;
        if enough {
            self.left -= steps;
            self.taken += steps;
        }
        enough
    }

    /// How many were taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_together_take_no_more_than_an_event_has() {
        for users in [0, 1, 10, 11, 10_000, 100_000_000] {
            assert!(Steps::share(users) * users as u64 <= STEPS_PER_EVENT, "{users}");
            assert!(Steps::share(users) <= STEPS_PER_USER);
        }
    }

    #[test]
    fn steps_are_taken_while_they_last() {
        let mut steps = Steps::new(10);
        assert!(steps.take(6) && !steps.take(5) && steps.take(4) && !steps.take(1));
        assert_eq!(steps.taken(), 10);
    }
}
