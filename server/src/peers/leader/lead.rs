//! Leading: this node speaks with other homeservers, from [`Peers::lead`] to [`Peers::step_down`], as often as it is its turn.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use maru_federation::Pool;
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::key::SecretKey;
use maru_protocol::record::SignedRecord;
use ruma::ServerName;
use tokio::sync::watch;

use super::follow::follow;
use super::term::Term;
use crate::peers::pool_adapter::PoolAdapter;
use crate::peers::rpc_client::Way;
use crate::peers::{LONGEST_RETRY, MESSAGES_KEPT_MS, OwnRecord, Peers};
use crate::refusal::Refusal;

/// What is so while this node leads.
#[derive(Debug)]
pub(in crate::peers) struct Leads {
    pub(in crate::peers) address: SocketAddr,
    pub(in crate::peers) own_record: SignedRecord,
    _term: Term,
}

impl Peers {
    /// Begins to lead: speaks with other servers over a bound socket, and goes on with what waits. Where it is bound. After
    /// [`Peers::step_down`] it may be begun again.
    ///
    /// # Errors
    /// When the database fails or the transport cannot be set up.
    pub async fn lead(
        self: &Arc<Self>,
        own: OwnRecord,
        tls_key: &SecretKey,
        socket: BoundSocket,
    ) -> Result<SocketAddr, Refusal> {
        let keyring = self.servers.keyring();
        let now = self.clock.now_ms();
        let own_record = own.publish(&self.store, keyring, &self.identity, now).await?;
        let transport = Quic::new(tls_key, socket).map_err(Refusal::internal)?;
        let address = transport.local_address().map_err(Refusal::internal)?;
        self.receiver.begin();
        let adapter = PoolAdapter {
            identity: Arc::clone(&self.identity),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            servers: Arc::clone(&self.servers),
            own_record: own_record.clone(),
            receiver: Arc::clone(&self.receiver),
            worker: Arc::clone(&self.worker),
            outgoing: Arc::clone(&self.outgoing),
            handlers: Arc::clone(&self.handlers),
            ephemeral: Arc::clone(&self.ephemeral),
        };
        let pool = Pool::start(
            Arc::new(adapter),
            Arc::clone(&self.servers),
            Arc::new(transport),
            maru_federation::pool::Settings {
                longest_retry: LONGEST_RETRY,
                ..maru_federation::pool::Settings::default()
            },
        );
        self.rpc.go_by(Way::Own(pool));
        let term = Term::begin();
        self.wake_destinations(&term);
        self.scheduler.start(&term).await?;
        self.ephemeral.start(&term);
        *self.leads() = Some(Leads {
            address,
            own_record,
            _term: term,
        });
        self.worker.resume().await?;
        let sharing = self.servers.sharing();
        sharing.refresh(now).await?;
        let messages_since = i64::try_from(now.saturating_sub(MESSAGES_KEPT_MS)).unwrap_or(i64::MAX);
        let with_messages = self.store.federation.servers_to_tell(messages_since).await?;
        let peers = sharing.all().into_iter().chain(with_messages);
        peers
            .filter(|name| self.is_peer(name))
            .for_each(|name| self.rpc.wake(&name));
        Ok(address)
    }

    /// Speaks with no other server any more until it leads again: another node does. Whether that one can be asked says
    /// `follows`.
    pub async fn step_down(&self, follows: bool) {
        let then = if follows { Way::Unknown } else { Way::Closed };
        self.end_term(then).await;
    }

    /// Ends all connections in order, for good.
    pub async fn stop(&self) {
        self.end_term(Way::Ended).await;
    }

    async fn end_term(&self, then: Way) {
        // Another node may speak with them from now on: what they said of their users holds.
        self.ephemeral.stop();
        drop(self.leads().take());
        if let Some(pool) = self.rpc.go_by(then) {
            pool.shut_down().await;
        }
    }

    /// Takes links of other nodes, and does what they ask of this one whenever it leads, until the server stops.
    pub fn serve_nodes(&self, links: Arc<Quic>) {
        self.node_requests.listen(links);
    }

    /// Has requests wait for a node that leads, rather than be refused.
    pub fn await_leader(&self) {
        self.rpc.go_by(Way::Unknown);
    }

    /// Has requests sent by the node that leads, whichever it is, for as long as this is polled. `leader` says where it takes
    /// links of other nodes, as far as that is known.
    pub async fn follow(&self, links: &Quic, leader: watch::Receiver<Option<String>>) {
        follow(&self.rpc, links, leader).await;
    }

    /// Wakes servers for which something is committed, for as long as there are peers.
    fn wake_destinations(self: &Arc<Self>, term: &Term) {
        let peers = Arc::downgrade(self);
        let destinations = Arc::clone(&self.destinations);
        term.keep(&self.tasks, "wake_peers", move || {
            let (peers, destinations) = (Weak::clone(&peers), Arc::clone(&destinations));
            async move {
                loop {
                    let names = destinations.take().await;
                    let Some(peers) = peers.upgrade() else { return };
                    for name in names.iter().filter(|name| peers.is_peer(name)) {
                        peers.servers.sharing().add(name);
                        peers.rpc.wake(name);
                    }
                }
            }
        });
    }

    /// Whether a name is that of another server that may be spoken with.
    fn is_peer(&self, name: &ServerName) -> bool {
        name != self.identity.name() && self.servers.is_allowed(name)
    }
}
