//! Questions and answers between servers. They overtake each other and everything else, and some are lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use maru_protocol::destinations;
use maru_protocol::event::Event;
use maru_protocol::gap::{Answer, Question};
use maru_protocol::ingest::Outcome;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};

use super::{Happening, World};
use crate::replica::answers::answer;
use crate::replica::entering::{self, Admission, Template};
use crate::replica::sending::Act;
use crate::replica::{self, Incoming, Taken};
use crate::server::Then;

/// What one server asks of another.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Question(Question, Vec<OwnedEventId>),
    Make(Act),
    Send(Arc<Event>),
    /// An invitation, with the servers whose users are shown with it.
    Invite(Arc<Event>, BTreeSet<OwnedServerName>),
}

/// The answer; none is a refusal or silence.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    None,
    Answer(Answer),
    Template(OwnedRoomId, Template),
    Admission(Admission),
    Done,
}

/// What a server waits for an answer for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Its gap.
    Gap,
    /// A page of its past.
    Page,
    /// The template of a join.
    Template(Act),
    /// The admission to a room of this version by this join.
    Admission(RoomVersion, Arc<Event>),
    /// The consent to an invitation.
    Consent(Arc<Event>),
    /// The template by which a user declines.
    Decline(Act),
    /// The end of a user's invitation.
    Declined(OwnedUserId),
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    from: usize,
    to: usize,
    run: u64,
    asked: Asked,
}

impl World {
    /// Asks another server, and takes it for a refusal when no answer has come in so long; of what people wait for, in as long as
    /// they have patience.
    pub(super) fn ask(
        &mut self,
        from: usize,
        to: usize,
        what: Request,
        asked: Asked,
        patience: Option<Duration>,
    ) -> u64 {
        self.last += 1;
        let request = self.last;
        let run = self.servers[from].run;
        self.asking.insert(request, Asking { from, to, run, asked });
        if self.reach(from, to) && self.random.chance(97) {
            let delay = self.delay();
            self.after(delay, Happening::Requested { request, what });
        }
        let of_people = self.random.span(1_000, 20_000) + Duration::from_millis(2 * self.slowest_ms);
        let timeout = patience.unwrap_or(of_people);
        self.after(
            timeout,
            Happening::Replied {
                request,
                reply: Reply::None,
            },
        );
        request
    }

    pub(super) fn requested(&mut self, request: u64, what: Request) {
        let Some(Asking { from, to, .. }) = self.asking.get(&request).cloned() else {
            return;
        };
        if !self.reach(from, to) || self.servers[to].stalls {
            return;
        }
        let peer = self.servers[from].name.clone();
        let server = &mut self.servers[to];
        let reply = match what {
            Request::Question(question, earliest) => {
                let answer = answer(&server.disk, &peer, &question, &earliest);
                answer.map_or(Reply::None, Reply::Answer)
            }
            Request::Make(act) => {
                let template = entering::template(&server.disk, &server.name, &act);
                template.map_or(Reply::None, |(room_id, template)| {
                    Reply::Template(room_id, template)
                })
            }
            Request::Invite(event, shown) => return self.invited(to, request, event, shown),
            Request::Send(sent) => {
                if !server.is_in() {
                    return;
                }
                let taken = replica::take_in(server, Incoming::live(Arc::clone(&sent)));
                let accepted = matches!(
                    taken,
                    Taken::Known(Outcome::Accepted) | Taken::Stored(Outcome::Accepted)
                );
                self.note(to, || {
                    format!("is sent the membership {} of s{from}: {taken:?}", sent.id)
                });
                if accepted && self.servers[to].is_in() {
                    self.tell_others(to, from);
                    let then = match destinations::membership(&sent).as_deref() {
                        Some("join") => Then::Admitted {
                            request,
                            join: sent.id.clone(),
                        },
                        _ => Then::Done(request),
                    };
                    self.servers[to].enqueue(Vec::new(), Some(then));
                }
                return self.settle(to);
            }
        };
        self.reply(request, reply);
    }

    pub(super) fn reply(&mut self, request: u64, reply: Reply) {
        let Some(Asking { from, to, .. }) = self.asking.get(&request).cloned() else {
            return;
        };
        if self.reach(from, to) {
            let delay = self.delay();
            self.after(delay, Happening::Replied { request, reply });
        }
    }

    pub(super) fn replied(&mut self, request: u64, reply: Reply) {
        let Some(Asking { from, to, run, asked }) = self.asking.remove(&request) else {
            return;
        };
        if self.servers[from].run != run {
            return;
        }
        match asked {
            Asked::Gap => self.answered(from, request, reply),
            Asked::Page => self.page_answered(from, request, reply),
            Asked::Template(act) => self.admitted_by(from, to, request, reply, act),
            Asked::Admission(version, join) => self.arrive(from, to, request, version, join, reply),
            Asked::Consent(event) => self.consented(from, event, &reply),
            Asked::Decline(act) => self.decline_by(from, to, reply, act),
            Asked::Declined(user_id) => self.declined(from, &user_id, &reply),
        }
    }
}
