//! The past of the room: what is missing before a gap is fetched a page at a time, so that every replica becomes whole, as
//! `server/src/peers/replica.rs` and `past.rs` do it.

use std::time::Duration;

use maru_protocol::gap::page::{Effect, Page, pause};

use super::requests::{Asked, Reply, Request};
use super::{Happening, World};
use crate::replica;

impl World {
    /// Has the past fetched that is missing, after a while.
    pub(super) fn replicate(&mut self, at: usize, pause: Duration) {
        let run = self.servers[at].run;
        self.after(pause, Happening::Replicate { at, run });
    }

    /// Begins to fetch a page, if anything is missing and none is being fetched.
    pub(super) fn next_page(&mut self, at: usize) {
        let server = &self.servers[at];
        if server.reading.is_some() || !server.is_in() {
            return;
        }
        let missing = server.memory.at_gaps();
        if missing.is_empty() {
            return;
        }
        let (page, effect) = Page::before(missing.into_iter().collect(), self.helpers(at, None));
        self.read_on(at, page, effect);
    }

    /// Runs the effects of a page until a peer is asked.
    fn read_on(&mut self, at: usize, mut page: Page, mut effect: Effect) {
        loop {
            let server = &mut self.servers[at];
            effect = match effect {
                Effect::Ask(peer, question) => {
                    let to = self.index(&peer);
                    let request = self.ask(at, to, Request::Question(question, Vec::new()), Asked::Page);
                    self.servers[at].reading = Some((page, Some(request)));
                    return;
                }
                Effect::LookUp(ids) => {
                    let here = server.memory.here(&ids);
                    page.found(ids, &here)
                }
                Effect::Keep(events) => {
                    if let Some(version) = server.memory.room.as_ref().map(|room| room.version) {
                        replica::keep(server, version, events);
                    }
                    page.kept()
                }
                Effect::TakeIn(offers) => match replica::take_in_past(server, offers) {
                    Some(taken) => {
                        self.note(at, || format!("takes {taken} events of the past"));
                        page.taken(taken > 0)
                    }
                    None => page.refused(),
                },
                Effect::Filled => {
                    server.past_failures = 0;
                    self.settle(at);
                    return self.replicate(at, Duration::ZERO);
                }
                Effect::GivenUp => {
                    server.past_failures += 1;
                    let pause = pause(server.past_failures);
                    self.settle(at);
                    return self.replicate(at, pause);
                }
            };
        }
    }

    /// A peer has answered for a page.
    pub(super) fn page_answered(&mut self, at: usize, request: u64, reply: Reply) {
        let reading = &mut self.servers[at].reading;
        let Some((mut page, _)) = reading.take_if(|(_, asked)| *asked == Some(request)) else {
            return;
        };
        let effect = match reply {
            Reply::Answer(answer) => page.answered(answer),
            _ => page.refused(),
        };
        self.read_on(at, page, effect);
    }
}
