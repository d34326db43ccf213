//! The newest events of this server, for peers that follow closely: what they are sent at once is not read from the
//! database first.
//!
//! Which peer is sent which events is fixed by its intervals when they are stored. Here they are known
//! only as long as none of the peer's changes; after that, and further back, the log is read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maru_protocol::cursor::Position;
use ruma::{OwnedServerName, ServerName};

use crate::store::federation::destination_intervals::Interval;
use crate::store::log::{Committed, Record};
use crate::store::rooms::events::StoredEvent;
use crate::store::{Store, StoreError};

/// Events that are kept.
const MOST_EVENTS: usize = 1_024;

/// Bytes of them: 4 MiB.
const MOST_BYTES: usize = 4 << 20;

/// Peers whose intervals are known.
const MOST_PEERS: usize = 1_024;

/// Rooms of one of them. All together take a few megabytes.
const MOST_ROOMS: usize = 256;

/// The newest own events and the intervals that they fall into. Bounded.
#[derive(Debug, Default)]
pub struct RecentEvents(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
    /// All own events after this position and up to the other one are here.
    from: Position,
    until: Position,
    /// Counts the changes of intervals.
    changes: u64,
    peers: HashMap<OwnedServerName, KnownIntervals>,
}

/// What is known of a peer's intervals.
#[derive(Debug, Default)]
struct KnownIntervals {
    /// The last time one of them changed.
    changed: Position,
    /// Since when it is in a room, or that it is not.
    rooms: HashMap<i64, Option<Position>>,
}

/// What is new for a peer.
#[derive(Debug)]
pub struct NewForPeer {
    /// Events that may be for the peer, in log order.
    events: Vec<Arc<StoredEvent>>,
    /// The position up to which they are all.
    until: Position,
    /// Rooms of them of which it is not known whether the peer is in.
    unknown: Vec<i64>,
    since: HashMap<i64, Option<Position>>,
    changes: u64,
}

impl NewForPeer {
    /// Those events that are within the intervals which are known or were found, `limit` at most, and the position up to
    /// which they are all.
    fn within(&self, found: &HashMap<i64, Vec<Interval>>, limit: usize) -> (Vec<Arc<StoredEvent>>, Position) {
        let is_within = |stored: &&Arc<StoredEvent>| {
            let (since, at) = (self.since.get(&stored.room).copied(), stored.position());
            let mut intervals = found.get(&stored.room).into_iter().flatten();
            at.is_some_and(|at| match since {
                Some(since) => since.is_some_and(|since| at >= since),
                None => intervals.any(|interval| interval.holds(at)),
            })
        };
        let within = self.events.iter().filter(is_within);
        let events: Vec<_> = within.take(limit).cloned().collect();
        let last = events.last().filter(|_| events.len() >= limit);
        let until = last.and_then(|stored| stored.position());
        (events, until.unwrap_or(self.until))
    }
}

impl RecentEvents {
    /// What is new for a peer after a position; none where the log has to be read. What was `durable` before the call is all
    /// in the answer.
    pub fn after(&self, peer: &ServerName, after: Position, durable: Position) -> Option<NewForPeer> {
        let newest = self.lock();
        let known = newest.peers.get(peer);
        let changed = known.map_or(Position::START, |known| known.changed);
        if newest.until == Position::START || after < newest.from.max(changed) {
            return None;
        }
        let is_new = |stored: &&Arc<StoredEvent>| stored.position() > Some(after);
        let mut events: Vec<_> = newest.events.iter().rev().take_while(is_new).cloned().collect();
        events.reverse();
        let rooms: HashSet<i64> = events.iter().map(|stored| stored.room).collect();
        let since = |room: &i64| Some((*room, *known?.rooms.get(room)?));
        let since: HashMap<_, _> = rooms.iter().filter_map(since).collect();
        let unknown = rooms.into_iter().filter(|room| !since.contains_key(room));
        Some(NewForPeer {
            unknown: unknown.collect(),
            events,
            until: newest.until.max(durable).max(after),
            since,
            changes: newest.changes,
        })
    }

    /// This server's events that a peer is to be sent after a position, in log order, `limit` at most, and the position up
    /// to which they are all: as [`FederationTables::events_for`](crate::store::federation::FederationTables::events_for) answers, from memory where the peer follows closely.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_for(
        &self,
        store: &Store,
        peer: &ServerName,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<Arc<StoredEvent>>, Position), StoreError> {
        let Some(new) = self.after(peer, after, store.log.position()) else {
            return store.federation.events_for(peer, after, limit).await;
        };
        let found = store.federation.intervals_in(peer, &new.unknown, after).await?;
        self.learn(peer, &new, &found);
        Ok(new.within(&found, limit))
    }

    /// A peer's intervals begin later than what is known.
    pub fn forget(&self, peer: &ServerName) {
        let mut newest = self.lock();
        newest.changes += 1;
        if let Some(known) = newest.peers.get_mut(peer) {
            known.rooms.clear();
        }
    }

    /// Keeps what was found, unless an interval has changed since.
    fn learn(&self, peer: &ServerName, new: &NewForPeer, found: &HashMap<i64, Vec<Interval>>) {
        let mut newest = self.lock();
        if newest.changes != new.changes || new.unknown.is_empty() {
            return;
        }
        if newest.peers.len() >= MOST_PEERS && !newest.peers.contains_key(peer) {
            newest.start_anew();
        }
        let known = newest.peers.entry(peer.to_owned()).or_default();
        for room in &new.unknown {
            let intervals = found.get(room).map_or(&[][..], Vec::as_slice);
            // Where one has ended, a change is on its way here.
            if intervals.iter().any(|interval| interval.until.is_some()) {
                continue;
            }
            if known.rooms.len() >= MOST_ROOMS {
                known.rooms.clear();
            }
            known
                .rooms
                .insert(*room, intervals.first().map(|interval| interval.from));
        }
    }

    /// Goes on with a durable batch.
    pub(super) fn committed(&self, batch: &[Committed]) {
        let Some(last) = batch.last() else {
            return;
        };
        let mut newest = self.lock();
        if newest.until == Position::START {
            // Nothing is known of what came before.
            newest.from = last.position;
        }
        for committed in batch {
            match &committed.record {
                Record::Event(stored) if stored.own => newest.push(stored),
                Record::Interest(interest) => newest.changed(&interest.server_name, committed.position),
                // What was removed is not sent from memory either.
                Record::Redaction(_) => newest.drop_events(),
                _ => {}
            }
        }
        newest.until = last.position;
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    fn push(&mut self, stored: &Arc<StoredEvent>) {
        self.bytes += stored.event.json.len();
        self.events.push_back(Arc::clone(stored));
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.event.json.len();
            self.from = oldest.position().unwrap_or(self.until);
        }
    }

    fn changed(&mut self, peer: &ServerName, at: Position) {
        self.changes += 1;
        if self.peers.len() >= MOST_PEERS {
            self.start_anew();
        }
        let known = self.peers.entry(peer.to_owned()).or_default();
        known.rooms.clear();
        known.changed = at;
    }

    fn drop_events(&mut self) {
        let last = self.events.back().and_then(|stored| stored.position());
        self.from = last.unwrap_or(self.from).max(self.until);
        self.events.clear();
        self.bytes = 0;
    }

    /// Forgets the peers, and with them since when their intervals have not changed.
    fn start_anew(&mut self) {
        self.drop_events();
        self.peers.clear();
    }
}
