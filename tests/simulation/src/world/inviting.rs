//! Invitations of users whose server is not in the room, as `server/src/peers/membership/invites.rs` does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use maru_protocol::destinations;
use maru_protocol::event::Event;
use ruma::{OwnedServerName, OwnedUserId};

use super::World;
use super::requests::{Asked, Reply, Request};
use crate::database::{Invitation, Record};
use crate::replica::sending::{self, Act};
use crate::replica::{self, Incoming, Writer, entering};
use crate::server::Then;

/// What is shown of a room with an invitation.
const SHOWN: [&str; 3] = ["m.room.create", "m.room.join_rules", "m.room.power_levels"];

impl World {
    /// A user invites somebody: by the log where the other server is in the room, else once that one has agreed.
    pub(crate) fn invite(&mut self, at: usize, target: &OwnedUserId, act: Act) {
        let name = target.server_name().to_owned();
        let memory = &self.servers[at].memory;
        let room = memory.room.as_ref();
        if room.is_some_and(|room| room.census.contains_key(&name)) {
            self.user_acts(at, act);
            return;
        }
        let Some(event) = sending::propose(memory, &self.servers[at].key, act) else {
            return;
        };
        let shown = SHOWN.map(|event_type| replica::at(memory, event_type, ""));
        let shown = shown.into_iter().flatten().chain([Arc::clone(&event)]);
        let shown = shown.map(|event| event.sender.server_name().to_owned()).collect();
        let to = self.index(&name);
        self.note(at, || {
            format!("{} invites {target} by {}", event.sender, event.id)
        });
        self.ask(
            at,
            to,
            Request::Invite(Arc::clone(&event), shown),
            Asked::Consent(event),
            None,
        );
    }

    /// A user of this server is invited. In a room that the server is in, the event comes by the log.
    pub(super) fn invited(
        &mut self,
        at: usize,
        request: u64,
        event: Arc<Event>,
        shown: BTreeSet<OwnedServerName>,
    ) {
        let target = event.state_key.as_deref().map(OwnedUserId::try_from);
        let Some(Ok(target)) = target else {
            return;
        };
        let server = &mut self.servers[at];
        let invitation = Invitation {
            event,
            shown,
            is_open: true,
        };
        let change = match server.is_in() {
            true => Vec::new(),
            false => vec![Record::Invitation(target, invitation)],
        };
        server.enqueue(change, Some(Then::Done(request)));
        self.settle(at);
    }

    /// The invited user's server agrees, or does not.
    pub(super) fn consented(&mut self, at: usize, event: Arc<Event>, reply: &Reply) {
        if !matches!(reply, Reply::Done) {
            return;
        }
        let mut incoming = Incoming::live(Arc::clone(&event));
        incoming.own = true;
        let taken = replica::take_in(&mut self.servers[at], incoming);
        self.note(at, || format!("takes its invitation {}: {taken:?}", event.id));
        self.servers[at].enqueue(Vec::new(), Some(Then::Wake));
        self.settle(at);
    }

    /// What a peer says of a room that this server is not in: the end of an invitation, if the peer is believed.
    pub(super) fn hears_outside(&mut self, at: usize, from: &OwnedServerName, event: &Arc<Event>) {
        let ends = ["leave", "ban"].map(Some);
        let target = event.state_key.as_deref().map(OwnedUserId::try_from);
        let (true, Some(Ok(target))) = (ends.contains(&destinations::membership(event).as_deref()), target)
        else {
            return;
        };
        let known = self.servers[at].memory.invitations.get(&target);
        if known.is_some_and(|invitation| invitation.is_open && invitation.shown.contains(from)) {
            self.end_invitation(at, &target);
        }
    }

    fn end_invitation(&mut self, at: usize, user_id: &OwnedUserId) {
        let server = &mut self.servers[at];
        if let Some(mut invitation) = server.memory.invitations.get(user_id).cloned() {
            invitation.is_open = false;
            server.write(vec![Record::Invitation(user_id.clone(), invitation)]);
        }
        self.note(at, || format!("{user_id} is not invited any more"));
        self.settle(at);
    }

    /// A user declines an invitation, through a server in the room.
    pub(crate) fn decline(&mut self, at: usize, via: usize, act: Act) {
        self.ask(at, via, Request::Make(act.clone()), Asked::Decline(act), None);
    }

    pub(super) fn decline_by(&mut self, at: usize, via: usize, reply: Reply, act: Act) {
        let Reply::Template(room_id, template) = reply else {
            return;
        };
        let user_id = act.sender.clone();
        let key = self.servers[at].key.clone();
        if let Some(leave) = entering::membership_by(template, &room_id, &key, act) {
            self.ask(at, via, Request::Send(leave), Asked::Declined(user_id), None);
        }
    }

    pub(super) fn declined(&mut self, at: usize, user_id: &OwnedUserId, reply: &Reply) {
        if matches!(reply, Reply::Done) {
            self.end_invitation(at, user_id);
        }
    }
}
