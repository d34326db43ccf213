//! What users do in the room, and how they come into it.

use std::sync::Arc;

use maru_protocol::event::Event;
use maru_protocol::version::RoomVersion;

use super::World;
use super::requests::{Asked, Reply, Request};
use crate::database::{Message, Record};
use crate::replica::entering;
use crate::replica::sending::{self, Act};
use crate::server::Then;

impl World {
    /// A user does something; whether the server let it.
    pub(crate) fn user_acts(&mut self, at: usize, act: Act) -> bool {
        let key = self.servers[at].key.clone();
        let Some(event) = sending::send(&mut self.servers[at], &key, act) else {
            return false;
        };
        self.note(at, || {
            let content = event.content.as_str();
            format!(
                "{} sends {} {:?} {content} {}",
                event.sender, event.event_type, event.state_key, event.id
            )
        });
        let id = event.id.clone();
        self.servers[at].enqueue(Vec::new(), Some(Then::Sent(id)));
        self.settle(at);
        true
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
        let request = self.ask(at, via, Request::Make(act.clone()), Asked::Template(act));
        self.servers[at].joining = Some(request);
    }

    pub(super) fn admitted_by(&mut self, at: usize, via: usize, request: u64, reply: Reply, act: Act) {
        if self.servers[at].joining != Some(request) {
            return;
        }
        self.servers[at].joining = None;
        let Reply::Template(template) = reply else {
            return;
        };
        let Some(room_id) = self.servers[via]
            .disk
            .room
            .as_ref()
            .map(|room| room.room_id.clone())
        else {
            return;
        };
        let version = template.version;
        let key = self.servers[at].key.clone();
        if let Some(join) = entering::join_by(template, &room_id, &key, act) {
            let asked = Asked::Admission(version, Arc::clone(&join));
            let request = self.ask(at, via, Request::Send(join), asked);
            self.servers[at].joining = Some(request);
        }
    }

    pub(super) fn arrive(
        &mut self,
        at: usize,
        via: usize,
        version: RoomVersion,
        join: &Arc<Event>,
        reply: Reply,
    ) {
        let Reply::Admission(admission) = reply else {
            return;
        };
        let extremities = admission.extremities.clone();
        let came = entering::arrive(&mut self.servers[at], version, admission, join);
        self.note(at, || format!("arrives by {}: {came}", join.id));
        if came {
            let via = self.servers[via].name.clone();
            let server = &mut self.servers[at];
            server.enqueue(Vec::new(), Some(Then::Wake));
            server.work.told(via, extremities);
            self.settle(at);
            self.wake_worker(at);
        }
    }
}
