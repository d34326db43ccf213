//! The tables of nodes, leases and readers as a model: what the store promises (`tests/tests/storage/nodes.rs` and
//! `tests/tests/storage/readers.rs`), each call at one moment. It keeps account of what must hold.

use std::collections::{BTreeMap, BTreeSet};

use maru::nodes::Look;
use maru::readers::actions::{Failed, Loaded, Step};
use maru::store::nodes::{Claim, Lease, RunId, StoredLease, StoredNode};
use maru_protocol::cursor::Position;

/// A reader by number.
pub(super) type ReaderNo = usize;

/// What a node asks of the database.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Beat(String, RunId),
    Look,
    Take(RunId, Vec<Claim>),
    Load(ReaderNo),
    Read(Position),
    Advance(ReaderNo, Lease, Step, Vec<Position>),
    GoPast(ReaderNo, Lease, Step),
    Note,
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Beaten(bool),
    Seen(Vec<StoredLease>, Vec<StoredNode>),
    Taken(Vec<Lease>),
    Loaded(Loaded),
    Page(Vec<Position>, Position),
    Advanced(Step, Result<(), Failed>),
    Handled(Result<Vec<Position>, Failed>),
    Noted,
    /// Nobody knows whether it was done.
    Lost,
}

/// A reader's row, and what it has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) position: Position,
    pub(super) paused: bool,
    /// How often it was rewound.
    pub(super) rewound: u32,
    /// Effects that were stored with the cursor, in order: which rewinding they follow, and of which position.
    pub(super) effects: Vec<(u32, Position)>,
    pub(super) set_aside: BTreeSet<Position>,
}

/// The database.
#[derive(Clone, Debug, Default)]
pub(super) struct Database {
    pub(super) nodes: BTreeMap<String, StoredNode>,
    leases: BTreeMap<String, StoredLease>,
    pub(super) readers: Vec<Row>,
    /// How many records stand at each position, from 1.
    pub(super) log: Vec<usize>,
    /// Who took each lease by which number.
    takings: BTreeMap<(String, i64), RunId>,
    pub(super) findings: Vec<String>,
}

impl Database {
    pub(super) fn newest(&self) -> Position {
        Position(i64::try_from(self.log.len()).unwrap())
    }

    pub(super) fn register(&mut self, name: &str, run: RunId) {
        let beat = self.nodes.get(name).map_or(1, |node| node.beat + 1);
        let node = StoredNode {
            name: name.to_owned(),
            run,
            beat,
            address: None,
            link: None,
            zone: None,
            load: 0,
            version: String::new(),
            draining: false,
        };
        self.nodes.insert(name.to_owned(), node);
    }

    pub(super) fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Beat(name, run) => {
                let node = self.nodes.get_mut(&name).filter(|node| node.run == run);
                Answer::Beaten(node.map(|node| node.beat += 1).is_some())
            }
            Request::Look => Answer::Seen(
                self.leases.values().cloned().collect(),
                self.nodes.values().cloned().collect(),
            ),
            Request::Take(run, claims) => Answer::Taken(self.take(run, claims)),
            Request::Load(reader) => {
                let row = &self.readers[reader];
                Answer::Loaded(Loaded {
                    position: row.position,
                    paused: row.paused,
                })
            }
            Request::Read(after) => self.read(after),
            Request::Advance(reader, lease, step, effects) => {
                let advanced = self.advance(reader, &lease, step);
                if advanced.is_ok() {
                    self.apply(reader, step, &effects);
                }
                Answer::Advanced(step, advanced)
            }
            Request::GoPast(reader, lease, step) => {
                let advanced = self.advance(reader, &lease, step);
                if advanced.is_ok() {
                    self.readers[reader].set_aside.insert(step.to);
                }
                Answer::Advanced(step, advanced)
            }
            Request::Note => Answer::Noted,
        }
    }

    fn take(&mut self, run: RunId, claims: Vec<Claim>) -> Vec<Lease> {
        let mut taken = Vec::new();
        for Claim { name, seen } in claims {
            let stored = self
                .leases
                .entry(name.to_string())
                .or_insert_with(|| StoredLease {
                    name: name.clone(),
                    run: None,
                    fencing: 0,
                });
            if stored.fencing == seen {
                (stored.run, stored.fencing) = (Some(run), seen + 1);
                let before = self.takings.insert((name.to_string(), seen + 1), run);
                if before.is_some_and(|before| before != run) {
                    self.findings
                        .push(format!("{name} has two holders with the number {}", seen + 1));
                }
            }
            if stored.run == Some(run) && stored.fencing == seen + 1 {
                let fencing = stored.fencing;
                taken.push(Lease { name, run, fencing });
            }
        }
        taken
    }

    fn read(&self, after: Position) -> Answer {
        let first = usize::try_from(after.0).unwrap();
        let positions = self.log.iter().enumerate().skip(first).take(64);
        let positions = positions.flat_map(|(at, records)| {
            let position = Position(i64::try_from(at).unwrap() + 1);
            std::iter::repeat_n(position, *records)
        });
        let end = self.newest().min(Position(after.0 + 64)).max(after);
        Answer::Page(positions.collect(), end)
    }

    fn advance(&mut self, reader: ReaderNo, lease: &Lease, step: Step) -> Result<(), Failed> {
        let row = &mut self.readers[reader];
        if row.position != step.from || row.paused {
            return Err(Failed::CursorMoved);
        }
        let stored = self.leases.get(&*lease.name);
        if stored.is_none_or(|stored| stored.run != Some(lease.run) || stored.fencing != lease.fencing) {
            return Err(Failed::LeaseLost);
        }
        if step.to < step.from {
            self.findings
                .push(format!("reader {reader} goes back from {step:?}"));
        }
        row.position = step.to;
        Ok(())
    }

    fn apply(&mut self, reader: ReaderNo, step: Step, effects: &[Position]) {
        let row = &mut self.readers[reader];
        for effect in effects {
            let last = row.effects.last().filter(|(rewound, _)| *rewound == row.rewound);
            if last.is_some_and(|(_, last)| last >= effect) {
                self.findings
                    .push(format!("reader {reader}: {effect:?} comes twice or late"));
            }
            if *effect <= step.from || *effect > step.to {
                self.findings
                    .push(format!("reader {reader}: {effect:?} is stored with {step:?}"));
            }
            row.effects.push((row.rewound, *effect));
        }
    }

    pub(super) fn rewind(&mut self, reader: ReaderNo, to: Position) {
        let row = &mut self.readers[reader];
        row.position = to;
        row.rewound += 1;
        row.set_aside.retain(|position| *position <= to);
    }
}

/// A look between two moments.
pub(super) fn look(asked: std::time::Duration, answered: std::time::Duration) -> Look {
    Look { asked, answered }
}
