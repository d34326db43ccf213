//! Requests to other servers, over the connection pool.

use std::sync::{Arc, OnceLock};

use maru_federation::Pool;
use maru_federation::pool::{Answering, PeerState, RequestError};
use maru_protocol::wire::answer::RefusedCode;
use maru_protocol::wire::datagram::Datagram;
use maru_protocol::wire::request::Call;
use ruma::{OwnedServerName, ServerName};

use super::identity::known_servers::KnownServers;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::Room;

/// The client side of federation: sends requests and datagrams, and tells peers that something waits for them. Until
/// federation is started, and where it is not configured, requests are refused and the rest is dropped.
pub(super) struct RpcClient {
    identity: Arc<Identity>,
    servers: Arc<KnownServers>,
    pool: OnceLock<Pool>,
}

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let started = self.pool.get().is_some();
        f.debug_struct("RpcClient").field("started", &started).finish()
    }
}

impl RpcClient {
    /// A client that cannot send yet.
    pub(super) fn new(identity: Arc<Identity>, servers: Arc<KnownServers>) -> Self {
        Self {
            identity,
            servers,
            pool: OnceLock::new(),
        }
    }

    /// Sends over a pool from now on. The pool needs those who answer requests, and they send requests themselves: hence it
    /// comes last.
    pub(super) fn start(&self, pool: Pool) {
        let _ = self.pool.set(pool);
    }

    /// The connections, if this server speaks with others.
    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.get()
    }

    /// The pool, for a server that may be spoken with.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for one that is kept out, and where this server does not federate.
    pub(super) fn pool_for(&self, peer: &ServerName) -> Result<&Pool, Refusal> {
        self.servers.check_allowed(peer)?;
        self.pool().ok_or_else(|| {
            Refusal::forbidden("this server does not reach others: `federation_listen` is not set")
        })
    }

    /// Sends a request whose answer is read part by part.
    ///
    /// # Errors
    /// What the peer says, or that it cannot be reached.
    pub(super) async fn request_stream<C: Call>(
        &self,
        peer: &ServerName,
        call: C,
    ) -> Result<Answering<C>, Refusal> {
        let answer = self.pool_for(peer)?.request(peer, call).await;
        answer.map_err(|error| refusal(peer, error))
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
        let views = self.pool().map_or_else(Vec::new, Pool::peers);
        let connected = views
            .into_iter()
            .filter(|view| view.state == PeerState::Connected);
        connected.map(|view| view.name).collect()
    }

    /// Has the log read for a peer: there may be something for it.
    pub(super) fn wake(&self, peer: &ServerName) {
        if let Some(pool) = self.pool() {
            pool.wake(peer);
        }
    }

    /// Wakes the peers in a room.
    pub(super) fn wake_room(&self, room: &Room) {
        self.others_in(room, None, Pool::wake);
    }

    /// Has a peer sent the forward extremities of the rooms that it shares with this server.
    pub(super) fn announce_extremities(&self, peer: &ServerName) {
        if let Some(pool) = self.pool() {
            pool.owe_extremities(peer);
        }
    }

    /// Has the forward extremities sent to the servers of a room, except `of`: the server of the newest event may not know
    /// of them.
    pub(super) fn announce_extremities_in(&self, room: &Room, of: &ServerName) {
        self.others_in(room, Some(of), Pool::owe_extremities);
    }

    fn others_in(&self, room: &Room, except: Option<&ServerName>, act: impl Fn(&Pool, &ServerName)) {
        if let Some(pool) = self.pool() {
            let head = room.head();
            let others = head.servers.keys().map(AsRef::as_ref);
            let others = others.filter(|name| *name != self.identity.name() && Some(*name) != except);
            others.for_each(|name| act(pool, name));
        }
    }

    /// Ends all connections in order.
    pub(super) async fn shut_down(&self) {
        if let Some(pool) = self.pool() {
            pool.shut_down().await;
        }
    }
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
