use std::cell::RefCell;

use proptest::prelude::*;
use ruma::user_id;

use crate::ephemeral::people::*;

const OFFLINE_AFTER: Duration = Duration::from_secs(10);

/// Longest time that a word is on the way.
const DELAY_MS: u64 = 400;

/// How often each node looks.
const STEP_MS: u64 = 100;

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

/// Some nodes, and what is on the way between them: when it arrives, at which.
struct World {
    began: Instant,
    ms: u64,
    nodes: Vec<People>,
    on_the_way: Vec<(u64, usize, PresenceSaid)>,
    random: RefCell<u64>,
}

impl World {
    fn new(nodes: usize) -> Self {
        Self {
            began: Instant::now(),
            ms: 1_000_000,
            nodes: (0..nodes).map(|_| People::new(OFFLINE_AFTER, 10)).collect(),
            on_the_way: Vec::new(),
            random: RefCell::new(7),
        }
    }

    fn now(&self) -> Moment {
        Moment {
            instant: self.began + Duration::from_millis(self.ms),
            ms: self.ms,
        }
    }

    /// A node tells all others; each hears it after a delay of its own.
    fn tell(&mut self, from: usize, said: Option<PresenceSaid>) {
        let Some(said) = said else { return };
        for node in (0..self.nodes.len()).filter(|node| *node != from) {
            let mut random = self.random.borrow_mut();
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let arrives = self.ms + (*random >> 33) % DELAY_MS;
            self.on_the_way.push((arrives, node, said.clone()));
        }
    }

    fn heartbeat(&mut self, node: usize, state: &PresenceState) {
        let at = self.now();
        let outcome = self.nodes[node].heartbeat(alice(), state, at);
        if outcome.is_due {
            let said = self.nodes[node].said(alice(), at);
            self.tell(node, said);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / STEP_MS {
            self.ms += STEP_MS;
            let at = self.now();
            let (arrived, on_the_way) = std::mem::take(&mut self.on_the_way)
                .into_iter()
                .partition(|(arrives, ..)| *arrives <= at.ms);
            self.on_the_way = on_the_way;
            let arrived: Vec<_> = arrived;
            for (_, node, said) in arrived {
                self.nodes[node].heard(&said, at);
            }
            for node in 0..self.nodes.len() {
                for (_, said) in self.nodes[node].look(at) {
                    self.tell(node, said);
                }
            }
        }
    }

    fn states(&self) -> Vec<Option<PresenceState>> {
        let states = self.nodes.iter().map(|people| people.shown(alice()));
        states.map(|shown| shown.map(|shown| shown.state)).collect()
    }
}

proptest! {
    /// Whoever has a heartbeat somewhere is present everywhere, and whoever has none for long nowhere.
    #[test]
    fn heartbeats_count_wherever_they_are(
        heartbeats in prop::collection::vec((0..3_usize, 5..98_u64), 1..40),
    ) {
        let mut world = World::new(3);
        for (node, gap) in heartbeats {
            world.heartbeat(node, &PresenceState::Online);
            // Time for the word to get there, and then until right before the user would be offline.
            world.pass(DELAY_MS + STEP_MS);
            prop_assert_eq!(world.states(), vec![Some(PresenceState::Online); 3]);
            world.pass((gap * STEP_MS).saturating_sub(DELAY_MS + STEP_MS));
            prop_assert_eq!(world.states(), vec![Some(PresenceState::Online); 3]);
        }
        world.pass(30_000);
        prop_assert_eq!(world.states(), vec![Some(PresenceState::Offline); 3]);
    }
}

#[test]
fn heartbeats_are_said_rarely_and_a_lost_word_is_made_good() {
    let mut world = World::new(2);
    let mut said = 0;
    for _ in 0..100 {
        world.heartbeat(0, &PresenceState::Online);
        said += std::mem::take(&mut world.on_the_way).len();
        world.pass(200);
    }
    assert!((3..=5).contains(&said), "{said} in 20 s");
    assert_eq!(world.states()[1], None, "all of it was lost");
    for _ in 0..30 {
        world.heartbeat(0, &PresenceState::Online);
        world.pass(200);
    }
    assert_eq!(world.states()[1], Some(PresenceState::Online));
}

#[test]
fn an_idle_device_at_one_node_changes_nothing_while_another_is_in_use() {
    let mut world = World::new(2);
    world.heartbeat(0, &PresenceState::Online);
    world.pass(1_000);
    world.heartbeat(1, &PresenceState::Unavailable);
    world.pass(1_000);
    assert_eq!(world.states(), vec![Some(PresenceState::Online); 2]);
    // What the user sets holds all the same, with the status, wherever it is set.
    let at = world.now();
    world.nodes[1].set(alice(), &PresenceState::Unavailable, Some("at lunch".into()), at);
    let said = world.nodes[1].said(alice(), at);
    world.tell(
        1,
        said.map(|said| PresenceSaid {
            by_hand: true,
            ..said
        }),
    );
    world.pass(1_000);
    assert_eq!(world.states(), vec![Some(PresenceState::Unavailable); 2]);
    let shown = world.nodes[0].shown(alice()).unwrap();
    assert_eq!(shown.status.as_deref(), Some("at lunch"));
    // An older word does not bring back what was before.
    let older = PresenceSaid {
        status: None,
        status_at: 1,
        ..world.nodes[1].said(alice(), world.now()).unwrap()
    };
    let now = world.now();
    world.nodes[0].heard(&older, now);
    assert_eq!(
        world.nodes[0].shown(alice()).unwrap().status.as_deref(),
        Some("at lunch")
    );
}

#[test]
fn no_more_are_known_than_may_be() {
    let mut world = World::new(1);
    let at = world.now();
    for n in 0..20 {
        let user_id: OwnedUserId = format!("@user{n}:example.org").try_into().unwrap();
        let outcome = world.nodes[0].heartbeat(&user_id, &PresenceState::Online, at);
        assert_eq!(outcome.is_news, n < 10);
    }
    world.pass(30_000);
    let at = world.now();
    assert!(
        world.nodes[0]
            .heartbeat(alice(), &PresenceState::Online, at)
            .is_news
    );
}
