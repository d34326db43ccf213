//! The past of the room: what is missing before its gaps is fetched a page at a time, so that every replica becomes whole, as
//! `server/src/peers/backfill/scheduler.rs` and `past.rs` do it.

use std::time::Duration;

use maru_protocol::gap::backfill::{Effect, PAGE, Page};
use maru_protocol::gap::schedule::{Ended, Next};
use maru_protocol::gap::{Question, patience};

use super::requests::{Asked, Reply, Request};
use super::{Happening, World};
use crate::replica;
use crate::server::{Doom, Reading};

impl World {
    /// Has the past fetched that is missing.
    pub(super) fn replicate(&mut self, at: usize) {
        self.servers[at].schedule.add(());
        self.next_page_after(at, Duration::ZERO);
    }

    fn next_page_after(&mut self, at: usize, pause: Duration) {
        let run = self.servers[at].run;
        self.after(pause, Happening::Replicate { at, run });
    }

    /// Begins to fetch a page, if one is due.
    pub(super) fn next_page(&mut self, at: usize) {
        let now = self.now;
        let from = match self.servers[at].schedule.next(now) {
            Next::Fetch((), from) => from,
            Next::Wait(until) => return self.next_page_after(at, until.saturating_sub(now)),
            Next::Rest => return,
        };
        if !self.servers[at].is_in() {
            return self.page_ended(at, Ended::Gone);
        }
        let Some(gap) = replica::gap_back_from(&mut self.servers[at], from) else {
            return self.page_ended(at, Ended::Whole);
        };
        let (page, effect) = Page::before(gap.missing.clone(), self.helpers(at, None));
        let reading = Reading {
            page,
            gap,
            begun: now,
            request: None,
        };
        self.read_on(at, reading, effect);
    }

    fn page_ended(&mut self, at: usize, ended: Ended) {
        let now = self.now;
        self.servers[at].schedule.ended(&(), ended, now);
        self.settle(at);
        self.next_page_after(at, Duration::ZERO);
    }

    /// Whoever has a page fetched is cut off in the middle of it.
    pub(crate) fn cancel_page(&mut self, at: usize) {
        if self.servers[at].reading.take().is_some() {
            self.note(at, || "gives up a page of the past".to_owned());
            self.page_ended(at, Ended::Failed);
        }
    }

    /// Runs the effects of a page until a peer is asked.
    fn read_on(&mut self, at: usize, mut reading: Reading, mut effect: Effect) {
        loop {
            let server = &mut self.servers[at];
            let page = &mut reading.page;
            effect = match effect {
                Effect::Ask(peer, question) => {
                    let to = self.index(&peer);
                    reading.request = Some(self.ask_for_page(at, to, question, reading.begun));
                    self.servers[at].reading = Some(reading);
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
                Effect::TakeIn(offers) => match replica::take_in_past(server, &reading.gap, offers) {
                    Some(taken) => {
                        self.note(at, || format!("takes {taken} events of the past"));
                        self.meets_its_doom(at, Doom::Past);
                        page.taken(taken > 0)
                    }
                    None => page.refused(),
                },
                Effect::Filled => return self.page_ended(at, Ended::Page(PAGE as usize)),
                Effect::GivenUp => return self.page_ended(at, Ended::InVain(reading.gap.before)),
            };
        }
    }

    fn ask_for_page(&mut self, at: usize, to: usize, question: Question, begun: Duration) -> u64 {
        let patience = patience(&question, self.now.saturating_sub(begun));
        let question = Request::Question(question, Vec::new());
        self.ask(at, to, question, Asked::Page, Some(patience))
    }

    /// A peer has answered for a page.
    pub(super) fn page_answered(&mut self, at: usize, request: u64, reply: Reply) {
        let reading = &mut self.servers[at].reading;
        let Some(mut reading) = reading.take_if(|reading| reading.request == Some(request)) else {
            return;
        };
        let effect = match reply {
            Reply::Answer(answer) => reading.page.answered(answer),
            _ => reading.page.refused(),
        };
        self.read_on(at, reading, effect);
    }
}
