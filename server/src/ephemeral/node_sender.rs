//! What of typing and presence the other nodes are told: what is known here first, from a client here or from another
//! homeserver. What another node has said is not said on.

use std::time::Duration;

use ruma::{RoomId, ServerName, UserId};

use super::edu_sender::EduSender;
use super::node_messages::{NodeMessage, PresenceSaid, RemotePresenceSaid, TypingSaid};
use crate::nodes::bus::Bus;

/// Where changes go beside the users here.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// To other homeservers.
    pub edus: EduSender,
    /// To the other nodes.
    pub nodes: NodeSender,
}

/// The way to the other nodes.
#[derive(Clone, Debug)]
pub struct NodeSender(Bus);

impl NodeSender {
    /// By a bus.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self(bus)
    }

    /// Whether there may be other nodes.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.0.has_listeners()
    }

    /// A member types for so much longer, or (`None`) has stopped.
    pub fn typing(&self, room_id: &RoomId, user_id: &UserId, left: Option<Duration>) {
        if self.has_listeners() {
            self.0.say(&typing(room_id, user_id, left));
        }
    }

    /// What another homeserver said of its users holds no longer.
    pub fn server_gone(&self, server_name: &ServerName) {
        if self.has_listeners() {
            let server_name = server_name.to_owned();
            self.0.say(&NodeMessage::ServerGone { server_name });
        }
    }

    /// How a user is, where that has changed.
    pub(super) fn presence(&self, said: PresenceSaid) {
        self.0.say(&NodeMessage::Presence(said));
    }

    /// A user is still as before.
    pub(super) fn still_present(&self, said: PresenceSaid) {
        self.0.repeat(&NodeMessage::Presence(said));
    }

    /// How a user of another homeserver is, and whether that is news.
    pub(super) fn remote_presence(&self, said: RemotePresenceSaid, is_news: bool) {
        let message = NodeMessage::RemotePresence(said);
        match is_news {
            true => self.0.say(&message),
            false => self.0.repeat(&message),
        }
    }

    /// This node wants to be told all.
    pub(super) fn hello(&self) {
        self.0.say(&NodeMessage::Hello);
    }

    /// Says something again, and waits until there is room for it.
    pub(super) async fn repeat(&self, message: &NodeMessage) {
        self.0.repeat_in_turn(message).await;
    }
}

/// What is said of a member who types for so much longer, or (`None`) has stopped.
pub(super) fn typing(room_id: &RoomId, user_id: &UserId, left: Option<Duration>) -> NodeMessage {
    let left = left.map_or(0, |left| {
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    });
    NodeMessage::Typing(TypingSaid {
        room_id: room_id.to_owned(),
        user_id: user_id.to_owned(),
        left_ms: left,
    })
}
