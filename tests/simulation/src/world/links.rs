//! What is between servers: connections that are slow, break, and are cut. Streams keep their order.

use std::time::Duration;

use maru_federation::peer::{Action, Identity, Role, Session, Window};
use maru_protocol::wire::message::Received;

use super::{Happening, World};
use crate::server::Live;

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl World {
    /// Whether two servers hear each other now.
    pub(crate) fn reach(&self, one: usize, other: usize) -> bool {
        self.servers[one].up && self.servers[other].up && !self.cut.contains(&pair(one, other))
    }

    pub(super) fn delay(&mut self) -> Duration {
        let slowest = self.slowest_ms;
        // Mostly quick, sometimes very slow: so that things overtake each other.
        let most = if self.random.chance(10) {
            slowest
        } else {
            slowest / 10 + 2
        };
        self.random.span(1, most + 1)
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
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

    pub(super) fn connected(&mut self, from: usize, to: usize, connection: u64) {
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

    pub(super) fn broken(&mut self, at: usize, peer: usize, connection: u64) {
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
            // What is on its way is lost, or the first of it still arrives.
            let lost = match self.random.chance(50) {
                true => self.now,
                false => self.now + self.delay(),
            };
            self.happenings.retain(|_, (time, happening)| {
                !matches!(happening, Happening::Frame { at: to, connection: of, .. }
                    if *of == connection && *to == peer && *time >= lost)
            });
            self.arrivals.insert((connection, 2), self.now);
            let pause = self.random.span(0, 30_000);
            self.after(pause, Happening::Broken { at, peer, connection });
        }
    }

    /// Does something with a session, if it is still there, and all that follows.
    pub(super) fn with(&mut self, at: usize, peer: usize, connection: u64, does: impl FnOnce(&mut Session)) {
        let live = self.servers[at].sessions.get_mut(&peer);
        if let Some(live) = live.filter(|live| live.connection == connection) {
            does(&mut live.session);
            self.act(at, peer, connection);
        }
    }

    /// Carries out what a session wants.
    pub(super) fn act(&mut self, at: usize, peer: usize, connection: u64) {
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

    pub(super) fn carry_out(&mut self, at: usize, peer: usize, connection: u64, action: Action) {
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
            Action::Acknowledged(cursor) => self.delivered(at, peer, &cursor),
            Action::Ready | Action::HeardRecord(_) => {}
        }
    }

    pub(super) fn send_frame(&mut self, at: usize, peer: usize, connection: u64, bytes: Vec<u8>) {
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

    pub(super) fn timer(&mut self, at: usize, peer: usize, connection: u64) {
        let now = self.now;
        let live = self.servers[at].sessions.get(&peer);
        let due = live.is_some_and(|live| {
            live.connection == connection && live.session.timeout().is_some_and(|timeout| timeout <= now)
        });
        if due {
            self.with(at, peer, connection, |session| session.timer(now));
        }
    }
}
