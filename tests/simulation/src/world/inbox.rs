//! What peers sent is taken in, and what is lacking for that is fetched, as `server/src/peers/inbound/inbox.rs` does it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use maru_protocol::destinations;
use maru_protocol::event::{Event, Verified};
use maru_protocol::gap::Gap;
use maru_protocol::gap::work::Next;
use maru_protocol::ingest::Outcome;
use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;

use ruma::OwnedServerName;

use super::{Happening, World};
use crate::database::{Arrived, Record};
use crate::replica::{self, Incoming, Taken, Writer};
use crate::server::{Joining, Server, Target, Then, Worker};

/// Rows of the inbox that are ingested together.
const TOGETHER: usize = 128;

impl World {
    /// Reads and verifies an event from a peer.
    pub(crate) fn read(&self, json: &str) -> Option<Arc<Event>> {
        let key = |name: &ruma::ServerName, _: &_| {
            let server = self.servers.iter().find(|server| server.name == name)?;
            Some(server.key.secret.public_key())
        };
        let received = Event::receive(json, self.version, DEFAULT_MAX_EVENT_BYTES, key).ok()?;
        (received.verified == Verified::All).then(|| Arc::new(received.event))
    }

    pub(super) fn wake_worker(&mut self, at: usize) {
        let run = self.servers[at].run;
        self.after(Duration::ZERO, Happening::Work { at, run });
    }

    /// Does what there is to do in the room, as `server/src/peers/inbound/inbox.rs` does it.
    pub(super) fn work(&mut self, at: usize) {
        while matches!(self.servers[at].worker, Worker::Idle) {
            match &self.servers[at].joining {
                Some(Joining::Entering(entry)) => {
                    let (join, via) = (Arc::clone(&entry.join), self.servers[entry.via].name.clone());
                    let gap = Gap::before(Arc::clone(&join), self.helpers(at, Some(&via)));
                    self.fill(at, gap, Target::Join(join), VecDeque::new());
                    continue;
                }
                Some(Joining::Asking(_)) if !self.servers[at].is_in() => return,
                _ => {}
            }
            match self.servers[at].work.next(self.now) {
                Next::Ingest => self.ingest(at),
                Next::Compare(peer, extremities) => {
                    if self.servers[at].heeds(&peer) {
                        let gap = Gap::up_to(extremities, self.helpers(at, Some(&peer)));
                        self.fill(at, gap, Target::Extremities, VecDeque::new());
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

    /// Takes an event into the room. Who is found to be in it is told soon where it ends.
    pub(super) fn take_in(&mut self, at: usize, incoming: Incoming) -> Taken {
        let census = |server: &Server| server.memory.room.as_ref().map(|room| room.census.clone());
        let before = census(&self.servers[at]).unwrap_or_default();
        let gaps = self.servers[at].memory.gaps.len();
        let taken = replica::take_in(&mut self.servers[at], incoming);
        let after = census(&self.servers[at]).unwrap_or_default();
        let found: Vec<_> = destinations::found(&before, &after)
            .map(|name| self.index(name))
            .collect();
        self.tell_soon(at, found);
        if self.servers[at].memory.gaps.len() > gaps {
            // What is missing there is left to backfill.
            self.replicate(at);
        }
        taken
    }

    /// Has the others of the room told soon where it ends now: the server of the newest event may not know of them.
    pub(super) fn tell_others(&mut self, at: usize, of: usize) {
        let room = self.servers[at].memory.room.as_ref();
        let names = room.into_iter().flat_map(|room| room.census.keys());
        let others = names.map(|name| self.index(name));
        let others = others.filter(|other| *other != at && *other != of).collect();
        self.tell_soon(at, others);
    }

    /// Has peers told where the room ends, once what it ends with now is on disk.
    fn tell_soon(&mut self, at: usize, peers: Vec<usize>) {
        if !peers.is_empty() {
            self.servers[at].enqueue(Vec::new(), Some(Then::TellEnds(peers)));
            self.settle(at);
        }
    }

    /// Has a peer told that goes on in the room without being in it.
    pub(super) fn note_stray(&mut self, at: usize, from: &OwnedServerName, outcome: Option<Outcome>) {
        let room = self.servers[at].memory.room.as_ref();
        if room.is_some_and(|room| destinations::is_stray(&room.census, from, outcome)) {
            let peer = self.index(from);
            self.servers[at].strays.insert(peer);
            self.owe_extremities(at, peer);
        }
    }

    /// Has a peer told soon where the room ends.
    pub(super) fn owe_extremities(&mut self, at: usize, peer: usize) {
        let now = self.now;
        let live = self.servers[at].sessions.get(&peer);
        if let Some(connection) = live.map(|live| live.connection) {
            self.with(at, peer, connection, |session| session.owe_extremities(now));
        }
    }

    /// Ingests what has come and is due.
    pub(super) fn ingest(&mut self, at: usize) {
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
        let is_in = self.servers[at].is_in();
        for (row, arrived) in rows {
            let event = self.read(&arrived.json).filter(|_| is_in);
            let Some(event) = event.filter(|event| event.sender.server_name() == arrived.from) else {
                // What is for nobody here any more was acknowledged, and nobody asks for it again.
                if let Some(event) = self.read(&arrived.json) {
                    self.servers[at].acknowledged.remove(&event.id);
                    self.servers[at].dropped.insert(event.id.clone());
                }
                self.servers[at].write(vec![Record::Ingested(row)]);
                self.servers[at].work.settled(row);
                self.note_stray(at, &arrived.from, None);
                if let Some(event) = self.read(&arrived.json) {
                    self.hears_outside(at, &arrived.from, &event);
                }
                continue;
            };
            let mut incoming = Incoming::live(Arc::clone(&event));
            incoming.row = Some(row);
            let taken = self.take_in(at, incoming);
            self.note(at, || format!("takes {} of its inbox: {taken:?}", event.id));
            match taken {
                Taken::Lacks { .. } => {
                    let peer = self.index(&arrived.from);
                    lacking.push_back((row, peer, event));
                }
                Taken::Known(outcome) | Taken::Stored(outcome) => {
                    self.servers[at].work.settled(row);
                    self.note_stray(at, &arrived.from, Some(outcome));
                }
                Taken::Broken => self.servers[at].work.settled(row),
            }
        }
        // More may be due.
        self.servers[at].work.arrived();
        self.settle(at);
        self.fill_next(at, lacking);
    }
}
