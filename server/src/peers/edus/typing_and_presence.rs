//! Typing and presence across servers, by datagrams: said when it changes, said again while it goes on, and all of it when
//! a server has just been connected. What a server says holds no longer than its connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::datagram::{self, Datagram, PresenceState};
use ruma::presence::PresenceState as Shows;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::clock::Clock;
use crate::ephemeral::{News, Outlet, Presence, Shown, Typing};
use crate::identity::Identity;
use crate::observe::metrics;
use crate::peers::dependencies::Dependencies;
use crate::peers::leader::term::Term;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::tasks::Tasks;

/// How often it is said again who types.
const TYPING_EVERY: Duration = Duration::from_secs(20);

/// How often it is said again who is present.
const PRESENCE_EVERY: Duration = Duration::from_secs(120);

/// For how long presence holds: two repeats may be lost.
const PRESENCE_LIFETIME: Duration = Duration::from_secs(400);

/// Datagrams of one set that are sent at once; more follow after [`PAUSE`], so that they do not flood the peer.
const BURST: usize = 100;

/// The pause between bursts.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest status message that fits a datagram, in bytes.
const STATUS_BYTES: usize = 600;

/// Changes of typing that one server may send in a second: each reaches a whole room. What goes on is sent again.
const TYPING_CHANGES: u32 = 20;

/// Servers that were just connected and wait for typing and presence of everybody. When there are more the first get the next
/// repeat.
const GREETED: usize = 1024;

/// The sender and reader of typing and presence between servers.
#[derive(Debug)]
pub(in crate::peers) struct EphemeralEdus {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    outlet: Outlet,
    /// Whether this node speaks with other servers.
    speaks: AtomicBool,
    connected: broadcast::Sender<OwnedServerName>,
    /// Changes of who types that each connected server has sent, since the second began that they are counted in.
    changes: Mutex<HashMap<OwnedServerName, (Instant, u32)>>,
    tasks: Arc<Tasks>,
}

impl EphemeralEdus {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        typing: Arc<Typing>,
        presence: Arc<Presence>,
        outlet: Outlet,
    ) -> Self {
        let (connected, _) = broadcast::channel(GREETED);
        Self {
            identity: Arc::clone(&dependencies.identity),
            clock: Arc::clone(&dependencies.clock),
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            typing,
            presence,
            outlet,
            speaks: AtomicBool::new(false),
            connected,
            changes: Mutex::default(),
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// A peer says something of one of its users. Returns at once.
    pub(in crate::peers) fn receive_datagram(&self, peer: &ServerName, datagram: Datagram) {
        let taken = match datagram {
            Datagram::Typing(typing) => typing.user_id.server_name() == peer && self.receive_typing(&typing),
            Datagram::Presence(presence) => {
                presence.user_id.server_name() == peer && self.receive_presence(presence)
            }
        };
        if !taken {
            metrics::DATAGRAMS_REFUSED.add(1);
        }
    }

    /// A connection is ready, or gone. Returns at once.
    pub(in crate::peers) fn connection_changed(&self, peer: &ServerName, connected: bool) {
        if connected {
            let _ = self.connected.send(peer.to_owned());
        } else if self.speaks.load(Ordering::Relaxed) {
            self.forget(peer);
        }
    }

    /// The connections are about to be ended: what peers have said holds on, for as long as they said, since another node
    /// may speak with them.
    pub(in crate::peers) fn stop(&self) {
        self.speaks.store(false, Ordering::Relaxed);
    }

    /// Tells other servers for a term, and takes what they say until it is stopped.
    pub(in crate::peers) fn start(self: &Arc<Self>, term: &Term) {
        self.speaks.store(true, Ordering::Relaxed);
        let edus = Arc::downgrade(self);
        term.keep(&self.tasks, "edus", move || tell(Weak::clone(&edus)));
    }

    async fn send_due(self: &Arc<Self>, due: Due) -> Result<(), Refusal> {
        match due {
            Due::News(News::Typing(room, user_id)) => {
                let left = self.typing.left(room.nid, &user_id);
                self.send_typing(&room, user_id, left);
            }
            Due::News(News::Presence(user_id, servers)) => {
                if let Some(edu) = self.presence_of(user_id) {
                    servers.iter().for_each(|server| self.rpc.datagram(server, &edu));
                }
            }
            Due::Typing => {
                let (identity, typing) = (&self.identity, &self.typing);
                for (room, user_id, left) in typing.everybody(|user_id| identity.is_local(user_id)) {
                    self.send_typing(&room, user_id, Some(left));
                }
            }
            Due::Presence => {
                let connected = self.rpc.connected();
                if !connected.is_empty() {
                    self.send_presence(&connected).await?;
                }
            }
            Due::Everybody(peers) => {
                let (identity, typing) = (&self.identity, &self.typing);
                for (room, user_id, left) in typing.everybody(|user_id| identity.is_local(user_id)) {
                    self.send_typing(&room, user_id, Some(left));
                }
                self.send_presence(&peers).await?;
            }
        }
        Ok(())
    }

    /// Tells the servers of a room that a user types for so long, or has stopped.
    fn send_typing(&self, room: &Room, user_id: OwnedUserId, left: Option<Duration>) {
        let lifetime = left.map_or(Duration::ZERO, |left| left + TYPING_EVERY);
        let edu = Datagram::Typing(datagram::Typing {
            room_id: room.room_id.clone(),
            user_id,
            typing: left.is_some(),
            lifetime_ms: milliseconds(lifetime),
        });
        let own = &self.identity.server_name;
        let head = room.head();
        head.servers
            .keys()
            .filter(|server| *server != own)
            .for_each(|server| self.rpc.datagram(server, &edu));
    }

    /// Tells peers of everybody who is present and shares a room with them that is not too large: one query, and the
    /// datagrams to each peer in bursts.
    async fn send_presence(self: &Arc<Self>, peers: &[OwnedServerName]) -> Result<(), Refusal> {
        let names = peers.iter().map(ToString::to_string).collect();
        let members = self.presence.told_members();
        let near = self.store.rooms.own_users_near(names, members).await?;
        for (peer, users) in near {
            let edu: Vec<_> = users
                .into_iter()
                .filter_map(|user_id| self.presence_of(user_id))
                .collect();
            let rpc = Arc::clone(&self.rpc);
            self.tasks.until_stop("presence_burst", async move {
                for burst in edu.chunks(BURST) {
                    burst.iter().for_each(|edu| rpc.datagram(&peer, edu));
                    sleep(PAUSE).await;
                }
            });
        }
        Ok(())
    }

    /// The presence of a user of this server, where anything is known of it.
    fn presence_of(&self, user_id: OwnedUserId) -> Option<Datagram> {
        let shown = self.presence.shown(&user_id)?;
        let status = shown.status.as_deref();
        let status = status.map(|status| Text::cut(&status[..status.floor_char_boundary(STATUS_BYTES)]));
        Some(Datagram::Presence(datagram::Presence {
            user_id,
            presence: match shown.state {
                Shows::Online => PresenceState::Online,
                Shows::Unavailable => PresenceState::Unavailable,
                _ => PresenceState::Offline,
            },
            last_active_ago_ms: Some(self.clock.now_ms().saturating_sub(shown.active_at)),
            currently_active: shown.state == Shows::Online,
            status_msg: status,
            lifetime_ms: milliseconds(PRESENCE_LIFETIME),
        }))
    }

    /// A room that is not in memory has nobody here who is listening; other nodes may have somebody.
    fn receive_typing(&self, typing: &datagram::Typing) -> bool {
        let lifetime = Duration::from_millis(typing.lifetime_ms.into());
        let lifetime = typing.typing.then_some(lifetime);
        let Some(room) = self.rooms.repository.cache().named(&typing.room_id) else {
            let nodes = &self.outlet.nodes;
            if nodes.has_listeners() && self.may_change(typing.user_id.server_name()) {
                nodes.typing(&typing.room_id, &typing.user_id, lifetime);
            }
            return true;
        };
        let left = self.typing.left(room.nid, &typing.user_id);
        let is_news = left.is_some() != typing.typing;
        if is_news && !self.may_change(typing.user_id.server_name()) {
            return false;
        }
        self.typing.set(&room, &typing.user_id, lifetime).is_ok()
    }

    fn receive_presence(&self, presence: datagram::Presence) -> bool {
        let ago = presence.last_active_ago_ms.unwrap_or(0);
        let shown = Shown {
            state: match presence.presence {
                PresenceState::Online => Shows::Online,
                PresenceState::Unavailable => Shows::Unavailable,
                PresenceState::Offline => Shows::Offline,
            },
            status: presence.status_msg.map(|status| status.to_string()),
            active_at: self.clock.now_ms().saturating_sub(ago),
        };
        let lifetime = Duration::from_millis(presence.lifetime_ms.into());
        let user_id: &UserId = &presence.user_id;
        let elsewhere = self.presence.elsewhere();
        elsewhere.heard(user_id, shown, lifetime)
    }

    /// Counts a change that a server sends; false when it sends too many.
    fn may_change(&self, peer: &ServerName) -> bool {
        let now = Instant::now();
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = changes.entry(peer.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= TYPING_CHANGES
    }

    /// What a server said holds no longer, on all nodes.
    fn forget(&self, peer: &ServerName) {
        self.outlet.nodes.server_gone(peer);
        self.typing.forget(peer);
        self.presence.elsewhere().forget(peer);
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.remove(peer);
    }
}

/// Tells other servers what changes and what goes on, for as long as it is polled.
async fn tell(edus: Weak<EphemeralEdus>) {
    let listening = edus.upgrade();
    let Some((mut news, mut connected)) =
        listening.map(|edus| (edus.outlet.edus.listen(), edus.connected.subscribe()))
    else {
        return;
    };
    // The first ticks are at once: whoever has been connected before is told then.
    let (mut typing, mut presence) = (interval(TYPING_EVERY), interval(PRESENCE_EVERY));
    typing.set_missed_tick_behavior(MissedTickBehavior::Delay);
    presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            news = news.recv() => news.map(Due::News),
            peer = connected.recv() => peer.map(|peer| Due::Everybody(vec![peer])),
            _ = typing.tick() => Ok(Due::Typing),
            _ = presence.tick() => Ok(Due::Presence),
        };
        let due = match due {
            Ok(due) => due,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(edus) = edus.upgrade() else { return };
        if let Err(refusal) = edus.send_due(due).await {
            tracing::debug!(%refusal, "typing and presence are not told");
        }
    }
}

/// What is to be sent.
enum Due {
    /// Something has changed.
    News(News),
    /// It is time to say again who types.
    Typing,
    /// It is time to say again who is present.
    Presence,
    /// These peers have just been connected and know of nobody.
    Everybody(Vec<OwnedServerName>),
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
