//! What is committed and what follows from that; what is lost when a server stops.

use maru_federation::peer::Session;
use maru_protocol::gap::work::Work;

use super::requests::Reply;
use super::{Happening, World};
use crate::replica::entering::admission;
use crate::server::{Doom, Then};

impl World {
    /// Has what is on its way to the disk committed.
    pub(crate) fn settle(&mut self, at: usize) {
        if self.servers[at].wants_commit() {
            let (pause, run) = (self.random.span(1, 40), self.servers[at].run);
            self.after(pause, Happening::Commit { at, run });
            self.meets_its_doom(at, Doom::Commit);
        }
    }

    /// Has a server stop in a moment that was to do so in the middle of this.
    pub(super) fn meets_its_doom(&mut self, at: usize, doom: Doom) {
        let run = self.servers[at].run;
        if self.servers[at].doom.take_if(|doomed| *doomed == doom).is_some() {
            self.note(at, || format!("is to stop: {doom:?}"));
            // About as long as a commit takes.
            let pause = self.random.span(0, 40);
            self.after(pause, Happening::Stop { at, run });
        }
    }

    pub(super) fn commit(&mut self, at: usize, run: u64) {
        if self.servers[at].run != run || !self.servers[at].up {
            return;
        }
        let was_in = self.servers[at].is_in();
        let follow = self.servers[at].commit();
        if !was_in && self.servers[at].is_in() {
            self.replicate(at);
        }
        for then in follow {
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
                Then::SentMessage(id, to) => {
                    self.servers[at].sent_messages.insert(id, to);
                    self.wake_peers(at);
                }
                Then::Admitted { request, join } => {
                    let admission = admission(&self.servers[at].disk, &join);
                    self.reply(request, admission.map_or(Reply::None, Reply::Admission));
                }
                Then::Done(request) => self.reply(request, Reply::Done),
                Then::Wake => self.wake_peers(at),
                Then::TellEnds(peers) => peers.into_iter().for_each(|peer| self.owe_extremities(at, peer)),
            }
        }
        self.settle(at);
    }

    /// A server loses what is not on disk, and of what is on its way there nobody knows. Peers notice sooner or later.
    pub(crate) fn crash(&mut self, at: usize) {
        self.note(at, || "crashes".to_owned());
        for peer in 0..self.servers.len() {
            self.break_between(at, peer);
        }
        // Changes come to the disk in their order, and what was on its way may have or not: often all but the last one, which
        // is what shows whether that should have been one change with those before it.
        let on_their_way = self.servers[at].on_their_way();
        let stored = match self.random.chance(50) {
            true => on_their_way.saturating_sub(1),
            false => self.random.below(on_their_way + 1),
        };
        self.servers[at].crash(stored);
    }

    /// A server crashes and comes back after a while.
    pub(crate) fn stop(&mut self, at: usize) {
        self.crash(at);
        let pause = self.random.span(500, 400_000);
        self.after(pause, Happening::Start(at));
    }

    /// Nobody counts on messages from or to a server that went back to a backup: it may never have had them.
    pub(crate) fn forget_messages(&mut self, at: usize) {
        let name = self.servers[at].name.clone();
        self.servers[at].sent_messages.clear();
        for server in &mut self.servers {
            server.sent_messages.retain(|_, to| *to != name);
        }
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
        self.replicate(at);
    }
}
