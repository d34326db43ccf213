//! Who speaks with other homeservers: of all nodes the one that holds the lease for it, which leads. The others have it do what
//! they need of other homeservers, over links between nodes, and one of them leads when it is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::key::SecretKey;

use super::Failure;
use crate::config::{Config, PeerAddress};
use crate::data_folder::{DataFolder, Keys};
use crate::nodes::{HeldLease, Nodes};
use crate::peers::{OwnRecord, Peers};
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::Store;
use crate::store::nodes::StoredLease;

/// The lease of the node that speaks with other homeservers.
const LEASE: &str = "federation";

/// How long to wait for the lease before this node counts as one more beside the one that has it.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How often to look who holds the lease after it was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The pause after it could not be begun to speak with other homeservers.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Takes the address for other nodes, where one is configured, and notes in the configuration where they reach it.
///
/// # Errors
/// When the address cannot be taken, or does not say where others reach it.
pub(super) fn bind_for_nodes(config: &mut Config) -> Result<Option<BoundSocket>, Failure> {
    let Some(address) = config.node_listen else {
        config.node_link_address = None;
        return Ok(None);
    };
    let failed = |error: &dyn std::fmt::Display| Failure::Other(format!("{error} (`node_listen`)"));
    let socket = BoundSocket::bind(address).map_err(|error| failed(&error))?;
    let bound = socket.local_address().map_err(|error| failed(&error))?;
    if config.node_link_address.is_none() && bound.ip().is_unspecified() {
        return Err(failed(&format!(
            "other nodes do not reach {bound}: say in `node_link_address` where they do"
        )));
    }
    config.node_link_address.get_or_insert(PeerAddress::Fixed(bound));
    Ok(Some(socket))
}

/// What it takes to lead, as often as it is this node's turn.
struct Leading {
    keys: Keys,
    config: Config,
    /// Kept while another node leads, so that the address stays this node's.
    socket: BoundSocket,
}

impl Leading {
    async fn begin(&self, peers: &Arc<Peers>) -> Result<SocketAddr, Refusal> {
        let own = OwnRecord::of(&self.keys, &self.config.federation.addresses);
        let socket = self.socket.try_clone().map_err(Refusal::internal)?;
        peers.lead(own, &self.keys.tls, socket).await
    }
}

/// A node's part in federation.
struct Part {
    peers: Arc<Peers>,
    nodes: Arc<Nodes>,
    store: Arc<Store>,
    links: Option<Arc<Quic>>,
}

/// Begins to take part in federation, where that is configured: speaks with other homeservers, at once where no other node
/// does, else when that one is gone, and has their requests done by that one meanwhile, where nodes have links. Where other
/// homeservers reach this node, if it has begun.
///
/// # Errors
/// When an address cannot be taken, or federation does not begin.
pub(super) async fn federate(
    server: &Arc<Server>,
    folder: &DataFolder,
    config: &Config,
    for_nodes: Option<BoundSocket>,
) -> Result<Option<SocketAddr>, Failure> {
    let part = Part {
        peers: Arc::clone(&server.peers),
        nodes: Arc::clone(&server.nodes),
        store: Arc::clone(&server.store),
        links: links(&folder.keys().tls, for_nodes)?,
    };
    if let Some(links) = &part.links {
        part.peers.await_leader();
        part.peers.serve_nodes(Arc::clone(links));
    }
    let Some(address) = config.federation_listen else {
        if part.links.is_some() {
            server
                .tasks
                .until_stop("federation", async move { part.follow().await });
        }
        return Ok(None);
    };
    let socket = BoundSocket::bind(address);
    let leading = Leading {
        keys: folder.keys().clone(),
        config: config.clone(),
        socket: socket.map_err(|error| Failure::Other(format!("{error} (`federation_listen`)")))?,
    };
    let mut lease = server.nodes.want(LEASE);
    let is_first = tokio::time::timeout(AT_ONCE, lease.wait_for(Option::is_some))
        .await
        .is_ok();
    let begun = if is_first {
        let begun = leading.begin(&part.peers).await;
        let failed = |refusal| Failure::Other(format!("cannot speak with other homeservers: {refusal}"));
        Some(begun.map_err(failed)?)
    } else {
        tracing::info!("another node speaks with other homeservers; this one does when that one is gone");
        None
    };
    server.tasks.until_stop("federation", async move {
        part.take_turns(leading, lease, begun.is_some()).await;
    });
    Ok(begun)
}

/// The endpoint of links between nodes.
fn links(tls_key: &SecretKey, socket: Option<BoundSocket>) -> Result<Option<Arc<Quic>>, Failure> {
    let Some(socket) = socket else { return Ok(None) };
    let links = Quic::between_nodes(tls_key, socket);
    let links = links.map_err(|error| Failure::Other(format!("{error} (`node_listen`)")))?;
    Ok(Some(Arc::new(links)))
}

impl Part {
    /// Has the node that leads, whichever it is, do what needs another homeserver. For ever.
    async fn follow(&self) {
        if let Some(links) = &self.links {
            let leader = self.nodes.link_of_holder(LEASE);
            self.peers.follow(links, leader).await;
        }
        std::future::pending().await
    }

    /// Leads whenever this node holds the lease, and follows in between, until this server stops.
    async fn take_turns(&self, leading: Leading, mut lease: HeldLease, mut leads: bool) {
        loop {
            if !leads {
                let held = tokio::select! {
                    held = lease.wait_for(Option::is_some) => held.map(drop),
                    () = self.follow() => return,
                };
                if held.is_err() {
                    return;
                }
                if let Err(refusal) = leading.begin(&self.peers).await {
                    tracing::error!(%refusal, "cannot speak with other homeservers");
                    self.peers.step_down(self.links.is_some()).await;
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
                tracing::info!("this node speaks with other homeservers now");
            }
            if self.until_another_leads(&mut lease).await.is_none() {
                return;
            }
            // What is on its way to the log here is checked there: an event is stored once, and a change on a head that has
            // moved is refused.
            self.peers.step_down(self.links.is_some()).await;
            leads = false;
            tracing::warn!("another node speaks with other homeservers; this one does when that one is gone");
        }
    }

    /// Waits until another node holds the lease. A node that cannot say that it lives, because the database is away, loses it
    /// too, and has it again when the database is back, unless another was faster. None when this server stops before.
    async fn until_another_leads(&self, lease: &mut HeldLease) -> Option<()> {
        loop {
            lease.wait_for(Option::is_none).await.ok()?;
            let is_another = |stored: &StoredLease| {
                &*stored.name == LEASE && stored.run.is_some_and(|run| run != self.nodes.run())
            };
            let waiting = tokio::time::timeout(LOOK_AGAIN, lease.wait_for(Option::is_some));
            let waited = waiting.await.map(|held| held.map(drop));
            match waited {
                Ok(held) => held.ok()?,
                // Nobody has taken it who cannot be seen: that takes the database.
                Err(_) => match self.store.nodes.leases().await {
                    Ok(leases) if leases.iter().any(is_another) => return Some(()),
                    _ => {}
                },
            }
        }
    }
}
