//! One server of a run: its database in two halves, its connections, and the work in its room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use maru_federation::peer::Session;
use maru_protocol::cursor::LogId;
use maru_protocol::event::Event;
use maru_protocol::gap::backfill::Page;
use maru_protocol::gap::schedule::Schedule;
use maru_protocol::gap::work::Work;
use maru_protocol::gap::{Effect, Gap};
use maru_protocol::join_decision;
use maru_protocol::join_decision::Standing;
use maru_protocol::key::SigningKey;
use maru_protocol::record::SignedRecord;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};

use crate::database::{self, Database, Record};
use crate::replica::Writer;

/// What follows once a change is on disk.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// A session's store has ended, with these events.
    Stored {
        connection: u64,
        peer: usize,
        events: Vec<OwnedEventId>,
    },
    /// A user hears that the event was sent.
    Sent(OwnedEventId),
    /// A user hears that the message to another server's device was sent.
    SentMessage(String, OwnedServerName),
    /// A peer's join is in the room: tell the peer.
    Admitted { request: u64, join: OwnedEventId },
    /// What a peer asked for is done: tell the peer.
    Done(u64),
    /// Peers may have something to be sent.
    Wake,
    /// These peers are told soon where the room ends.
    TellEnds(Vec<usize>),
}

/// A connection as one of its ends has it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: u64,
    pub(crate) session: Session,
}

/// What the room's worker is at.
#[derive(Debug, Default)]
pub(crate) enum Worker {
    /// Nothing.
    #[default]
    Idle,
    /// Filling a gap, waiting for the answer to a question.
    Filling(Box<Filling>),
}

/// What a gap is filled for.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The row of the inbox with this event.
    Row(i64, Arc<Event>),
    /// The join by which a user of this server comes back into the room.
    Join(Arc<Event>),
    /// Where a peer's replica ends.
    Extremities,
}

/// A gap that is being filled, and what comes after it.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) gap: Gap,
    pub(crate) target: Target,
    pub(crate) begun: Duration,
    /// Whether anything was taken in.
    pub(crate) moved: bool,
    /// Rows whose events lack something, to be filled next.
    pub(crate) queue: VecDeque<(i64, usize, Arc<Event>)>,
    /// The request that is answered next.
    pub(crate) request: Option<u64>,
    pub(crate) effect: Option<Effect>,
}

/// A page of the past that is being fetched.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) page: Page,
    pub(crate) gap: database::Gap,
    pub(crate) begun: Duration,
    /// The request that is answered next.
    pub(crate) request: Option<u64>,
}

/// What a server is in the middle of when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    /// It is about to commit something, or just has.
    Commit,
    /// A page of the past is on its way to the disk.
    Past,
    /// A gap is being filled.
    Gap,
    /// A user of it comes into the room through another server.
    Join,
}

/// How far a user of this server is on the way into the room.
#[derive(Debug)]
pub(crate) enum Joining {
    /// This request is under way.
    Asking(u64),
    /// Another server has let the user in; the replica's history up to that is to be fetched.
    Entering(Box<Entry>),
}

/// A join that another server has accepted.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) via: usize,
    pub(crate) version: RoomVersion,
    pub(crate) join: Arc<Event>,
    pub(crate) state: Vec<OwnedEventId>,
    pub(crate) extremities: Vec<OwnedEventId>,
    /// What the room was to the server before.
    pub(crate) before: Standing,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) index: usize,
    pub(crate) name: OwnedServerName,
    pub(crate) users: Vec<OwnedUserId>,
    pub(crate) key: SigningKey,
    pub(crate) record: SignedRecord,
    /// What is on disk: what readers, peers and clients are shown.
    pub(crate) disk: Database,
    /// With what is on its way there.
    pub(crate) memory: Database,
    pending: Vec<(Vec<Record>, Option<Then>)>,
    /// A change that is being put together.
    together: Option<Vec<Record>>,
    pub(crate) commit_due: bool,
    pub(crate) backup: Option<Database>,
    /// Whether it ever went back to one.
    pub(crate) restored: bool,
    pub(crate) up: bool,
    pub(crate) gone: bool,
    /// In the middle of what it stops the next time.
    pub(crate) doom: Option<Doom>,
    /// Whether it answers nothing that it is asked.
    pub(crate) stalls: bool,
    /// How often it was started: what was ordered before means nothing after.
    pub(crate) run: u64,
    /// How far its clock is off, in milliseconds, ahead of the slowest.
    pub(crate) skew_ms: u64,
    last_ms: u64,
    pub(crate) sessions: BTreeMap<usize, Live>,
    /// The connection on whose behalf something is being stored, by peer.
    pub(crate) storing: BTreeSet<usize>,
    pub(crate) work: Work,
    pub(crate) worker: Worker,
    /// The page of the past that is being fetched.
    pub(crate) reading: Option<Reading>,
    /// When the next one is.
    pub(crate) schedule: Schedule<()>,
    /// Servers that go on in the room without being in it, and are to be told.
    pub(crate) strays: BTreeSet<usize>,
    /// The join that is under way. Nothing is taken in meanwhile where the server is not in the room yet.
    pub(crate) joining: Option<Joining>,
    /// Events that users were told are sent.
    pub(crate) sent: BTreeSet<OwnedEventId>,
    /// Events of peers that were acknowledged to them.
    pub(crate) acknowledged: BTreeSet<OwnedEventId>,
    /// Events of peers that came when nobody here was in the room.
    pub(crate) dropped: BTreeSet<OwnedEventId>,
    /// Messages that users were told are sent, with whom they are for.
    pub(crate) sent_messages: BTreeMap<String, OwnedServerName>,
}

impl Writer for Server {
    fn database(&self) -> &Database {
        &self.memory
    }

    fn next_nid(&mut self) -> i64 {
        self.memory.next_nid()
    }

    fn write(&mut self, change: Vec<Record>) {
        match &mut self.together {
            Some(together) => {
                self.memory.apply(&change);
                together.extend(change);
            }
            None => self.enqueue(change, None),
        }
    }

    fn together(&mut self, is_one: bool) {
        match (is_one, self.together.take()) {
            (true, together) => self.together = Some(together.unwrap_or_default()),
            (false, Some(change)) if !change.is_empty() => self.pending.push((change, None)),
            (false, _) => {}
        }
    }

    fn own(&self) -> &OwnedServerName {
        &self.name
    }
}

impl Server {
    pub(crate) fn new(
        index: usize,
        name: OwnedServerName,
        users: Vec<OwnedUserId>,
        key: SigningKey,
        record: SignedRecord,
        log_id: LogId,
        skew_ms: u64,
    ) -> Self {
        Self {
            index,
            name,
            users,
            key,
            record,
            disk: Database::new(log_id),
            memory: Database::new(log_id),
            pending: Vec::new(),
            together: None,
            commit_due: false,
            backup: None,
            restored: false,
            up: true,
            gone: false,
            doom: None,
            stalls: false,
            run: 0,
            skew_ms,
            last_ms: 0,
            sessions: BTreeMap::new(),
            storing: BTreeSet::new(),
            work: Work::default(),
            worker: Worker::Idle,
            reading: None,
            schedule: Schedule::default(),
            strays: BTreeSet::new(),
            joining: None,
            sent: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            dropped: BTreeSet::new(),
            sent_messages: BTreeMap::new(),
        }
    }

    /// Puts a change on its way to the disk. What follows happens once it is there.
    pub(crate) fn enqueue(&mut self, change: Vec<Record>, then: Option<Then>) {
        if change.is_empty() && then.is_none() {
            return;
        }
        self.memory.apply(&change);
        self.pending.push((change, then));
    }

    /// Whether a commit has to be made for what is on its way.
    pub(crate) fn wants_commit(&mut self) -> bool {
        !self.pending.is_empty() && !std::mem::replace(&mut self.commit_due, true)
    }

    /// What was on its way is on disk now.
    pub(crate) fn commit(&mut self) -> Vec<Then> {
        self.commit_due = false;
        let mut follow = Vec::new();
        for (change, then) in std::mem::take(&mut self.pending) {
            self.disk.apply(&change);
            follow.extend(then);
        }
        follow
    }

    /// Whether nothing is on its way to the disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many changes are on their way to the disk.
    pub(crate) fn on_their_way(&self) -> usize {
        self.pending.len()
    }

    /// Loses everything that is not on disk; so many of the changes on their way have come there still.
    pub(crate) fn crash(&mut self, stored: usize) {
        for (change, _) in self.pending.drain(..).take(stored) {
            self.disk.apply(&change);
        }
        self.up = false;
        self.doom = None;
        self.stalls = false;
        self.run += 1;
        self.memory = self.disk.clone();
        self.pending.clear();
        self.together = None;
        self.commit_due = false;
        self.sessions.clear();
        self.storing.clear();
        self.work = Work::default();
        self.worker = Worker::Idle;
        self.reading = None;
        self.schedule = Schedule::default();
        self.strays.clear();
        self.joining = None;
    }

    /// Goes back to the backup under a new log id; false when there is none.
    pub(crate) fn restore(&mut self, log_id: LogId) -> bool {
        let Some(mut backup) = self.backup.clone() else {
            return false;
        };
        backup.log_id = log_id;
        self.restored = true;
        self.memory = backup.clone();
        self.disk = backup;
        let disk = &self.disk;
        self.sent.retain(|id| disk.event(id).is_some());
        // What peers were told is stored here comes again: their logs go on from the backup's cursors.
        self.acknowledged.retain(|id| disk.event(id).is_some());
        true
    }

    /// When an event is made: each time something later, as the server does it for its events of one room.
    pub(crate) fn clock_ms(&mut self, now: Duration) -> u64 {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_ms = (1_700_000_000_000 + self.skew_ms + now).max(self.last_ms + 1);
        self.last_ms
    }

    /// Whether its users are in the room, by its own committed state.
    pub(crate) fn is_in(&self) -> bool {
        self.standing(&self.disk) == Standing::Inside
    }

    /// What the room is to it, by its newest state.
    pub(crate) fn newest_standing(&self) -> Standing {
        self.standing(&self.memory)
    }

    /// Whether it is of concern to it where the room ends by a peer's account.
    pub(crate) fn heeds(&self, peer: &OwnedServerName) -> bool {
        let census = self.disk.room.as_ref().map(|room| &room.census);
        join_decision::heeds(&self.name, census, peer, self.disk.ended(peer).is_some())
    }

    fn standing(&self, database: &Database) -> Standing {
        let census = database.room.as_ref().map(|room| &room.census);
        Standing::of(&self.name, census)
    }
}
