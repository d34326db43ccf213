//! Which leases this run holds, and may act on: what decides, as a pure machine. Beats, looks and time go in; what to
//! take and what is held come out.
//!
//! Others may take what this run holds when its beat has stood still for [`DEAD_AFTER`] by their watch, which begins no
//! sooner than the beat was written. So this run stops acting [`ACT_FOR`] after it last *began* to write one. When it
//! beats again it takes what is still its own once more, with a higher fencing number: whoever was about to take the
//! lease as it was before then fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::liveness::{Liveness, Look};
use crate::store::nodes::{Claim, Lease, RunId, StoredLease, StoredNode};

/// How long after the last beat that was written a run may act.
pub const ACT_FOR: Duration = Duration::from_secs(2);

/// Looks for which a free lease is left to the node that it suits best.
const PATIENCE: u32 = 2;

/// The leases that one run wants.
#[derive(Clone, Debug)]
pub struct LeaseKeeper {
    own: RunId,
    /// Whether this process has the database to itself: nobody beats, and every other run is dead.
    is_alone: bool,
    liveness: Liveness,
    wanted: BTreeMap<Arc<str>, Wanted>,
    /// When the last beat that was stored was begun to be written.
    beaten: Option<Duration>,
    draining: bool,
    nodes: Vec<StoredNode>,
    /// Who holds what, as it was seen last.
    holders: BTreeMap<Arc<str>, RunId>,
}

/// A lease that is wanted.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// What this run took, and was not seen to lose.
    taken: Option<i64>,
    /// Whether it acts on what it took. Not after it could not beat: then it is taken once more before.
    acts: bool,
    /// As it was seen last: who may take it, and for how many looks.
    seen: i64,
    free_for: u32,
}

impl LeaseKeeper {
    /// A keeper for a run that holds nothing yet.
    #[must_use]
    pub fn new(own: RunId, is_alone: bool) -> Self {
        Self {
            own,
            is_alone,
            liveness: Liveness::default(),
            wanted: BTreeMap::new(),
            beaten: None,
            draining: false,
            nodes: Vec::new(),
            holders: BTreeMap::new(),
        }
    }

    /// Wants a lease from now on.
    pub fn want(&mut self, name: Arc<str>) {
        self.wanted.entry(name).or_default();
    }

    /// Takes no lease any more and holds none: what to give back.
    pub fn drain(&mut self) -> Vec<Arc<str>> {
        self.draining = true;
        let taken = self
            .wanted
            .iter_mut()
            .filter(|(_, wanted)| wanted.taken.is_some());
        let taken = taken.map(|(name, wanted)| {
            *wanted = Wanted::default();
            Arc::clone(name)
        });
        taken.collect()
    }

    /// Whether this run is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// A beat was stored that was begun to be written at this moment; or this run is not registered any more, and has
    /// lost whatever it held.
    pub fn beaten(&mut self, began: Duration, is_registered: bool) {
        if is_registered {
            self.beaten = Some(began);
        } else {
            self.beaten = None;
            self.wanted
                .values_mut()
                .for_each(|wanted| *wanted = Wanted::default());
        }
    }

    /// Takes in a look at the tables: the leases first and the nodes after them, so that whoever holds a lease stands
    /// among the nodes.
    pub fn observe(&mut self, look: Look, leases: &[StoredLease], nodes: Vec<StoredNode>) {
        self.liveness.observe(look, &nodes);
        self.nodes = nodes;
        let held = leases
            .iter()
            .filter_map(|lease| Some((Arc::clone(&lease.name), lease.run?)));
        self.holders = held.collect();
        for (name, wanted) in &mut self.wanted {
            let stored = leases.iter().find(|lease| lease.name == *name);
            let (holder, fencing) = stored.map_or((None, 0), |lease| (lease.run, lease.fencing));
            if wanted
                .taken
                .is_some_and(|taken| holder != Some(self.own) || fencing > taken)
            {
                *wanted = Wanted::default();
            }
            let is_free = match holder {
                None => true,
                // Not known here to have been taken: the answer was lost.
                Some(holder) if holder == self.own => wanted.taken.is_none(),
                Some(holder) => self.is_alone || self.liveness.is_dead(holder),
            };
            // A look that is older than what was taken since.
            let is_news = wanted.taken.is_none();
            wanted.free_for = if is_free && is_news {
                wanted.free_for + 1
            } else {
                0
            };
            wanted.seen = fencing;
        }
    }

    /// What to take now.
    #[must_use]
    pub fn claims(&self, now: Duration) -> Vec<Claim> {
        if self.draining || !self.has_beaten(now) {
            return Vec::new();
        }
        let claim = |(name, wanted): (&Arc<str>, &Wanted)| {
            let again = wanted.taken.filter(|_| !wanted.acts);
            let is_due = |free_for: u32| free_for > PATIENCE || free_for > 0 && self.suits_best(name);
            let seen = again.or_else(|| {
                let is_free = wanted.taken.is_none() && is_due(wanted.free_for);
                is_free.then_some(wanted.seen)
            })?;
            Some(Claim {
                name: Arc::clone(name),
                seen,
            })
        };
        self.wanted.iter().filter_map(claim).collect()
    }

    /// What became of claims: these leases were taken, the others not.
    pub fn took(&mut self, claims: &[Claim], taken: &[Lease]) {
        for claim in claims {
            let Some(wanted) = self.wanted.get_mut(&claim.name).filter(|_| !self.draining) else {
                continue;
            };
            let lease = taken.iter().find(|lease| lease.name == claim.name);
            *wanted = Wanted {
                taken: lease.map(|lease| lease.fencing),
                acts: lease.is_some(),
                ..Wanted::default()
            };
        }
    }

    /// Has this run stop acting where it could not beat for too long. Until when nothing of this changes by itself.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        if self.has_beaten(now) {
            return self
                .beaten
                .filter(|_| !self.is_alone)
                .map(|beaten| beaten + ACT_FOR);
        }
        self.wanted.values_mut().for_each(|wanted| wanted.acts = false);
        None
    }

    /// What this run may act on, as of the last tick.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<Lease> {
        let (name, wanted) = self.wanted.get_key_value(name)?;
        let fencing = wanted.taken.filter(|_| wanted.acts)?;
        Some(Lease {
            name: Arc::clone(name),
            run: self.own,
            fencing,
        })
    }

    /// The names of the leases that are wanted.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.wanted.keys()
    }

    /// The nodes as they were seen last, each with whether it is dead.
    pub fn nodes(&self) -> impl Iterator<Item = (&StoredNode, bool)> {
        let is_dead = |node: &StoredNode| match self.is_alone {
            true => node.run != self.own,
            false => self.liveness.is_dead(node.run),
        };
        self.nodes.iter().map(move |node| (node, is_dead(node)))
    }

    /// The node that holds a lease, as it was seen last, if it is another one and lives.
    #[must_use]
    pub fn other_holder(&self, name: &str) -> Option<&StoredNode> {
        let holder = *self.holders.get(name)?;
        let mut others = self.nodes().filter(|(node, _)| node.run != self.own);
        let held = others.find(|(node, is_dead)| node.run == holder && !is_dead);
        held.map(|(node, _)| node)
    }

    /// How long after a look to look again.
    #[must_use]
    pub fn look_again_in(&self) -> Duration {
        self.liveness.look_again_in()
    }

    fn has_beaten(&self, now: Duration) -> bool {
        self.is_alone || self.beaten.is_some_and(|beaten| now < beaten + ACT_FOR)
    }

    /// Whether of the nodes that live this one comes first for a lease, in an order that is another one for each lease:
    /// so that those who start together share what there is.
    fn suits_best(&self, name: &str) -> bool {
        let others = self.nodes().filter(|(node, is_dead)| !is_dead && !node.draining);
        let best = others
            .map(|(node, _)| node.run)
            .max_by_key(|run| rank(name, *run));
        best.is_none_or(|best| best == self.own)
    }
}

/// A number for a lease and a run, evenly spread.
fn rank(name: &str, run: RunId) -> u64 {
    let mut rank = 0xcbf2_9ce4_8422_2325_u64 ^ run.0.cast_unsigned();
    for byte in name.bytes().chain(run.0.to_le_bytes()) {
        rank = (rank ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        rank ^= rank >> 29;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: RunId = RunId(1);
    const OTHER: RunId = RunId(2);

    fn node(run: RunId, beat: i64) -> StoredNode {
        StoredNode {
            name: format!("node{}", run.0),
            run,
            beat,
            address: None,
            link: None,
            zone: None,
            load: 0,
            version: String::new(),
            draining: false,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look(second: u64) -> Look {
        Look {
            asked: seconds(second),
            answered: seconds(second),
        }
    }

    fn stored(run: Option<RunId>, fencing: i64) -> Vec<StoredLease> {
        vec![StoredLease {
            name: "a".into(),
            run,
            fencing,
        }]
    }

    /// Takes what is due; the fencing number by which it then acts.
    fn takes(keeper: &mut LeaseKeeper, now: Duration) -> Option<i64> {
        let claims = keeper.claims(now);
        let taken = claims.iter().map(|claim| Lease {
            name: Arc::clone(&claim.name),
            run: OWN,
            fencing: claim.seen + 1,
        });
        let taken: Vec<_> = taken.collect();
        keeper.took(&claims, &taken);
        keeper.tick(now);
        keeper.held("a").map(|lease| lease.fencing)
    }

    fn keeper() -> LeaseKeeper {
        let mut keeper = LeaseKeeper::new(OWN, false);
        keeper.want("a".into());
        keeper.beaten(seconds(0), true);
        keeper
    }

    #[test]
    fn what_is_free_is_taken_and_what_lives_is_left_alone() {
        let mut keeper = keeper();
        assert_eq!(takes(&mut keeper, seconds(0)), None, "nothing was seen yet");
        keeper.observe(
            look(0),
            &stored(Some(OTHER), 4),
            vec![node(OWN, 1), node(OTHER, 1)],
        );
        assert_eq!(takes(&mut keeper, seconds(0)), None, "it may live");
        for second in 1..3 {
            keeper.beaten(seconds(second), true);
            keeper.observe(
                look(second),
                &stored(Some(OTHER), 4),
                vec![node(OWN, 2), node(OTHER, 1)],
            );
            assert_eq!(takes(&mut keeper, seconds(second)), None, "after {second} s");
        }
        keeper.beaten(seconds(3), true);
        keeper.observe(
            look(3),
            &stored(Some(OTHER), 4),
            vec![node(OWN, 3), node(OTHER, 1)],
        );
        assert_eq!(takes(&mut keeper, seconds(3)), Some(5), "it is dead");
    }

    #[test]
    fn who_cannot_beat_stops_acting_and_takes_its_own_once_more() {
        let mut keeper = keeper();
        keeper.observe(look(0), &[], vec![node(OWN, 1)]);
        assert_eq!(takes(&mut keeper, seconds(0)), Some(1));
        assert_eq!(keeper.tick(Duration::from_millis(1999)), Some(ACT_FOR));
        assert!(keeper.held("a").is_some());
        assert_eq!(keeper.tick(ACT_FOR), None);
        assert_eq!(keeper.held("a"), None);
        assert!(
            keeper.claims(ACT_FOR).is_empty(),
            "who does not beat takes nothing"
        );
        keeper.beaten(seconds(9), true);
        keeper.tick(seconds(9));
        assert_eq!(keeper.held("a"), None, "it may be another's by now");
        assert_eq!(takes(&mut keeper, seconds(9)), Some(2));
        keeper.observe(
            look(10),
            &stored(Some(OTHER), 3),
            vec![node(OWN, 2), node(OTHER, 1)],
        );
        assert_eq!(keeper.held("a"), None, "another has taken it");
    }

    #[test]
    fn who_is_not_registered_any_more_holds_nothing() {
        let mut keeper = keeper();
        keeper.observe(look(0), &[], vec![node(OWN, 1)]);
        assert_eq!(takes(&mut keeper, seconds(0)), Some(1));
        keeper.beaten(seconds(1), false);
        assert_eq!(keeper.held("a"), None);
        assert!(keeper.claims(seconds(1)).is_empty());
    }

    #[test]
    fn who_is_alone_takes_what_a_run_before_held_and_keeps_it() {
        let mut keeper = LeaseKeeper::new(OWN, true);
        keeper.want("a".into());
        keeper.observe(look(0), &stored(Some(OTHER), 7), vec![node(OWN, 1)]);
        assert_eq!(takes(&mut keeper, seconds(0)), Some(8));
        assert_eq!(keeper.tick(seconds(1_000_000)), None);
        assert!(keeper.held("a").is_some());
    }

    #[test]
    fn the_holder_is_seen_while_it_is_another_one_and_lives() {
        let mut keeper = keeper();
        let seen = |keeper: &LeaseKeeper| keeper.other_holder("a").map(|node| node.run);
        keeper.observe(
            look(0),
            &stored(Some(OTHER), 1),
            vec![node(OWN, 1), node(OTHER, 1)],
        );
        assert_eq!(seen(&keeper), Some(OTHER));
        for second in 1..5 {
            keeper.observe(
                look(second),
                &stored(Some(OTHER), 1),
                vec![node(OWN, 1), node(OTHER, 1)],
            );
        }
        assert_eq!(seen(&keeper), None, "its beat stands still");
        keeper.observe(look(5), &stored(Some(OWN), 2), vec![node(OWN, 1), node(OTHER, 2)]);
        assert_eq!(seen(&keeper), None);
        keeper.observe(look(6), &stored(None, 2), vec![node(OWN, 1), node(OTHER, 3)]);
        assert_eq!(seen(&keeper), None);
    }

    #[test]
    fn who_drains_gives_back_and_takes_nothing() {
        let mut keeper = keeper();
        keeper.observe(look(0), &[], vec![node(OWN, 1)]);
        assert_eq!(takes(&mut keeper, seconds(0)), Some(1));
        assert_eq!(keeper.drain(), ["a".into()]);
        assert_eq!(keeper.held("a"), None);
        keeper.observe(look(1), &stored(None, 1), vec![node(OWN, 1)]);
        assert!(keeper.claims(seconds(0)).is_empty());
    }

    #[test]
    fn free_leases_are_shared_out() {
        let runs: Vec<RunId> = (1..=3).map(RunId).collect();
        let names: Vec<Arc<str>> = (0..300).map(|n| format!("reader/{n}").into()).collect();
        let mut counts = Vec::new();
        for own in &runs {
            let mut keeper = LeaseKeeper::new(*own, false);
            names.iter().for_each(|name| keeper.want(Arc::clone(name)));
            keeper.beaten(seconds(0), true);
            keeper.observe(look(0), &[], runs.iter().map(|run| node(*run, 1)).collect());
            counts.push(keeper.claims(seconds(0)).len());
        }
        assert_eq!(counts.iter().sum::<usize>(), 300, "each by one");
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    }
}
