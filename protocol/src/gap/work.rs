//! What there is to do in a room for the sake of what peers send: one thing at a time.
//!
//! Every room has its own [`Work`], so that a difficult room never holds up another, and one thing is done at a time in
//! it, so that two gaps are not filled with the same events; the server fills gaps beside it, since whoever has to be
//! asked may take his time. An event whose ancestors nobody gives waits with growing pauses and holds up nobody: it is
//! tried again when its pause is over or another gap of the room was closed. What came was acknowledged, so it is given
//! up only after a long time, or when too many of its server wait.

use std::collections::BTreeMap;
use std::time::Duration;

use ruma::{OwnedEventId, OwnedServerName, ServerName};

/// The first pause before an event is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How often an event is tried: about a week, after which only somebody else's extremities bring it back.
const ATTEMPTS: u32 = 1_000;

/// Most events of one server in a room that wait for their ancestors: who makes them up takes no place of others.
pub const MOST_WAITING: usize = 512;

/// Most peers whose extremities wait to be compared. A peer that tells them again takes its own place.
const MOST_TOLD: usize = 512;

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ingest what has come and does not wait ([`Work::is_due`]), then ask again.
    Ingest,
    /// Fetch what leads to these extremities, which a peer told, then ask again.
    Compare(OwnedServerName, Vec<OwnedEventId>),
    /// Nothing before this time, unless something comes.
    Wait(Duration),
    /// Nothing until something comes.
    Rest,
}

/// An event that waits for its ancestors.
#[derive(Debug)]
struct Wait {
    peer: OwnedServerName,
    attempts: u32,
    due: Duration,
}

/// When a row is due for which a gap is being filled: not before that is done.
const IN_HAND: Duration = Duration::MAX;

/// The work of one room. Times are counted from any fixed start, the same for all calls.
#[derive(Debug, Default)]
pub struct Work {
    arrived: bool,
    told: BTreeMap<OwnedServerName, Vec<OwnedEventId>>,
    /// By row of the inbox.
    waiting: BTreeMap<i64, Wait>,
}

impl Work {
    /// Something has come into the inbox.
    pub fn arrived(&mut self) {
        self.arrived = true;
    }

    /// A peer has told where its replica ends.
    pub fn told(&mut self, peer: OwnedServerName, extremities: Vec<OwnedEventId>) {
        if self.told.len() < MOST_TOLD || self.told.contains_key(&peer) {
            self.told.insert(peer, extremities);
        }
    }

    /// What a peer has told before is looked at again, unless it has told anew since.
    pub fn told_before(&mut self, peer: OwnedServerName, extremities: Vec<OwnedEventId>) {
        if !self.told.contains_key(&peer) {
            self.told(peer, extremities);
        }
    }

    /// What to do next. What has come goes first: it may be all that is missing.
    pub fn next(&mut self, now: Duration) -> Next {
        let due = self.waiting.values().map(|wait| wait.due).min();
        if std::mem::take(&mut self.arrived) || due.is_some_and(|due| due <= now) {
            return Next::Ingest;
        }
        match self.told.pop_first() {
            Some((peer, extremities)) => Next::Compare(peer, extremities),
            None => due.map_or(Next::Rest, Next::Wait),
        }
    }

    /// Whether a row of the inbox is to be tried now.
    #[must_use]
    pub fn is_due(&self, row: i64, now: Duration) -> bool {
        self.waiting.get(&row).is_none_or(|wait| wait.due <= now)
    }

    /// The rows that are not to be tried now.
    #[must_use]
    pub fn resting(&self, now: Duration) -> Vec<i64> {
        let resting = self.waiting.iter().filter(|(_, wait)| wait.due > now);
        resting.map(|(row, _)| *row).collect()
    }

    /// A gap is being filled for a row, which is not due until it is [postponed](Self::postpone) or
    /// [settled](Self::settled). Answers whether it may wait that long; otherwise it is to be dropped.
    #[must_use]
    pub fn taken_up(&mut self, row: i64, peer: &ServerName) -> bool {
        if !self.has_room_for(row, peer) {
            return false;
        }
        let wait = self.waiting.entry(row).or_insert_with(|| Wait {
            peer: peer.to_owned(),
            attempts: 0,
            due: IN_HAND,
        });
        wait.due = IN_HAND;
        true
    }

    /// Nobody gives what a row lacks. Answers whether it may wait; otherwise it is to be dropped.
    #[must_use]
    pub fn postpone(&mut self, row: i64, peer: &ServerName, now: Duration) -> bool {
        let attempts = self.waiting.get(&row).map_or(0, |wait| wait.attempts) + 1;
        if attempts >= ATTEMPTS || !self.has_room_for(row, peer) {
            self.settled(row);
            return false;
        }
        let pause = FIRST_PAUSE * 2_u32.pow((attempts - 1).min(16));
        let wait = Wait {
            peer: peer.to_owned(),
            attempts,
            due: now + pause.min(LONGEST_PAUSE),
        };
        self.waiting.insert(row, wait);
        true
    }

    /// Whether a row may wait for what it lacks. Costs grow with the rows that wait.
    fn has_room_for(&self, row: i64, peer: &ServerName) -> bool {
        let of_peer = self.waiting.values().filter(|wait| wait.peer == peer);
        self.waiting.contains_key(&row) || of_peer.count() < MOST_WAITING
    }

    /// A row is dealt with.
    pub fn settled(&mut self, row: i64) {
        self.waiting.remove(&row);
    }

    /// A gap was closed: what waits may have what it lacked.
    pub fn closed(&mut self) {
        let idle = self.waiting.values_mut().filter(|wait| wait.due != IN_HAND);
        idle.for_each(|wait| wait.due = Duration::ZERO);
    }
}
