//! The servers of a run, what is between them, and time.
//!
//! Everything that happens is a [`Happening`] with its time, and they happen one after the other. Streams keep their order;
//! connections, and requests with their answers, overtake each other.
//!
//! Over 500 lines, because it is one loop over one list of things that can happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use maru_federation::peer::{Action, Identity, Role, Session, Window};
use maru_protocol::cursor::LogId;
use maru_protocol::event::{Event, Verified};
use maru_protocol::gap::work::{Next, Work};
use maru_protocol::gap::{self, Answer, Effect, Gap, Question};
use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::log::{Cursor, LogItem, Skipped};
use maru_protocol::wire::message::{Received, RoomExtremities};
use ruma::{OwnedEventId, OwnedServerName};

use crate::database::{Arrived, Record};
use crate::random::Random;
use crate::replica::{self, Act, Admission, Taken, Template, Writer};
use crate::server::{Filling, Live, Server, Then, Worker};

/// Rows of the inbox that are ingested together.
const TOGETHER: usize = 128;

/// Own events past which a peer that was away is told to fetch them.
const BACKLOG: usize = 12;

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Events that one run may handle: more is a run without end.
const MOST_HAPPENINGS: usize = 2_000_000;

/// What one server asks of another.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Question(Question, Vec<OwnedEventId>),
    Make(Act),
    Send(Arc<Event>),
}

/// The answer; none is a refusal or silence.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    None,
    Answer(Answer),
    Template(Template),
    Admission(Admission),
}

/// What a server waits for an answer for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Its gap.
    Gap,
    /// The template of a join.
    Template(Act),
    /// The admission to a room of this version by this join.
    Admission(RoomVersion, Arc<Event>),
}

/// A request under way.
#[derive(Clone, Debug)]
struct Asking {
    from: usize,
    to: usize,
    run: u64,
    asked: Asked,
}

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
    Requested {
        request: u64,
        what: Request,
    },
    Replied {
        request: u64,
        reply: Reply,
    },
    Start(usize),
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
    happenings: BTreeMap<u64, Happening>,
    last: u64,
    /// Pairs of servers, the lower first, that do not hear each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// The slowest that anything between two servers may be, in milliseconds.
    pub(crate) slowest_ms: u64,
    /// When the last frame of a stream arrives, by connection and end.
    arrivals: BTreeMap<(u64, usize), Duration>,
    asking: BTreeMap<u64, Asking>,
    pub(crate) handled: usize,
    pub(crate) verbose: bool,
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

/// A cursor of a log, as `server/src/peers/outgoing.rs` makes it.
fn cursor_at(log_id: LogId, position: i64) -> Cursor {
    let bytes = [&log_id.0[..], &position.to_be_bytes()].concat();
    Cursor::new(&bytes).unwrap_or_default()
}

fn position_of(cursor: &Cursor, log_id: LogId, end: i64) -> Option<i64> {
    let (log, position) = cursor.split_at_checked(16)?;
    let position = i64::from_be_bytes(position.try_into().ok()?);
    (log == log_id.0 && (0..=end).contains(&position)).then_some(position)
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
            verbose,
        }
    }

    /// Has something happen after a while.
    pub(crate) fn after(&mut self, pause: Duration, happening: Happening) {
        self.last += 1;
        self.queue.push(Reverse((self.now + pause, self.last)));
        self.happenings.insert(self.last, happening);
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
            let Some(happening) = self.happenings.remove(&number) else {
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
            Happening::Requested { request, what } => self.requested(request, what),
            Happening::Replied { request, reply } => self.replied(request, reply),
            Happening::Start(at) => self.start(at),
            Happening::Planned(_) => {}
        }
    }

    // --- Between servers ------------------------------------------------------------------------------------------

    /// Whether two servers hear each other now.
    pub(crate) fn reach(&self, one: usize, other: usize) -> bool {
        self.servers[one].up && self.servers[other].up && !self.cut.contains(&pair(one, other))
    }

    fn delay(&mut self) -> Duration {
        let slowest = self.slowest_ms;
        // Mostly quick, sometimes very slow: so that things overtake each other.
        let most = if self.random.chance(10) {
            slowest
        } else {
            slowest / 10 + 2
        };
        self.random.span(1, most + 1)
    }

    fn dial(&mut self, from: usize, to: usize) {
        let pause = self.random.span(1_000, 30_000);
        let server = &self.servers[from];
        if server.gone || self.servers[to].gone {
            return;
        }
        if self.reach(from, to) && !server.sessions.contains_key(&to) {
            self.last += 1;
            let connection = self.last;
            let delay = self.delay();
            self.after(delay, Happening::Connected { from, to, connection });
        }
        self.after(pause, Happening::Dial { from, to });
    }

    fn connected(&mut self, from: usize, to: usize, connection: u64) {
        if !self.reach(from, to) {
            return;
        }
        let now = self.now;
        for (at, peer) in [(to, from), (from, to)] {
            let role = if at == from {
                Role::Dialler(self.servers[peer].name.clone())
            } else {
                Role::Acceptor
            };
            let server = &mut self.servers[at];
            let own = Identity {
                name: server.name.clone(),
                record: server.record.clone(),
                log_id: server.disk.log_id,
            };
            let window = Window {
                items: 8,
                bytes: 4 * 1024 * 1024,
            };
            let session = Session::new(role, own, window, now);
            // The new one takes the place of an old one: a peer that still had it would not have dialled.
            server.sessions.insert(peer, Live { connection, session });
        }
        for (at, peer) in [(to, from), (from, to)] {
            self.act(at, peer, connection);
        }
    }

    fn broken(&mut self, at: usize, peer: usize, connection: u64) {
        let server = &mut self.servers[at];
        if server
            .sessions
            .get(&peer)
            .is_some_and(|live| live.connection == connection)
        {
            server.sessions.remove(&peer);
            self.note(at, || format!("lost the connection with s{peer}"));
        }
    }

    /// Breaks what is between two servers; each end notices for itself.
    pub(crate) fn break_between(&mut self, one: usize, other: usize) {
        for (at, peer) in [(one, other), (other, one)] {
            let Some(connection) = self.servers[at].sessions.get(&peer).map(|live| live.connection) else {
                continue;
            };
            // What is on its way is lost.
            self.happenings.retain(|_, happening| {
                !matches!(happening, Happening::Frame { connection: of, .. } if *of == connection)
            });
            self.arrivals.insert((connection, 2), self.now);
            let pause = self.random.span(0, 30_000);
            self.after(pause, Happening::Broken { at, peer, connection });
        }
    }

    /// Does something with a session, if it is still there, and all that follows.
    fn with(&mut self, at: usize, peer: usize, connection: u64, does: impl FnOnce(&mut Session)) {
        let live = self.servers[at].sessions.get_mut(&peer);
        if let Some(live) = live.filter(|live| live.connection == connection) {
            does(&mut live.session);
            self.act(at, peer, connection);
        }
    }

    /// Carries out what a session wants.
    fn act(&mut self, at: usize, peer: usize, connection: u64) {
        loop {
            let live = self.servers[at].sessions.get_mut(&peer);
            let Some(live) = live.filter(|live| live.connection == connection) else {
                return;
            };
            let Some(action) = live.session.poll() else {
                break;
            };
            self.carry_out(at, peer, connection, action);
        }
        let live = self.servers[at].sessions.get(&peer);
        if let Some(timeout) = live.and_then(|live| live.session.timeout()) {
            let pause = timeout.saturating_sub(self.now);
            self.after(pause, Happening::Timer { at, peer, connection });
        }
    }

    fn carry_out(&mut self, at: usize, peer: usize, connection: u64, action: Action) {
        match action {
            Action::Send(bytes) => self.send_frame(at, peer, connection, bytes),
            Action::Judge(_) => {
                let pause = self.random.span(0, 50);
                self.after(pause, Happening::Judged { at, peer, connection });
            }
            Action::LoadReceived => {
                let pause = self.random.span(0, 20);
                self.after(pause, Happening::LoadReceived { at, peer, connection });
            }
            Action::ReadLog { after, max_items, .. } => {
                let pause = self.random.span(0, 20);
                self.after(
                    pause,
                    Happening::ReadLog {
                        at,
                        peer,
                        connection,
                        after,
                        max_items,
                    },
                );
            }
            Action::LoadExtremities => {
                let pause = self.random.span(0, 20);
                self.after(pause, Happening::LoadExtremities { at, peer, connection });
            }
            Action::Store {
                log_id,
                items,
                cursor,
            } => {
                self.store(at, peer, connection, Received { log_id, cursor }, items);
            }
            Action::HeardExtremities(rooms) => self.compare(at, peer, rooms),
            Action::Close { code, reason } => {
                self.note(at, || {
                    format!("closes the connection with s{peer}: {code:?}, {reason}")
                });
                self.servers[at].sessions.remove(&peer);
                let delay = self.delay();
                self.after(
                    delay,
                    Happening::Broken {
                        at: peer,
                        peer: at,
                        connection,
                    },
                );
            }
            Action::Ready | Action::Acknowledged(_) | Action::HeardRecord(_) => {}
        }
    }

    fn send_frame(&mut self, at: usize, peer: usize, connection: u64, bytes: Vec<u8>) {
        let is_broken = self.arrivals.contains_key(&(connection, 2));
        if is_broken || !self.reach(at, peer) {
            return;
        }
        let arrives = self.now + self.delay();
        let last = self
            .arrivals
            .entry((connection, usize::from(at < peer)))
            .or_default();
        *last = arrives.max(*last);
        let pause = last.saturating_sub(self.now);
        self.after(
            pause,
            Happening::Frame {
                at: peer,
                peer: at,
                connection,
                bytes,
            },
        );
    }

    fn timer(&mut self, at: usize, peer: usize, connection: u64) {
        let now = self.now;
        let live = self.servers[at].sessions.get(&peer);
        let due = live.is_some_and(|live| {
            live.connection == connection && live.session.timeout().is_some_and(|timeout| timeout <= now)
        });
        if due {
            self.with(at, peer, connection, |session| session.timer(now));
        }
    }

    fn load_received(&mut self, at: usize, peer: usize, connection: u64) {
        if self.servers[at].storing.contains(&peer) {
            // A store that an earlier session ordered has to end first.
            let pause = Duration::from_millis(5);
            return self.after(pause, Happening::LoadReceived { at, peer, connection });
        }
        let received = self.servers[at]
            .disk
            .received
            .get(&self.servers[peer].name)
            .cloned();
        let now = self.now;
        self.with(at, peer, connection, |session| session.received(received, now));
    }

    fn store(&mut self, at: usize, peer: usize, connection: u64, received: Received, items: Vec<LogItem>) {
        let from = self.servers[peer].name.clone();
        let (mut change, mut events, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                LogItem::Event(event) => {
                    let row = self.servers[at].next_nid();
                    let json: Arc<str> = event.json.0;
                    events.extend(self.read(&json).map(|event| event.id.clone()));
                    change.push(Record::Arrived(
                        row,
                        Arrived {
                            from: from.clone(),
                            json,
                        },
                    ));
                }
                LogItem::Skipped(room) => skipped.push(RoomExtremities {
                    room_id: room.room_id,
                    extremities: room.extremities,
                }),
                _ => {}
            }
        }
        change.push(Record::Received(from, received));
        let server = &mut self.servers[at];
        server.storing.insert(peer);
        server.enqueue(
            change,
            Some(Then::Stored {
                connection,
                peer,
                events,
            }),
        );
        self.settle(at);
        self.compare(at, peer, skipped);
    }

    fn compare(&mut self, at: usize, peer: usize, rooms: Vec<RoomExtremities>) {
        let name = self.servers[peer].name.clone();
        for room in rooms {
            self.servers[at].work.told(name.clone(), room.extremities);
        }
        self.wake_worker(at);
    }

    fn extremities_for(&self, at: usize, peer: usize) -> Vec<RoomExtremities> {
        let server = &self.servers[at];
        let shared = server.disk.interested().contains(&self.servers[peer].name);
        let room = server.disk.room.as_ref().filter(|_| shared);
        let tell = |room: &crate::database::Room| RoomExtremities {
            room_id: room.room_id.clone(),
            extremities: room.head.extremities.iter().map(|tip| tip.id.clone()).collect(),
        };
        room.map(tell).into_iter().collect()
    }

    /// The next page of a server's log for a peer, as `server/src/peers/outgoing.rs` reads it.
    fn read_log(
        &mut self,
        at: usize,
        peer: usize,
        connection: u64,
        after: Option<&Cursor>,
        max_items: usize,
    ) {
        let name = self.servers[peer].name.clone();
        let server = &mut self.servers[at];
        let (log_id, end) = (server.disk.log_id, server.disk.position);
        let after = after
            .and_then(|cursor| position_of(cursor, log_id, end))
            .unwrap_or(0);
        let mut items = Vec::new();
        let waits = server.disk.events_for(&name, after).count();
        if waits > BACKLOG
            && let Some(room) = server.disk.room.clone()
        {
            server.disk.skip(&name);
            server.memory.skip(&name);
            items.push(LogItem::Skipped(Skipped {
                room_id: room.room_id,
                extremities: room.head.extremities.iter().map(|tip| tip.id.clone()).collect(),
            }));
        }
        let mut reached = end;
        for (position, stored) in server.disk.events_for(&name, after) {
            if items.len() >= max_items {
                break;
            }
            items.push(LogItem::Event(maru_protocol::wire::log::Event {
                room_id: stored.event.room_id.clone(),
                json: stored.event.json.clone().into(),
            }));
            reached = position;
        }
        if items.len() < max_items {
            reached = end;
        }
        let (cursor, more, now) = (cursor_at(log_id, reached), reached < end, self.now);
        self.with(at, peer, connection, |session| {
            session.page(items, cursor, more, now)
        });
    }

    // --- Within a server ------------------------------------------------------------------------------------------

    /// Has what is on its way to the disk committed.
    pub(crate) fn settle(&mut self, at: usize) {
        if self.servers[at].wants_commit() {
            let (pause, run) = (self.random.span(1, 40), self.servers[at].run);
            self.after(pause, Happening::Commit { at, run });
        }
    }

    fn commit(&mut self, at: usize, run: u64) {
        if self.servers[at].run != run || !self.servers[at].up {
            return;
        }
        for then in self.servers[at].commit() {
            match then {
                Then::Stored {
                    connection,
                    peer,
                    events,
                } => {
                    let server = &mut self.servers[at];
                    server.storing.remove(&peer);
                    server.acknowledged.extend(events);
                    server.work.arrived();
                    self.wake_worker(at);
                    self.with(at, peer, connection, Session::stored);
                }
                Then::Sent(id) => {
                    self.servers[at].sent.insert(id);
                    self.wake_peers(at);
                }
                Then::Admitted { request, join } => {
                    let admission = replica::admission(&self.servers[at].disk, &join);
                    self.reply(request, admission.map_or(Reply::None, Reply::Admission));
                }
                Then::Wake => self.wake_peers(at),
            }
        }
        self.settle(at);
    }

    fn wake_peers(&mut self, at: usize) {
        let now = self.now;
        let peers: Vec<_> = self.servers[at]
            .sessions
            .iter()
            .map(|(peer, live)| (*peer, live.connection))
            .collect();
        for (peer, connection) in peers {
            self.with(at, peer, connection, |session| session.wake(now));
        }
    }

    /// A user does something; whether the server let it.
    pub(crate) fn user_acts(&mut self, at: usize, act: Act) -> bool {
        let key = self.servers[at].key.clone();
        let Some(event) = replica::send(&mut self.servers[at], &key, act) else {
            return false;
        };
        self.note(at, || {
            let content = event.content.as_str();
            format!(
                "{} sends {} {:?} {content} {}",
                event.sender, event.event_type, event.state_key, event.id
            )
        });
        let id = event.id.clone();
        self.servers[at].enqueue(Vec::new(), Some(Then::Sent(id)));
        self.settle(at);
        true
    }

    /// Reads and verifies an event from a peer.
    pub(crate) fn read(&self, json: &str) -> Option<Arc<Event>> {
        let key = |name: &ruma::ServerName, _: &_| {
            let server = self.servers.iter().find(|server| server.name == name)?;
            Some(server.key.secret.public_key())
        };
        let received = Event::receive(json, self.version, DEFAULT_MAX_EVENT_BYTES, key).ok()?;
        (received.verified == Verified::All).then(|| Arc::new(received.event))
    }

    fn wake_worker(&mut self, at: usize) {
        let run = self.servers[at].run;
        self.after(Duration::ZERO, Happening::Work { at, run });
    }

    /// Does what there is to do in the room, as `server/src/peers/inbox.rs` does it.
    fn work(&mut self, at: usize) {
        while matches!(self.servers[at].worker, Worker::Idle) {
            match self.servers[at].work.next(self.now) {
                Next::Ingest => self.ingest(at),
                Next::Compare(peer, extremities) => {
                    if self.servers[at].is_in() {
                        let gap = Gap::up_to(extremities, self.helpers(at, &peer));
                        self.fill(at, gap, None, VecDeque::new());
                    }
                }
                Next::Wait(until) => {
                    let (pause, run) = (until.saturating_sub(self.now), self.servers[at].run);
                    return self.after(pause, Happening::Work { at, run });
                }
                Next::Rest => return,
            }
        }
    }

    /// Ingests what has come and is due.
    fn ingest(&mut self, at: usize) {
        let now = self.now;
        let server = &self.servers[at];
        let due = server
            .memory
            .inbox
            .iter()
            .filter(|(row, _)| server.work.is_due(**row, now));
        let rows: Vec<(i64, Arrived)> = due
            .take(TOGETHER)
            .map(|(row, arrived)| (*row, arrived.clone()))
            .collect();
        if rows.is_empty() {
            return;
        }
        let mut lacking = VecDeque::new();
        for (row, arrived) in rows {
            let event = self
                .read(&arrived.json)
                .filter(|_| self.servers[at].memory.room.is_some());
            let Some(event) = event.filter(|event| event.sender.server_name() == arrived.from) else {
                self.servers[at].write(vec![Record::Ingested(row)]);
                continue;
            };
            let taken = replica::take_in(&mut self.servers[at], &event, None, Some(row), false);
            self.note(at, || format!("takes {} of its inbox: {taken:?}", event.id));
            match taken {
                Taken::Lacks { .. } => {
                    let peer = self.index(&arrived.from);
                    lacking.push_back((row, peer, event));
                }
                _ => self.servers[at].work.settled(row),
            }
        }
        // More may be due.
        self.servers[at].work.arrived();
        self.settle(at);
        self.fill_next(at, lacking);
    }

    fn fill_next(&mut self, at: usize, mut queue: VecDeque<(i64, usize, Arc<Event>)>) {
        if let Some((row, peer, event)) = queue.pop_front() {
            let from = self.servers[peer].name.clone();
            let gap = Gap::before(Arc::clone(&event), self.helpers(at, &from));
            self.fill(at, gap, Some((row, event)), queue);
        }
    }

    fn index(&self, name: &OwnedServerName) -> usize {
        self.servers
            .iter()
            .position(|server| server.name == *name)
            .unwrap_or(0)
    }

    /// Whom to ask: whoever told of the gap, then those that are connected.
    fn helpers(&self, at: usize, first: &OwnedServerName) -> Vec<OwnedServerName> {
        let server = &self.servers[at];
        let census = server.disk.room.iter().flat_map(|room| room.census.keys());
        let mut names: Vec<_> = census
            .filter(|name| **name != server.name && *name != first)
            .cloned()
            .collect();
        names.sort_by_key(|name| !server.sessions.contains_key(&self.index(name)));
        names.insert(0, first.clone());
        names
    }

    fn fill(
        &mut self,
        at: usize,
        (gap, effect): (Gap, Effect),
        target: Option<(i64, Arc<Event>)>,
        queue: VecDeque<(i64, usize, Arc<Event>)>,
    ) {
        self.servers[at].worker = Worker::Filling(Box::new(Filling {
            gap,
            target,
            moved: false,
            queue,
            request: None,
            effect: Some(effect),
        }));
        self.drive(at);
    }

    /// Runs the effects of the gap that is being filled until a peer is asked.
    fn drive(&mut self, at: usize) {
        let Worker::Filling(mut filling) = std::mem::take(&mut self.servers[at].worker) else {
            return;
        };
        let Some(mut effect) = filling.effect.take() else {
            self.servers[at].worker = Worker::Filling(filling);
            return;
        };
        let filled = loop {
            let server = &mut self.servers[at];
            effect = match effect {
                Effect::LookUp(ids) => {
                    let here = server.memory.here(&ids);
                    filling.gap.found(ids, &here)
                }
                Effect::Ask(peer, question) => {
                    let tips = server
                        .disk
                        .room
                        .iter()
                        .flat_map(|room| room.head.extremities.iter());
                    let tips = tips.map(|tip| tip.id.clone()).collect();
                    let to = self.index(&peer);
                    let request = self.ask(at, to, Request::Question(question, tips), Asked::Gap);
                    filling.request = Some(request);
                    self.servers[at].worker = Worker::Filling(filling);
                    return;
                }
                Effect::Keep(events) => {
                    if let Some(version) = server.memory.room.as_ref().map(|room| room.version) {
                        replica::keep(server, version, events);
                    }
                    filling.gap.kept()
                }
                Effect::TakeIn(offer) => {
                    let row = filling
                        .target
                        .as_ref()
                        .filter(|(_, event)| event.id == offer.event.id);
                    let row = row.map(|(row, _)| *row);
                    let told = match &offer.told {
                        Some(ids) => replica::told_state(server, ids).map(Some),
                        None => Some(None),
                    };
                    match told {
                        None => filling.gap.refused(),
                        Some(told) => {
                            let bridged = told.is_some();
                            let taken = replica::take_in(server, &offer.event, told, row, offer.past);
                            filling.moved |= matches!(taken, Taken::Stored(_));
                            self.note(at, || {
                                let how = if bridged { " by a told state" } else { "" };
                                format!("takes {} for a gap{how}: {taken:?}", offer.event.id)
                            });
                            filling.gap.taken(match taken {
                                Taken::Lacks {
                                    prev_events,
                                    auth_events,
                                } => gap::Taken::Lacks {
                                    prev_events,
                                    auth_events,
                                },
                                _ => gap::Taken::Settled,
                            })
                        }
                    }
                }
                Effect::Filled => break true,
                Effect::GivenUp => break false,
            };
        };
        self.end_gap(at, *filling, filled);
    }

    fn end_gap(&mut self, at: usize, filling: Filling, filled: bool) {
        let now = self.now;
        let server = &mut self.servers[at];
        match filling.target {
            Some((row, _)) if filled => server.work.settled(row),
            Some((row, _)) if server.work.postpone(row, now) => {}
            Some((row, _)) => server.write(vec![Record::Ingested(row)]),
            None if filled && filling.moved => server.work.closed(),
            None => {}
        }
        self.settle(at);
        self.fill_next(at, filling.queue);
        self.wake_worker(at);
    }

    // --- Requests -------------------------------------------------------------------------------------------------

    fn ask(&mut self, from: usize, to: usize, what: Request, asked: Asked) -> u64 {
        self.last += 1;
        let request = self.last;
        let run = self.servers[from].run;
        self.asking.insert(request, Asking { from, to, run, asked });
        if self.reach(from, to) && self.random.chance(97) {
            let delay = self.delay();
            self.after(delay, Happening::Requested { request, what });
        }
        // Whatever is not answered by then is not answered.
        let timeout = self.random.span(1_000, 20_000).min(REQUEST_TIMEOUT);
        let timeout = timeout + Duration::from_millis(2 * self.slowest_ms);
        self.after(
            timeout,
            Happening::Replied {
                request,
                reply: Reply::None,
            },
        );
        request
    }

    fn requested(&mut self, request: u64, what: Request) {
        let Some(Asking { from, to, .. }) = self.asking.get(&request).cloned() else {
            return;
        };
        if !self.reach(from, to) {
            return;
        }
        let peer = self.servers[from].name.clone();
        let server = &mut self.servers[to];
        let reply = match what {
            Request::Question(question, earliest) => {
                let answer = replica::answer(&server.disk, &peer, &question, &earliest);
                answer.map_or(Reply::None, Reply::Answer)
            }
            Request::Make(act) => {
                let template = replica::template(&server.disk, &server.name, &act);
                template.map_or(Reply::None, |(_, template)| Reply::Template(template))
            }
            Request::Send(join) => {
                let taken = replica::take_in(server, &join, None, None, false);
                let accepted = matches!(taken, Taken::Known)
                    || matches!(taken, Taken::Stored(maru_protocol::ingest::Outcome::Accepted));
                self.note(to, || {
                    format!("is sent the join {} of s{from}: {taken:?}", join.id)
                });
                if accepted && self.servers[to].is_in() {
                    let join = join.id.clone();
                    self.servers[to].enqueue(Vec::new(), Some(Then::Admitted { request, join }));
                }
                return self.settle(to);
            }
        };
        self.reply(request, reply);
    }

    fn reply(&mut self, request: u64, reply: Reply) {
        let Some(Asking { from, to, .. }) = self.asking.get(&request).cloned() else {
            return;
        };
        if self.reach(from, to) {
            let delay = self.delay();
            self.after(delay, Happening::Replied { request, reply });
        }
    }

    fn replied(&mut self, request: u64, reply: Reply) {
        let Some(Asking { from, to, run, asked }) = self.asking.remove(&request) else {
            return;
        };
        if self.servers[from].run != run {
            return;
        }
        match asked {
            Asked::Gap => self.answered(from, request, reply),
            Asked::Template(act) => self.admitted_by(from, to, request, reply, act),
            Asked::Admission(version, join) => {
                if self.servers[from].joining == Some(request) {
                    self.servers[from].joining = None;
                    self.arrive(from, to, version, &join, reply);
                }
            }
        }
    }

    fn answered(&mut self, at: usize, request: u64, reply: Reply) {
        let Worker::Filling(filling) = &mut self.servers[at].worker else {
            return;
        };
        if filling.request != Some(request) {
            return;
        }
        filling.request = None;
        let effect = match reply {
            Reply::Answer(answer) => filling.gap.answered(answer),
            _ => filling.gap.refused(),
        };
        filling.effect = Some(effect);
        self.drive(at);
    }

    /// A user joins the room: here if the server is in it, else through another.
    pub(crate) fn join(&mut self, at: usize, via: usize, act: Act) {
        if self.servers[at].is_in() {
            self.user_acts(at, act);
            return;
        }
        if self.servers[at].joining.is_some() || at == via {
            return;
        }
        let request = self.ask(at, via, Request::Make(act.clone()), Asked::Template(act));
        self.servers[at].joining = Some(request);
    }

    fn admitted_by(&mut self, at: usize, via: usize, request: u64, reply: Reply, act: Act) {
        if self.servers[at].joining != Some(request) {
            return;
        }
        self.servers[at].joining = None;
        let Reply::Template(template) = reply else {
            return;
        };
        let Some(room_id) = self.servers[via]
            .disk
            .room
            .as_ref()
            .map(|room| room.room_id.clone())
        else {
            return;
        };
        let version = template.version;
        let key = self.servers[at].key.clone();
        if let Some(join) = replica::join_by(template, &room_id, &key, act) {
            let asked = Asked::Admission(version, Arc::clone(&join));
            let request = self.ask(at, via, Request::Send(join), asked);
            self.servers[at].joining = Some(request);
        }
    }

    fn arrive(&mut self, at: usize, via: usize, version: RoomVersion, join: &Arc<Event>, reply: Reply) {
        let Reply::Admission(admission) = reply else {
            return;
        };
        let extremities = admission.extremities.clone();
        let came = replica::arrive(&mut self.servers[at], version, admission, join);
        self.note(at, || format!("arrives by {}: {came}", join.id));
        if came {
            let via = self.servers[via].name.clone();
            let server = &mut self.servers[at];
            server.enqueue(Vec::new(), Some(Then::Wake));
            server.work.told(via, extremities);
            self.settle(at);
            self.wake_worker(at);
        }
    }

    // --- What befalls servers -------------------------------------------------------------------------------------

    /// A server loses what is not on disk. Peers notice sooner or later.
    pub(crate) fn crash(&mut self, at: usize) {
        self.note(at, || "crashes".to_owned());
        for peer in 0..self.servers.len() {
            self.break_between(at, peer);
        }
        self.servers[at].crash();
    }

    pub(crate) fn start(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if server.up || server.gone {
            return;
        }
        server.up = true;
        server.work = Work::default();
        server.work.arrived();
        self.note(at, || "starts".to_owned());
        self.wake_worker(at);
    }
}
