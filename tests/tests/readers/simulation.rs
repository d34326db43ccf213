//! Nodes that lead readers, simulated: they crash, stand still and come back after their leases were taken, lose wake-ups,
//! see their clocks jump, and get no answers. What decides is the server's own code: `LeaseKeeper` and the readers' `Machine`.
//!
//! A seed is always the same run. What must hold all through: no two holders of a lease with one fencing number; no two
//! that act at once, but for one whose clock stood still or jumped; no effect twice or out of order. In the end, when everything
//! has healed, each reader has dealt with every position: its effect is there exactly once, or it is one that cannot be
//! dealt with and is set aside.
//!
//! Over 500 lines, because the world and all that befalls it are one state, whose events are its methods.
//!
//! A check that nothing fails proves nothing. Each of these faults, made by hand and alone, is found by some of the seeds:
//!
//! | fault | where | seeds of 300 |
//! |---|---|---|
//! | who cannot beat goes on acting | `LeaseKeeper::has_beaten` asks for no time | 5 |
//! | who beats again acts again under the old number | `LeaseKeeper::beaten` sets `acts` | 5 |
//! | who does not see that its lease was taken | `LeaseKeeper::observe` forgets nothing | 8 |
//! | others' leases are taken while they live | `LeaseKeeper::observe` asks for no death | 300 |
//! | all the time between two looks counts | `Liveness::observe` knows no `LOOK_COUNTS` | 23 |
//! | what had no answer counts as stored | `Machine::advanced` takes `ForNow` for success | 1 |
//! | what was under way goes on with the next lease | `Machine::lead` begins nothing anew | 191 |
//! | nobody looks who is not woken | `Machine::loaded` leaves `newest` as it is | 17 |
//! | a failure is not searched for | `Machine::part_failed` halves nothing | 254 |
//! | more is set aside than what failed | `Machine::part_failed` goes past the whole part | 16 |
//! | a cursor moves from anywhere | `Database::advance` | 230 |
//! | a lease is taken however it was seen | `Database::take` | 18 |
//!
//! `MARU_SEED=4711 cargo test --workspace --test main -- readers::simulation --nocapture` plays one seed and tells what
//! happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maru::nodes::LeaseKeeper;
use maru::readers::actions::{Action, Failed, Page, Part, Tuning};
use maru::readers::machine::Machine;
use maru::store::nodes::{Claim, Lease, RunId};
use maru_protocol::cursor::Position;

use super::database::{Answer, Database, ReaderNo, Request, look};

/// Seeds that are played.
const SEEDS: u64 = 300;

/// Readers: two whose effects are stored with the cursor, one whose effects carry ids, one that is rewound.
const READERS: [Kind; 4] = [Kind::WithCursor, Kind::WithCursor, Kind::ById, Kind::Rewound];

/// How often a node looks what is due.
const TICK: Duration = Duration::from_millis(50);

/// How long after its clock stood still or jumped a node may think wrong things of itself or of others.
const ODD: Duration = Duration::from_secs(6);

/// How long things go wrong, and how long they may take to heal.
const TROUBLE: Duration = Duration::from_secs(30);
const HEALING: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WithCursor,
    ById,
    Rewound,
}

/// SplitMix64: the one source of chance.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn unit(&mut self) -> f64 {
        self.below(1000) as f64 / 1000.0
    }
}

#[derive(Clone, Debug)]
enum Event {
    Tick(u64),
    Execute(u64, Who, Request),
    Answered(u64, Who, Answer),
    Append,
    Crash(usize),
    Start(usize),
    /// The process stands still; with its clock, or while the clock goes on.
    Stall(usize, Duration, bool),
    Jump(usize, Duration),
    Away(Duration),
    Pause(ReaderNo, bool),
    Rewind,
}

/// Who of a node asked, and for which of its times of leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Keeper,
    Reader(ReaderNo, u64),
}

/// What the keeper of a node waits for.
#[derive(Clone, Debug)]
enum Round {
    Resting(Duration),
    Beating(Duration),
    Looking(Duration),
    Taking(Vec<Claim>),
}

/// A reader on a node.
struct Led {
    machine: Machine,
    lease: Option<Lease>,
    /// Counts the times of leading.
    times: u64,
    page: Vec<Position>,
    effects: Vec<Position>,
    handling: Option<Part>,
    /// What is under way.
    asked: Option<Action>,
}

impl Led {
    /// Nobody knows what became of what is under way.
    fn unanswered(&mut self, local: Duration, chance: f64) {
        let lost = Failed::ForNow("there was no answer".to_owned());
        let machine = &mut self.machine;
        match self.asked.take() {
            Some(Action::Load) => machine.loaded(Err(lost), local, chance),
            Some(Action::Read(_)) => machine.page(Err(lost), false, local, chance),
            Some(Action::Advance(step) | Action::GoPast(step, _)) => {
                machine.advanced(step, Err(lost), local, chance);
            }
            Some(Action::NoteFailure { .. } | Action::Rest(..)) => machine.noted(),
            Some(Action::Handle(_)) | None => {}
        }
    }
}

/// A process.
struct Node {
    life: u64,
    name: String,
    run: RunId,
    keeper: LeaseKeeper,
    round: Round,
    led: Vec<Led>,
    began: Duration,
    jumped: Duration,
    /// Until when it stands still.
    stalled: Duration,
    /// Until when it may act on what it holds, by its own clock.
    acts_until: Option<Duration>,
    /// Until when what it does by its clock, which stood still or jumped, may be wrong.
    odd_until: Duration,
    newest: Position,
}

struct World {
    seed: u64,
    verbose: bool,
    chance: Chance,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    events: u64,
    lives: u64,
    database: Database,
    away_until: Duration,
    nodes: Vec<Option<Node>>,
    healed: bool,
    /// Positions that cannot be dealt with, and how often each of some others still fails.
    poisoned: BTreeSet<i64>,
    failing: BTreeMap<(ReaderNo, i64), u32>,
    /// What the reader whose effects carry ids has done.
    done: BTreeSet<Position>,
    findings: Vec<String>,
}

/// What came of a run.
struct Report {
    effects: usize,
    takings: u64,
    findings: Vec<String>,
}

impl Node {
    fn local(&self, now: Duration) -> Duration {
        (now + self.jumped).saturating_sub(self.began)
    }
}

fn lease_name(reader: ReaderNo) -> String {
    format!("reader/{reader}")
}

fn tuning() -> Tuning {
    Tuning {
        positions: 16,
        longest_pause: Duration::from_secs(5),
        ..Tuning::default()
    }
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut chance = Chance(seed);
        let poisoned = (0..chance.below(6)).map(|_| i64::try_from(chance.below(300)).unwrap() + 1);
        let poisoned = poisoned.collect();
        let mut world = Self {
            seed,
            verbose,
            chance,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            events: 0,
            lives: 0,
            database: Database::default(),
            away_until: Duration::ZERO,
            nodes: (0..3).map(|_| None).collect(),
            healed: false,
            poisoned,
            failing: BTreeMap::new(),
            done: BTreeSet::new(),
            findings: Vec::new(),
        };
        world.database.readers = READERS.iter().map(|_| Default::default()).collect();
        world.plan();
        world
    }

    /// What befalls whom, and when.
    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            let start = self.chance.ms(0, 3000);
            self.at(start, Event::Start(node));
        }
        for _ in 0..100 {
            let when = self.chance.ms(0, 29_000);
            self.at(when, Event::Append);
        }
        for _ in 0..self.chance.below(12) {
            let when = self.chance.ms(2000, 28_000);
            let node = usize::try_from(self.chance.below(3)).unwrap();
            let reader = usize::try_from(self.chance.below(4)).unwrap();
            let event = match self.chance.below(8) {
                0 | 1 => Event::Crash(node),
                2 | 3 => Event::Stall(node, self.chance.ms(100, 12_000), self.chance.percent(40)),
                4 => Event::Jump(node, self.chance.ms(100, 60_000)),
                5 => Event::Away(self.chance.ms(100, 9000)),
                6 => Event::Pause(reader, true),
                _ => Event::Rewind,
            };
            if matches!(event, Event::Pause(..)) {
                let later = when + self.chance.ms(100, 6000);
                self.at(later, Event::Pause(reader, false));
            }
            self.at(when, event);
        }
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((when, self.events), event);
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>9.3} {}", self.now.as_secs_f64(), text());
        }
    }

    fn play(mut self) -> Report {
        while let Some(((when, _), event)) = self.queue.pop_first() {
            self.now = when;
            if when >= TROUBLE && !self.healed {
                self.heal();
            }
            if self.healed && (self.is_done() || when >= TROUBLE + HEALING) {
                break;
            }
            self.happen(event);
        }
        self.check();
        let mut findings = self.findings;
        findings.extend(self.database.findings);
        Report {
            effects: self.database.readers.iter().map(|row| row.effects.len()).sum(),
            takings: self.lives,
            findings,
        }
    }

    fn heal(&mut self) {
        self.say(|| "everything heals".to_owned());
        self.healed = true;
        self.away_until = Duration::ZERO;
        for reader in 0..READERS.len() {
            self.database.readers[reader].paused = false;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_none() {
                self.start(node);
            }
        }
    }

    fn is_done(&self) -> bool {
        let newest = self.database.newest();
        let mut rows = self.database.readers.iter();
        rows.all(|row| row.position == newest)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Append => {
                for _ in 0..=self.chance.below(8) {
                    self.database
                        .log
                        .push(usize::try_from(self.chance.below(4)).unwrap());
                }
                let newest = self.database.newest();
                // A wake-up reaches some.
                for node in self.nodes.iter_mut().flatten() {
                    if self.chance.percent(60) {
                        node.newest = node.newest.max(newest);
                    }
                }
            }
            Event::Start(node) if self.nodes[node].is_none() => self.start(node),
            Event::Start(_) => {}
            Event::Crash(node) if !self.healed => {
                self.say(|| format!("node {node} crashes"));
                self.nodes[node] = None;
                let again = self.now + self.chance.ms(50, 9000);
                self.at(again, Event::Start(node));
            }
            Event::Stall(node, time, with_clock) if !self.healed => self.stall(node, time, with_clock),
            Event::Jump(node, by) if !self.healed => {
                if let Some(node) = &mut self.nodes[node] {
                    node.jumped += by;
                    node.odd_until = self.now + ODD;
                }
            }
            Event::Away(time) if !self.healed => {
                self.say(|| format!("the database is away for {time:?}"));
                self.away_until = self.now + time;
            }
            Event::Pause(reader, paused) if !self.healed => {
                self.say(|| format!("reader {reader} paused: {paused}"));
                self.database.readers[reader].paused = paused;
                self.tell(reader);
            }
            Event::Rewind if !self.healed => {
                let position = self.database.readers[3].position.0.unsigned_abs();
                let to = Position(i64::try_from(self.chance.below(position + 1)).unwrap());
                self.say(|| format!("rewound to {to:?}"));
                self.database.rewind(3, to);
                self.tell(3);
            }
            Event::Crash(_)
            | Event::Stall(..)
            | Event::Jump(..)
            | Event::Away(_)
            | Event::Pause(..)
            | Event::Rewind => {}
            Event::Tick(life) => self.tick(life),
            Event::Execute(life, who, request) => self.execute(life, who, request),
            Event::Answered(life, who, answer) => self.answered(life, who, answer),
        }
    }

    /// Says on some nodes that a reader was changed; the others find out.
    fn tell(&mut self, reader: ReaderNo) {
        for node in self.nodes.iter_mut().flatten() {
            if self.chance.percent(50) {
                node.led[reader].machine.changed();
            }
        }
    }

    fn start(&mut self, number: usize) {
        self.lives += 1;
        let run = RunId(i64::try_from(self.chance.draw() >> 1).unwrap());
        let name = format!("node{number}");
        self.say(|| format!("{name} starts as {run:?}"));
        self.database.register(&name, run);
        let mut keeper = LeaseKeeper::new(run, false);
        (0..READERS.len()).for_each(|reader| keeper.want(lease_name(reader).into()));
        keeper.beaten(Duration::ZERO, true);
        let led = READERS.iter().map(|_| Led {
            machine: Machine::new(tuning()),
            lease: None,
            times: 0,
            page: Vec::new(),
            effects: Vec::new(),
            handling: None,
            asked: None,
        });
        self.nodes[number] = Some(Node {
            life: self.lives,
            name,
            run,
            keeper,
            round: Round::Resting(Duration::ZERO),
            led: led.collect(),
            began: self.now,
            jumped: Duration::ZERO,
            stalled: Duration::ZERO,
            acts_until: None,
            odd_until: Duration::ZERO,
            newest: Position(0),
        });
        self.at(self.now, Event::Tick(self.lives));
    }

    fn stall(&mut self, number: usize, time: Duration, with_clock: bool) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        node.stalled = now + time;
        if with_clock {
            node.began += time;
            node.odd_until = now + time + ODD;
        }
        self.say(|| format!("node {number} stands still for {time:?}, with its clock: {with_clock}"));
    }

    /// The node of a life, if it goes on; what happens to one that stands still happens when it does no more.
    fn awake(&mut self, life: u64, event: impl FnOnce() -> Event) -> Option<usize> {
        let mut lives = self.nodes.iter().map(|node| node.as_ref().map(|node| node.life));
        let number = lives.position(|found| found == Some(life))?;
        let stalled = self.nodes[number].as_ref()?.stalled;
        if stalled > self.now {
            self.at(stalled, event());
            return None;
        }
        Some(number)
    }

    fn send(&mut self, life: u64, who: Who, request: Request) {
        let slow = self.chance.percent(2);
        let way = if slow {
            self.chance.ms(200, 6000)
        } else {
            self.chance.ms(0, 15)
        };
        self.at(self.now + way, Event::Execute(life, who, request));
    }

    /// The database does what it was asked, whoever still waits for it.
    fn execute(&mut self, life: u64, who: Who, request: Request) {
        let is_away = self.now < self.away_until;
        let is_lost = !self.healed && self.chance.percent(1);
        let answer = match is_away {
            true => Answer::Lost,
            false => self.database.answer(request),
        };
        let answer = if is_lost { Answer::Lost } else { answer };
        let way = self.chance.ms(0, 15);
        self.at(self.now + way, Event::Answered(life, who, answer));
    }

    fn tick(&mut self, life: u64) {
        let Some(number) = self.awake(life, || Event::Tick(life)) else {
            return;
        };
        self.at(self.now + TICK, Event::Tick(life));
        let mut asked = Vec::new();
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        let local = node.local(now);
        node.acts_until = node.keeper.tick(local);
        if matches!(node.round, Round::Resting(until) if local >= until) {
            node.round = Round::Beating(local);
            asked.push((Who::Keeper, Request::Beat(node.name.clone(), node.run)));
        }
        for (who, request) in asked {
            self.send(life, who, request);
        }
        self.check_holders();
        for reader in 0..READERS.len() {
            self.step(number, reader);
        }
    }

    /// No two nodes act on one lease, but for those whose clock stood still or jumped.
    fn check_holders(&mut self) {
        let now = self.now;
        let awake = self.nodes.iter().flatten();
        let awake = awake.filter(|node| node.stalled <= now && node.odd_until <= now);
        let acting = awake.filter(|node| node.acts_until.is_some_and(|until| node.local(now) < until));
        let acting: Vec<_> = acting.collect();
        if acting.len() < 2 {
            return;
        }
        for reader in 0..READERS.len() {
            let name = lease_name(reader);
            let held = acting.iter().filter(|node| node.keeper.held(&name).is_some());
            let held: Vec<_> = held.map(|node| &node.name).collect();
            if held.len() > 1 {
                self.findings
                    .push(format!("{name} is held by {held:?} at {now:?}"));
            }
        }
    }

    /// Has a reader on a node do what is due.
    fn step(&mut self, number: usize, reader: ReaderNo) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        let (local, life) = (node.local(now), node.life);
        let held = node.keeper.held(&lease_name(reader));
        let led = &mut node.led[reader];
        if led.lease != held {
            led.machine.lead(held.is_some());
            (led.lease, led.times) = (held, led.times + 1);
            (led.page, led.effects, led.handling) = (Vec::new(), Vec::new(), None);
        }
        led.machine.log_moved(node.newest);
        let Some(lease) = led.lease.clone() else { return };
        let Some(action) = led.machine.poll(local) else {
            return;
        };
        let who = Who::Reader(reader, led.times);
        led.asked = Some(action.clone());
        let request = match action {
            Action::Load => Request::Load(reader),
            Action::Read(after) => Request::Read(after),
            Action::Advance(step) => Request::Advance(reader, lease, step, std::mem::take(&mut led.effects)),
            Action::GoPast(step, _) => Request::GoPast(reader, lease, step),
            Action::NoteFailure { .. } | Action::Rest(..) => Request::Note,
            Action::Handle(part) => {
                led.handling = Some(part);
                let within = |position: &&Position| part.after < **position && **position <= part.up_to;
                let mut positions: Vec<_> = led.page.iter().filter(within).copied().collect();
                positions.dedup();
                let handled = self.handle(reader, positions);
                let took = self.chance.ms(0, 40);
                return self.at(now + took, Event::Answered(life, who, Answer::Handled(handled)));
            }
        };
        self.send(life, who, request);
    }

    /// What a reader does with positions.
    fn handle(&mut self, reader: ReaderNo, positions: Vec<Position>) -> Result<Vec<Position>, Failed> {
        if !self.healed && self.chance.percent(3) {
            return Err(Failed::ForNow("something is away".to_owned()));
        }
        for position in &positions {
            if self.poisoned.contains(&position.0) {
                return Err(Failed::ForGood("it is poisoned".to_owned()));
            }
            // Some fail a few times; fewer than make them be set aside.
            let left = match self.chance.percent(1) {
                true => 1 + u32::try_from(self.chance.below(2)).unwrap(),
                false => 0,
            };
            let left = self.failing.entry((reader, position.0)).or_insert(left);
            if *left > 0 {
                *left -= 1;
                return Err(Failed::ForGood("it is odd".to_owned()));
            }
        }
        if READERS[reader] == Kind::ById {
            self.done.extend(positions);
            return Ok(Vec::new());
        }
        Ok(positions)
    }

    fn answered(&mut self, life: u64, who: Who, answer: Answer) {
        let again = answer.clone();
        let Some(number) = self.awake(life, || Event::Answered(life, who, again)) else {
            return;
        };
        match who {
            Who::Keeper => self.keep(number, answer),
            Who::Reader(reader, times) => self.take_in(number, reader, times, answer),
        }
    }

    /// The keeper's round goes on.
    fn keep(&mut self, number: usize, answer: Answer) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        let (local, life) = (node.local(now), node.life);
        let next = match (node.round.clone(), answer) {
            (Round::Beating(began), Answer::Beaten(is_registered)) => {
                node.keeper.beaten(began, is_registered);
                node.round = Round::Looking(local);
                Some(Request::Look)
            }
            (Round::Looking(asked), Answer::Seen(leases, nodes)) => {
                node.keeper.observe(look(asked, local), &leases, nodes);
                let claims = node.keeper.claims(local);
                node.round = Round::Taking(claims.clone());
                (!claims.is_empty()).then_some(Request::Take(node.run, claims))
            }
            (Round::Taking(claims), Answer::Taken(taken)) => {
                node.keeper.took(&claims, &taken);
                None
            }
            (Round::Taking(claims), _) => {
                node.keeper.took(&claims, &[]);
                None
            }
            _ => None,
        };
        match next {
            Some(request) => self.send(life, Who::Keeper, request),
            None => node.round = Round::Resting(local + node.keeper.look_again_in()),
        }
    }

    fn take_in(&mut self, number: usize, reader: ReaderNo, times: u64, answer: Answer) {
        let chance = self.chance.unit();
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            return;
        };
        let local = node.local(now);
        let led = &mut node.led[reader];
        if led.times != times {
            return;
        }
        let machine = &mut led.machine;
        match answer {
            Answer::Loaded(loaded) => machine.loaded(Ok(loaded), local, chance),
            Answer::Page(positions, end) => {
                let is_full = end.0 % 64 == 0;
                led.page = positions.clone();
                machine.page(Ok(Page { positions, end }), is_full, local, chance);
            }
            Answer::Handled(handled) => {
                let Some(part) = led.handling.take() else { return };
                let handled = handled.map(|effects| {
                    led.effects = effects;
                    !led.effects.is_empty()
                });
                machine.handled(part, handled, local, chance);
            }
            Answer::Advanced(step, advanced) => machine.advanced(step, advanced, local, chance),
            Answer::Noted => machine.noted(),
            Answer::Lost => led.unanswered(local, chance),
            Answer::Beaten(_) | Answer::Seen(..) | Answer::Taken(_) => {}
        }
        self.step(number, reader);
    }

    /// What must hold in the end.
    fn check(&mut self) {
        let log = (1..).map(Position).zip(&self.database.log);
        let all: Vec<Position> = log
            .filter(|(_, records)| **records > 0)
            .map(|(at, _)| at)
            .collect();
        let poisoned: BTreeSet<Position> = self.poisoned.iter().copied().map(Position).collect();
        let mut findings = Vec::new();
        for (reader, row) in self.database.readers.iter().enumerate() {
            if row.position != self.database.newest() {
                findings.push(format!(
                    "reader {reader} stands at {:?} of {}",
                    row.position,
                    all.len()
                ));
                continue;
            }
            let expected: BTreeSet<_> = all.iter().filter(|at| poisoned.contains(at)).copied().collect();
            if row.set_aside != expected {
                findings.push(format!(
                    "reader {reader} has set aside {:?}, not {expected:?}",
                    row.set_aside
                ));
            }
            let done: Vec<Position> = match READERS[reader] {
                Kind::ById => self.done.iter().copied().collect(),
                Kind::WithCursor => row.effects.iter().map(|(_, position)| *position).collect(),
                Kind::Rewound => {
                    let all: BTreeSet<_> = row.effects.iter().map(|(_, position)| *position).collect();
                    all.into_iter().collect()
                }
            };
            let wanted: Vec<_> = all.iter().filter(|at| !poisoned.contains(at)).copied().collect();
            if done != wanted {
                findings.push(format!("reader {reader} has done {done:?}"));
            }
        }
        self.findings.extend(findings);
        if self.verbose {
            println!(
                "seed {} ends: {:?} {:?}",
                self.seed, self.findings, self.database.findings
            );
        }
    }
}

#[test]
fn every_reader_does_everything_once_whatever_befalls_the_nodes() {
    let seeds: Vec<u64> = match std::env::var("MARU_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..SEEDS).collect(),
    };
    let verbose = seeds.len() == 1;
    let (mut failed, mut effects, mut starts) = (Vec::new(), 0, 0);
    for seed in &seeds {
        let report = World::new(*seed, verbose).play();
        effects += report.effects;
        starts += report.takings;
        if !report.findings.is_empty() {
            failed.push((*seed, report.findings));
        }
    }
    println!("{} seeds: {effects} effects, {starts} starts", seeds.len());
    assert!(failed.is_empty(), "{} fail: {failed:#?}", failed.len());
    assert!(
        verbose || effects > 200_000,
        "too quiet to prove anything: {effects} effects"
    );
}

#[test]
fn a_seed_is_always_the_same_run() {
    let effects = |seed| World::new(seed, false).play().effects;
    assert_eq!(effects(7), effects(7));
}
