//! Requests to other servers: over this node's own connections where it leads, else by the node that does.

use std::sync::Arc;
use std::time::Duration;

use maru_federation::Pool;
use maru_federation::pool::{Answering, PeerState, RequestError};
use maru_protocol::cursor::Position;
use maru_protocol::wire::answer::RefusedCode;
use maru_protocol::wire::datagram::Datagram;
use maru_protocol::wire::nodes::{Announce, Note};
use maru_protocol::wire::request::Call;
use maru_protocol::wire::{CloseCode, encode};
use ruma::{OwnedServerName, RoomId, ServerName};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::MOST_WAITING;
use super::identity::known_servers::KnownServers;
use super::leader::leader_link::{JoinHold, LeaderLink, NotTaken};
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::Store;

/// How long a request waits for a node that leads: another one takes over within four seconds.
const LEADER_PATIENCE: Duration = Duration::from_secs(8);

/// The pause before a node that does not lead any more is asked again, unless another is known sooner.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Requests that the node that leads is asked for at the same time, and those of them for one server.
const PASSED_ON: (usize, usize) = (480, 16);

/// How long a request waits for others to the same server.
const TURN_PATIENCE: Duration = Duration::from_secs(60);

/// The way by which requests leave this node.
#[derive(Clone)]
pub(super) enum Way {
    /// None: this server does not reach others.
    Closed,
    /// None at the moment: it is not known who leads.
    Unknown,
    /// Connections of its own: this node leads.
    Own(Pool),
    /// The node that leads.
    Leader(LeaderLink),
    /// None any more: this server stops.
    Ended,
}

/// The client side of federation: sends requests and datagrams, and tells peers that something waits for them. Until
/// federation is started, and where it is not configured, requests are refused and the rest is dropped.
pub(super) struct RpcClient {
    identity: Arc<Identity>,
    store: Arc<Store>,
    servers: Arc<KnownServers>,
    way: watch::Sender<Way>,
    /// Who has the node that leads ask a server.
    turns: FairSemaphore<OwnedServerName>,
}

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match &*self.way.borrow() {
            Way::Closed => "closed",
            Way::Unknown => "unknown",
            Way::Own(_) => "own",
            Way::Leader(_) => "leader",
            Way::Ended => "ended",
        };
        f.debug_struct("RpcClient").field("way", &way).finish()
    }
}

impl RpcClient {
    /// A client that cannot send yet.
    pub(super) fn new(identity: Arc<Identity>, store: Arc<Store>, servers: Arc<KnownServers>) -> Self {
        Self {
            identity,
            store,
            servers,
            way: watch::Sender::new(Way::Closed),
            turns: FairSemaphore::new(PASSED_ON.0, PASSED_ON.1, MOST_WAITING),
        }
    }

    /// Has requests leave by another way from now on. The connections of the way before, if it had any.
    pub(super) fn go_by(&self, way: Way) -> Option<Pool> {
        let before = self.way.send_replace(way);
        match before {
            Way::Own(pool) => Some(pool),
            _ => None,
        }
    }

    /// The connections with peers, if this node has any.
    pub(super) fn pool(&self) -> Option<Pool> {
        match &*self.way.borrow() {
            Way::Own(pool) => Some(pool.clone()),
            _ => None,
        }
    }

    /// Whether this server reaches others by none of its nodes, as far as this one knows.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.way.borrow(), Way::Closed)
    }

    /// Refuses a server that may not be spoken with.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for one that is kept out, and where this server does not federate.
    pub(super) fn check_open_to(&self, peer: &ServerName) -> Result<(), Refusal> {
        self.servers.check_allowed(peer)?;
        match self.is_closed() {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// Sends a request whose answer is read part by part. On a node that does not lead it goes by the one that does, and again
    /// by the next, where the first has not taken it.
    ///
    /// # Errors
    /// What the peer says, or that it cannot be reached.
    pub(super) async fn request_stream<C: Call>(
        &self,
        peer: &ServerName,
        call: C,
    ) -> Result<Answering<C>, Refusal> {
        self.servers.check_allowed(peer)?;
        let frame = encode(&call.into()).map_err(|error| refusal(peer, RequestError::TooLong(error)))?;
        let mut ways = Ways::of(&self.way);
        loop {
            match ways.next().await? {
                Through::Own(pool) => {
                    let answer = pool.request_frame(peer, &frame).await;
                    return answer.map_err(|error| refusal(peer, error));
                }
                Through::Leader(leader) => {
                    let turn = timeout(TURN_PATIENCE, self.turns.acquire(peer.to_owned())).await;
                    let turn = turn.map_err(|_| busy(peer))?.map_err(|_| busy(peer))?;
                    match leader.ask(peer, &frame, turn).await {
                        Ok(answer) => return Ok(answer),
                        Err(why) => ways.not_taken(why).await?,
                    }
                }
            }
        }
    }

    /// Sends a request whose answer is one piece, and waits for it.
    ///
    /// # Errors
    /// What the peer says, or that it cannot be reached.
    pub(super) async fn request<C: Call>(&self, peer: &ServerName, call: C) -> Result<C::Done, Refusal> {
        let answer = self.request_stream(peer, call).await?;
        answer.done().await.map_err(|error| refusal(peer, error))
    }

    /// Sends a datagram, if the peer is connected and may be spoken with.
    pub(super) fn datagram(&self, peer: &ServerName, datagram: &Datagram) {
        if let Some(pool) = self.pool().filter(|_| self.servers.is_allowed(peer)) {
            pool.datagram(peer, datagram);
        }
    }

    /// Whether a connection with a peer is ready.
    pub(super) fn is_connected(&self, peer: &ServerName) -> bool {
        let view = self.pool().and_then(|pool| pool.peer(peer));
        view.is_some_and(|view| view.state == PeerState::Connected)
    }

    /// The peers with a connection that is ready.
    pub(super) fn connected(&self) -> Vec<OwnedServerName> {
        let views = self.pool().map_or_else(Vec::new, |pool| pool.peers());
        let connected = views
            .into_iter()
            .filter(|view| view.state == PeerState::Connected);
        connected.map(|view| view.name).collect()
    }

    /// Has the log read for a peer: there may be something for it. The node that leads finds out by the log itself.
    pub(super) fn wake(&self, peer: &ServerName) {
        if let Some(pool) = self.pool() {
            pool.wake(peer);
        }
    }

    /// Wakes the peers in a room.
    pub(super) fn wake_room(&self, room: &Room) {
        if let Some(pool) = self.pool() {
            self.others_in(room).for_each(|name| pool.wake(&name));
        }
    }

    /// Closes the connection with a peer, if this node has one.
    pub(super) fn disconnect(&self, peer: &ServerName, code: CloseCode, reason: &str) {
        if let Some(pool) = self.pool() {
            pool.disconnect(peer, code, reason);
        }
    }

    /// Has a peer sent the forward extremities of the rooms that it shares with this server.
    pub(super) fn announce_extremities(&self, peer: &ServerName) {
        let announce = |at| {
            let peer = peer.to_owned();
            Note::Announce(Announce { peer, at })
        };
        if !self.leave_to_leader(announce)
            && let Some(pool) = self.pool()
        {
            pool.owe_extremities(peer);
        }
    }

    /// Leaves something that nobody waits for to the node that leads, as of where the log stands; false where no other node
    /// does.
    pub(super) fn leave_to_leader(&self, note: impl FnOnce(Position) -> Note) -> bool {
        match &*self.way.borrow() {
            Way::Leader(leader) => {
                leader.note(note(self.store.log.position()));
                true
            }
            _ => false,
        }
    }

    /// Keeps everybody else of this homeserver out of the way into a room, on other nodes too, until the hold is ended. None
    /// where this node leads, or there are no others: then its own lock does.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] where no node leads.
    pub(super) async fn hold_join(&self, room_id: &RoomId) -> Result<Option<JoinHold>, Refusal> {
        if self.is_closed() {
            return Ok(None);
        }
        let mut ways = Ways::of(&self.way);
        loop {
            match ways.next().await? {
                Through::Own(_) => return Ok(None),
                Through::Leader(leader) => match leader.hold_join(room_id).await {
                    Ok(hold) => return Ok(Some(hold)),
                    Err(why) => ways.not_taken(why).await?,
                },
            }
        }
    }

    /// Has the forward extremities sent to the servers of a room, except `of`: the server of the newest event may not know
    /// of them.
    pub(super) fn announce_extremities_in(&self, room: &Room, of: &ServerName) {
        self.others_in(room)
            .filter(|name| name != of)
            .for_each(|name| self.announce_extremities(&name));
    }

    fn others_in(&self, room: &Room) -> impl Iterator<Item = OwnedServerName> {
        let own = self.identity.server_name.clone();
        let servers: Vec<OwnedServerName> = room.head().servers.keys().cloned().collect();
        servers.into_iter().filter(move |name| *name != own)
    }
}

/// A way that leads to peers.
enum Through {
    Own(Pool),
    Leader(LeaderLink),
}

/// The ways that one request takes, until it is taken or has waited for too long.
struct Ways {
    way: watch::Receiver<Way>,
    deadline: Instant,
}

impl Ways {
    fn of(way: &watch::Sender<Way>) -> Self {
        Self {
            way: way.subscribe(),
            deadline: Instant::now() + LEADER_PATIENCE,
        }
    }

    /// The way there is, as soon as there is one.
    async fn next(&mut self) -> Result<Through, Refusal> {
        let known = self.way.wait_for(|way| !matches!(way, Way::Unknown));
        let known = timeout_at(self.deadline, known).await;
        match known.map(|known| known.map(|way| way.clone())) {
            Ok(Ok(Way::Own(pool))) => Ok(Through::Own(pool)),
            Ok(Ok(Way::Leader(leader))) => Ok(Through::Leader(leader)),
            Ok(Ok(Way::Closed)) => Err(closed()),
            Ok(Ok(Way::Ended) | Err(_)) => Err(Refusal::Unavailable("this server stops".into())),
            Ok(Ok(Way::Unknown)) | Err(_) => Err(Refusal::Unavailable(
                "no node of this server speaks with others just now".into(),
            )),
        }
    }

    /// Waits until it may be worth while to ask again.
    async fn not_taken(&mut self, why: NotTaken) -> Result<(), Refusal> {
        tracing::debug!(%why, "not asked");
        if Instant::now() >= self.deadline {
            return Err(Refusal::Unavailable(why.to_string()));
        }
        let _ = timeout(ASK_AGAIN, self.way.changed()).await;
        Ok(())
    }
}

fn closed() -> Refusal {
    Refusal::forbidden("this server does not reach others: see `federation_listen` and `node_listen`")
}

fn busy(peer: &ServerName) -> Refusal {
    Refusal::Unavailable(format!("too much of {peer} waits"))
}

/// What a failed request is to the person who waits for it.
pub(super) fn refusal(peer: &ServerName, error: RequestError) -> Refusal {
    match error {
        RequestError::Refused(refused) => {
            let reason = refused.reason.to_string();
            match refused.code {
                RefusedCode::NotFound => Refusal::NotFound(reason),
                RefusedCode::Forbidden => Refusal::Forbidden(reason),
                RefusedCode::UnsupportedVersion => Refusal::UnsupportedRoomVersion(reason),
                RefusedCode::Invalid => Refusal::BadJson(reason),
                RefusedCode::TooLarge => Refusal::TooLarge(reason),
                _ => Refusal::Unavailable(format!("{peer}: {reason}")),
            }
        }
        error => Refusal::Unavailable(format!("{peer}: {error}")),
    }
}
