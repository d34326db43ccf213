//! What becomes of what other nodes say of typing and presence, and what they are told again: who types, from time to time,
//! and everything when a node has begun to listen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::node_messages::{NodeMessage, TypingSaid};
use super::node_sender::Outlet;
use super::presence::Presence;
use super::typing::Typing;
use crate::nodes::bus::Heard;
use crate::observe::metrics;
use crate::rooms::RoomRepository;
use crate::tasks::Tasks;

/// How often the other nodes are told again who types here. What they were told holds for twice as long, and some more.
const TYPING_EVERY: Duration = Duration::from_secs(10);

/// How long to wait after everything was told before it is told again, however many ask.
const PAUSE: Duration = Duration::from_secs(2);

/// Who listens to other nodes.
#[derive(Debug)]
pub struct NodeListener {
    /// Rooms.
    pub rooms: Arc<RoomRepository>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
    /// Where changes go.
    pub outlet: Outlet,
}

impl NodeListener {
    /// Begins to listen, until the server stops.
    pub fn start(self, heard: mpsc::Receiver<Heard>, tasks: &Tasks) {
        let (listener, asked) = (Arc::new(self), Arc::<Notify>::default());
        tasks.until_stop("node_repeats", Arc::clone(&listener).repeat(Arc::clone(&asked)));
        tasks.until_stop("node_listener", listener.listen(heard, asked));
    }

    async fn listen(self: Arc<Self>, mut heard: mpsc::Receiver<Heard>, asked: Arc<Notify>) {
        while let Some(heard) = heard.recv().await {
            let items = match heard {
                Heard::Listening => {
                    self.outlet.nodes.hello();
                    continue;
                }
                Heard::Said(items) => items,
            };
            for item in items {
                match NodeMessage::read(item.get()) {
                    Some(NodeMessage::Hello) => asked.notify_one(),
                    Some(message) => self.take(message).await,
                    None => metrics::NODE_MESSAGES_REFUSED.add(1),
                }
            }
        }
    }

    /// Shows what another node says to the users here, and to other homeservers where this node speaks with them.
    async fn take(&self, message: NodeMessage) {
        match message {
            NodeMessage::Hello | NodeMessage::Unknown => {}
            NodeMessage::Typing(said) => self.take_typing(said).await,
            NodeMessage::Presence(said) => self.presence.heard_from_node(&said),
            NodeMessage::RemotePresence(said) => {
                if !self.outlet.edus.is_own(&said.user_id) {
                    self.presence.elsewhere().heard_from_node(said);
                }
            }
            NodeMessage::ServerGone { server_name } => {
                self.typing.forget(&server_name);
                self.presence.elsewhere().forget(&server_name);
            }
        }
    }

    /// A room that is not in memory has nobody here who listens; but other homeservers may have.
    async fn take_typing(&self, said: TypingSaid) {
        let room = match self.rooms.cache().named(&said.room_id) {
            None if self.outlet.edus.is_heard() => self.rooms.room(&said.room_id).await.ok(),
            room => room,
        };
        if let Some(room) = room {
            let left = Duration::from_millis(said.left_ms.into());
            let left = Some(left).filter(|left| !left.is_zero());
            self.typing.heard_from_node(&room, &said.user_id, left);
        }
    }

    /// Tells the other nodes again what goes on here.
    async fn repeat(self: Arc<Self>, asked: Arc<Notify>) {
        let mut due = interval(TYPING_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => self.repeat_typing().await,
                () = asked.notified() => {
                    self.repeat_typing().await;
                    self.repeat_presence().await;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn repeat_typing(&self) {
        if self.outlet.nodes.has_listeners() {
            for message in self.typing.said_here() {
                self.outlet.nodes.repeat(&message).await;
            }
        }
    }

    /// Of those whose heartbeats are here, and, where this node speaks with other homeservers, of their users.
    async fn repeat_presence(&self) {
        for said in self.presence.said_of_all_here() {
            self.outlet.nodes.repeat(&NodeMessage::Presence(said)).await;
        }
        if self.outlet.edus.is_heard() {
            let elsewhere = self.presence.elsewhere();
            for server in elsewhere.servers() {
                for said in elsewhere.said_of_server(&server) {
                    self.outlet.nodes.repeat(&NodeMessage::RemotePresence(said)).await;
                }
            }
        }
    }
}
