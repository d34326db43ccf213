//! What users do in the room, and how they come into it, as `server/src/peers/membership/remote_join.rs` does it.

use std::sync::Arc;

use maru_protocol::event::Event;
use maru_protocol::ingest::Outcome;
use maru_protocol::join_decision::{Standing, Step};
use maru_protocol::version::RoomVersion;

use ruma::OwnedEventId;

use super::World;
use super::requests::{Asked, Reply, Request};
use crate::database::{Message, Record};
use crate::replica::sending::{self, Act};
use crate::replica::{self, Incoming, Taken, entering};
use crate::server::{Doom, Entry, Joining, Target, Then, Worker};

impl World {
    /// A user does something. The event, if the server let it.
    pub(crate) fn user_acts(&mut self, at: usize, act: Act) -> Option<OwnedEventId> {
        let key = self.servers[at].key.clone();
        let event = sending::send(&mut self.servers[at], &key, act)?;
        self.note(at, || {
            let content = event.content.as_str();
            format!(
                "{} sends {} {:?} {content} {}",
                event.sender, event.event_type, event.state_key, event.id
            )
        });
        let id = event.id.clone();
        self.servers[at].enqueue(Vec::new(), Some(Then::Sent(id.clone())));
        self.settle(at);
        Some(id)
    }

    /// A user sends a message to a device of another server.
    pub(crate) fn send_message(&mut self, at: usize, to: usize) {
        self.last += 1;
        let (id, to) = (format!("m{}", self.last), self.servers[to].name.clone());
        self.note(at, || format!("sends the message {id} to {to}"));
        let message = Message {
            to: to.clone(),
            id: id.clone(),
        };
        let then = Then::SentMessage(id, to);
        self.servers[at].enqueue(vec![Record::Message(message)], Some(then));
        self.settle(at);
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
        let request = self.ask(at, via, Request::Make(act.clone()), Asked::Template(act), None);
        self.servers[at].joining = Some(Joining::Asking(request));
    }

    /// Whoever waits for a join gives up, and nothing is left of it here; another server may have let the user in.
    pub(crate) fn cancel_join(&mut self, at: usize) {
        if self.servers[at].joining.take().is_none() {
            return;
        }
        self.note(at, || "gives up a join".to_owned());
        let worker = &mut self.servers[at].worker;
        if matches!(worker, Worker::Filling(filling) if matches!(filling.target, Target::Join(_))) {
            *worker = Worker::Idle;
        }
        self.wake_worker(at);
    }

    /// Ends the request of a join; false where it is not the one that is waited for.
    fn has_asked(&mut self, at: usize, request: u64) -> bool {
        let joining = &mut self.servers[at].joining;
        let asked = joining.take_if(|joining| matches!(joining, Joining::Asking(asked) if *asked == request));
        // What has come meanwhile waits for the end of it.
        self.wake_worker(at);
        asked.is_some()
    }

    pub(super) fn admitted_by(&mut self, at: usize, via: usize, request: u64, reply: Reply, act: Act) {
        if !self.has_asked(at, request) {
            return;
        }
        let Reply::Template(room_id, template) = reply else {
            return;
        };
        let version = template.version;
        let key = self.servers[at].key.clone();
        if let Some(join) = entering::membership_by(template, &room_id, &key, act) {
            let asked = Asked::Admission(version, Arc::clone(&join));
            let request = self.ask(at, via, Request::Send(join), asked, None);
            self.servers[at].joining = Some(Joining::Asking(request));
        }
    }

    /// Another server has let a user in, or has not.
    pub(super) fn arrive(
        &mut self,
        at: usize,
        via: usize,
        request: u64,
        version: RoomVersion,
        join: Arc<Event>,
        reply: Reply,
    ) {
        let (true, Reply::Admission(admission)) = (self.has_asked(at, request), reply) else {
            return;
        };
        let server = &mut self.servers[at];
        replica::keep(server, version, admission.answer.events);
        let entry = Entry {
            via,
            version,
            join,
            state: admission.answer.state,
            extremities: admission.extremities,
            before: server.newest_standing(),
        };
        match Step::first(entry.before) {
            Step::GoOn => self.go_on(at, entry),
            _ => self.begin(at, entry),
        }
    }

    /// The replica that is here goes on to the join.
    fn go_on(&mut self, at: usize, entry: Entry) {
        let mut incoming = Incoming::live(Arc::clone(&entry.join));
        (incoming.own, incoming.accepted) = (true, entry.before == Standing::Outside);
        let taken = replica::take_in(&mut self.servers[at], incoming);
        self.note(at, || format!("goes on to {}: {taken:?}", entry.join.id));
        self.meets_its_doom(at, Doom::Join);
        match taken {
            Taken::Lacks { .. } => {
                self.servers[at].joining = Some(Joining::Entering(Box::new(entry)));
                self.wake_worker(at);
            }
            Taken::Known(_) | Taken::Stored(Outcome::Accepted) => self.gone_on(at, entry, true),
            Taken::Stored(_) | Taken::Broken => self.gone_on(at, entry, false),
        }
    }

    /// The replica has gone on to the join, or could not.
    pub(super) fn gone_on(&mut self, at: usize, entry: Entry, taken: bool) {
        match Step::after(entry.before, self.servers[at].newest_standing(), taken) {
            Step::Begin => self.begin(at, entry),
            Step::Entered => {
                self.note(at, || format!("is back by {}", entry.join.id));
                self.servers[at].enqueue(Vec::new(), Some(Then::Wake));
                self.settle(at);
                self.wake_worker(at);
            }
            Step::Refused | Step::GoOn => {
                self.owe_extremities(at, entry.via);
                self.settle(at);
            }
        }
    }

    /// The replica begins with the join.
    fn begin(&mut self, at: usize, entry: Entry) {
        let came = entering::begin(&mut self.servers[at], entry.version, &entry.state, &entry.join);
        self.note(at, || format!("begins with {}: {came}", entry.join.id));
        self.meets_its_doom(at, Doom::Join);
        if came {
            let via = self.servers[entry.via].name.clone();
            let server = &mut self.servers[at];
            server.enqueue(Vec::new(), Some(Then::Wake));
            server.work.told(via, entry.extremities);
        }
        self.settle(at);
        self.wake_worker(at);
    }
}
