//! The servers of a run, and time.
//!
//! Everything that happens is a [`Happening`] with its time, and they happen one after the other.
//!
//! - [`links`]: what is between servers: connections with their sessions, slow, broken and cut.
//! - [`log`]: what a server sends of its log, and stores of others'.
//! - [`disk`]: what is committed, what follows from that, and crashes.
//! - [`inbox`]: what came is taken in.
//! - [`fetch`]: gaps are filled.
//! - [`past`]: what is missing before a gap is fetched.
//! - [`requests`]: questions and answers.
//! - [`entering`]: users act, and join through other servers.
//! - [`inviting`]: users are invited from other servers, and decline.

mod disk;
mod entering;
mod fetch;
mod inbox;
mod inviting;
mod links;
mod log;
mod past;
mod requests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use maru_federation::peer::Session;
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::log::Cursor;

use crate::random::Random;
use crate::server::Server;
use requests::{Asking, Reply, Request};

/// Events that one run may handle: more is a run without end.
const MOST_HAPPENINGS: usize = 2_000_000;

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Dial {
        from: usize,
        to: usize,
    },
    Connected {
        from: usize,
        to: usize,
        connection: u64,
    },
    /// One end notices that the connection is gone.
    Broken {
        at: usize,
        peer: usize,
        connection: u64,
    },
    Frame {
        at: usize,
        peer: usize,
        connection: u64,
        bytes: Vec<u8>,
    },
    Judged {
        at: usize,
        peer: usize,
        connection: u64,
    },
    LoadReceived {
        at: usize,
        peer: usize,
        connection: u64,
    },
    ReadLog {
        at: usize,
        peer: usize,
        connection: u64,
        after: Option<Cursor>,
        max_items: usize,
    },
    LoadExtremities {
        at: usize,
        peer: usize,
        connection: u64,
    },
    Timer {
        at: usize,
        peer: usize,
        connection: u64,
    },
    Commit {
        at: usize,
        run: u64,
    },
    Work {
        at: usize,
        run: u64,
    },
    /// The past of the room is to be made whole.
    Replicate {
        at: usize,
        run: u64,
    },
    Requested {
        request: u64,
        what: Request,
    },
    Replied {
        request: u64,
        reply: Reply,
    },
    /// A server stops in the middle of something.
    Stop {
        at: usize,
        run: u64,
    },
    Start(usize),
    /// Whoever waits for what a server fetches from others gives up.
    GiveUp {
        at: usize,
        run: u64,
    },
    /// Something that the plan of the run has for this time.
    Planned(usize),
}

/// The world of one run.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) version: RoomVersion,
    pub(crate) now: Duration,
    pub(crate) servers: Vec<Server>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, (Duration, Happening)>,
    last: u64,
    /// Pairs of servers, the lower first, that do not hear each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// The slowest that anything between two servers may be, in milliseconds.
    pub(crate) slowest_ms: u64,
    /// When the last frame of a stream arrives, by connection and end.
    arrivals: BTreeMap<(u64, usize), Duration>,
    asking: BTreeMap<u64, Asking>,
    pub(crate) handled: usize,
    /// What was seen during the run that must not be.
    pub(crate) seen: BTreeSet<String>,
    pub(crate) verbose: bool,
}

impl World {
    pub(crate) fn new(
        random: Random,
        version: RoomVersion,
        servers: Vec<Server>,
        slowest_ms: u64,
        verbose: bool,
    ) -> Self {
        Self {
            random,
            version,
            now: Duration::ZERO,
            servers,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            last: 0,
            cut: BTreeSet::new(),
            slowest_ms,
            arrivals: BTreeMap::new(),
            asking: BTreeMap::new(),
            handled: 0,
            seen: BTreeSet::new(),
            verbose,
        }
    }

    /// Has something happen after a while.
    pub(crate) fn after(&mut self, pause: Duration, happening: Happening) {
        self.last += 1;
        self.queue.push(Reverse((self.now + pause, self.last)));
        self.happenings.insert(self.last, (self.now + pause, happening));
    }

    fn note(&self, at: usize, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10.3} s{at} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Lets time pass until the plan has something to do, or until a time; `false` when that came first, or without end.
    pub(crate) fn run_until(&mut self, end: Duration) -> Option<usize> {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end || self.handled >= MOST_HAPPENINGS {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.handled += 1;
            let Some((_, happening)) = self.happenings.remove(&number) else {
                continue;
            };
            if let Happening::Planned(step) = happening {
                return Some(step);
            }
            self.happen(happening);
        }
        self.now = self.now.max(end);
        None
    }

    /// Whether the run has used up all that it may.
    pub(crate) fn is_endless(&self) -> bool {
        self.handled >= MOST_HAPPENINGS
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dial { from, to } => self.dial(from, to),
            Happening::Connected { from, to, connection } => self.connected(from, to, connection),
            Happening::Broken { at, peer, connection } => self.broken(at, peer, connection),
            Happening::Frame {
                at,
                peer,
                connection,
                bytes,
            } => {
                let now = self.now;
                self.with(at, peer, connection, |session| {
                    session.frame(bytes.get(4..).unwrap_or_default(), now);
                });
            }
            Happening::Judged { at, peer, connection } => self.with(at, peer, connection, Session::judged),
            Happening::LoadReceived { at, peer, connection } => self.load_received(at, peer, connection),
            Happening::ReadLog {
                at,
                peer,
                connection,
                after,
                max_items,
            } => {
                self.read_log(at, peer, connection, after.as_ref(), max_items);
            }
            Happening::LoadExtremities { at, peer, connection } => {
                let rooms = self.extremities_for(at, peer);
                self.with(at, peer, connection, |session| session.extremities(rooms));
            }
            Happening::Timer { at, peer, connection } => self.timer(at, peer, connection),
            Happening::Commit { at, run } => self.commit(at, run),
            Happening::Work { at, run } => {
                if self.servers[at].run == run {
                    self.work(at);
                }
            }
            Happening::Replicate { at, run } => {
                if self.servers[at].run == run {
                    self.next_page(at);
                }
            }
            Happening::Requested { request, what } => self.requested(request, what),
            Happening::Replied { request, reply } => self.replied(request, reply),
            Happening::Stop { at, run } => {
                if self.servers[at].run == run {
                    self.stop(at);
                }
            }
            Happening::Start(at) => self.start(at),
            Happening::GiveUp { at, run } => {
                if self.servers[at].run == run {
                    self.cancel_page(at);
                    self.cancel_join(at);
                }
            }
            Happening::Planned(_) => {}
        }
    }
}
