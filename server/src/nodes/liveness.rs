//! Which runs are alive, by watching their beats: no clock of one machine is ever compared with that of another.
//!
//! A run is dead when its beat has stood still for [`DEAD_AFTER`] of the observer's own monotonic time, in which the
//! observer looked: time in which it did not look, because it was paused or the database was away, says nothing of
//! others, who could perhaps not beat either.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::nodes::{RunId, StoredNode};

/// How long a beat must stand still.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);

/// How often to look, when nothing is due sooner.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much of the time between two looks counts at most.
const LOOK_COUNTS: Duration = Duration::from_millis(1500);

/// A look at the table of nodes, between two moments of the observer's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When the question was asked: what stood there may have changed right after.
    pub asked: Duration,
    /// When the answer was there: what stands there may have stood there only since then.
    pub answered: Duration,
}

/// What an observer knows of others' beats. Bounded by the nodes that are registered.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    seen: BTreeMap<RunId, Seen>,
    last_answered: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    beat: i64,
    /// For how long it has been watched standing still.
    still_for: Duration,
}

impl Liveness {
    /// Takes in what a look has shown.
    pub fn observe(&mut self, look: Look, nodes: &[StoredNode]) {
        // From the answer of the last look to the question of this one: a beat that is the same in both stood still
        // in between for certain.
        let watched = match self.last_answered {
            Some(last) => look.asked.saturating_sub(last).min(LOOK_COUNTS),
            None => Duration::ZERO,
        };
        self.last_answered = Some(look.answered);
        let before = std::mem::take(&mut self.seen);
        for node in nodes {
            let still_for = match before.get(&node.run) {
                Some(seen) if seen.beat == node.beat => seen.still_for + watched,
                _ => Duration::ZERO,
            };
            let beat = node.beat;
            self.seen.insert(node.run, Seen { beat, still_for });
        }
    }

    /// Whether a run is dead: its beat stands still, or it is not registered. Nobody is before the first look.
    #[must_use]
    pub fn is_dead(&self, run: RunId) -> bool {
        match self.seen.get(&run) {
            Some(seen) => seen.still_for >= DEAD_AFTER,
            None => self.last_answered.is_some(),
        }
    }

    /// How long after a look to look again: sooner where a run would be dead by then.
    #[must_use]
    pub fn look_again_in(&self) -> Duration {
        let still = self.seen.values().map(|seen| seen.still_for);
        let due = still.filter_map(|still_for| DEAD_AFTER.checked_sub(still_for));
        let soonest = due.filter(|due| !due.is_zero()).min();
        soonest
            .unwrap_or(LOOK_EVERY)
            .clamp(Duration::from_millis(20), LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(run: i64, beat: i64) -> StoredNode {
        StoredNode {
            name: format!("node{run}"),
            run: RunId(run),
            beat,
            address: None,
            link: None,
            zone: None,
            load: 0,
            version: String::new(),
            draining: false,
        }
    }

    fn at(ms: u64) -> Look {
        let moment = Duration::from_millis(ms);
        Look {
            asked: moment,
            answered: moment,
        }
    }

    #[test]
    fn a_beat_that_stands_still_for_three_seconds_is_dead_and_not_before() {
        let mut liveness = Liveness::default();
        assert!(!liveness.is_dead(RunId(1)), "nothing is known yet");
        for second in 0..3 {
            liveness.observe(
                at(second * 1000),
                &[node(1, 7), node(2, i64::try_from(second).unwrap())],
            );
            assert!(!liveness.is_dead(RunId(1)), "after {second} s");
        }
        assert_eq!(liveness.look_again_in(), Duration::from_secs(1));
        liveness.observe(at(3000), &[node(1, 7), node(2, 3)]);
        assert!(liveness.is_dead(RunId(1)) && !liveness.is_dead(RunId(2)));
        assert!(liveness.is_dead(RunId(3)), "it is not registered");
        liveness.observe(at(3100), &[node(1, 8), node(2, 3)]);
        assert!(!liveness.is_dead(RunId(1)), "it has come back");
    }

    #[test]
    fn a_slow_answer_is_no_proof() {
        let mut liveness = Liveness::default();
        let look = |asked, answered| Look {
            asked: Duration::from_millis(asked),
            answered: Duration::from_millis(answered),
        };
        liveness.observe(look(0, 2900), &[node(1, 1)]);
        liveness.observe(look(3000, 3001), &[node(1, 1)]);
        assert!(!liveness.is_dead(RunId(1)), "the beat may be of a moment ago");
        assert_eq!(liveness.look_again_in(), LOOK_EVERY);
    }

    /// What happens to the observer between two looks, in milliseconds of its clock, and whether the other has beaten.
    fn steps() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        let pause = prop_oneof![6 => 200_u64..1100, 1 => 1100_u64..600_000];
        let answer = prop_oneof![6 => 0_u64..50, 1 => 50_u64..20_000];
        proptest::collection::vec((pause, answer, any::<bool>()), 1..80)
    }

    proptest! {
        /// Whatever pauses and jumps there are: nobody is dead whose beat did not stand still for as long by the
        /// observer's clock, nor for fewer than three looks; and one that stands still is dead after enough looks.
        #[test]
        fn nobody_is_dead_who_was_not_watched_standing_still(steps in steps()) {
            let mut liveness = Liveness::default();
            let (mut now, mut beat) = (0, 0);
            // When the answer was there that first showed this beat, and the looks since.
            let mut first = None;
            for (pause, answer, beats) in steps {
                now += pause;
                if beats {
                    beat += 1;
                    first = None;
                }
                let look = Look {
                    asked: Duration::from_millis(now),
                    answered: Duration::from_millis(now + answer),
                };
                now += answer;
                liveness.observe(look, &[node(1, beat)]);
                let (since, looks) = first.map_or((look.answered, 0), |(since, looks)| (since, looks + 1));
                first = Some((since, looks));
                let watched = look.asked.saturating_sub(since);
                if liveness.is_dead(RunId(1)) {
                    prop_assert!(watched >= DEAD_AFTER && looks >= 2, "{watched:?}, {looks} looks");
                }
                if looks >= 16 {
                    prop_assert!(liveness.is_dead(RunId(1)), "it stands still for {looks} looks");
                }
            }
        }
    }
}
