//! Who speaks with other homeservers: of all nodes the one that holds the lease for it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use maru_federation::quic::BoundSocket;
use maru_protocol::key::SecretKey;

use super::Failure;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::nodes::HeldLease;
use crate::peers::OwnRecord;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::nodes::StoredLease;

/// The lease of the node that speaks with other homeservers.
const LEASE: &str = "federation";

/// How long to wait for the lease before this node counts as one more beside the one that has it.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How often to look who holds the lease after it was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What it takes to begin.
struct Speaking {
    own: OwnRecord,
    tls_key: SecretKey,
    socket: BoundSocket,
}

impl Speaking {
    async fn begin(self, server: &Server) -> Result<SocketAddr, Refusal> {
        server.peers.start(self.own, &self.tls_key, self.socket).await
    }
}

/// Begins to speak with other homeservers where that is configured: at once where no other node does, else when that one is
/// gone. Where this node is reached, if it has begun.
///
/// # Errors
/// When the address cannot be taken, or federation does not begin.
pub(super) async fn federate(
    server: &Arc<Server>,
    folder: &DataFolder,
    config: &Config,
) -> Result<Option<SocketAddr>, Failure> {
    let Some(address) = config.federation_listen else {
        return Ok(None);
    };
    let socket = BoundSocket::bind(address);
    let socket = socket.map_err(|error| Failure::Other(format!("{error} (`federation_listen`)")))?;
    let speaking = Speaking {
        own: OwnRecord::of(folder.keys(), &config.federation.addresses),
        tls_key: folder.keys().tls.clone(),
        socket,
    };
    let mut lease = server.nodes.want(LEASE);
    let is_first = tokio::time::timeout(AT_ONCE, lease.wait_for(Option::is_some))
        .await
        .is_ok();
    let (begun, waiting) = if is_first {
        let begun = speaking.begin(server).await;
        let failed = |refusal| Failure::Other(format!("cannot speak with other homeservers: {refusal}"));
        (Some(begun.map_err(failed)?), None)
    } else {
        tracing::info!("another node speaks with other homeservers; this one does when that one is gone");
        (None, Some(speaking))
    };
    let leading = Arc::downgrade(server);
    server.tasks.until_stop("federation", async move {
        if let Some(speaking) = waiting {
            if lease.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let Some(server) = leading.upgrade() else { return };
            if let Err(refusal) = speaking.begin(&server).await {
                return tracing::error!(%refusal, "cannot speak with other homeservers");
            }
            tracing::info!("this node speaks with other homeservers now");
        }
        if until_another_leads(&leading, lease).await.is_none() {
            return;
        }
        // What is on its way to the log here is checked there: an event is stored once, and a change on a head that has moved
        // is refused.
        if let Some(server) = leading.upgrade() {
            server.peers.stop().await;
            tracing::warn!(
                "another node speaks with other homeservers; this one does not until it is started again"
            );
        }
    });
    Ok(begun)
}

/// Waits until another node holds the lease. A node that cannot say that it lives, because the database is away, loses it
/// too, and has it again when the database is back, unless another was faster. None when this server stops before.
async fn until_another_leads(server: &Weak<Server>, mut lease: HeldLease) -> Option<()> {
    loop {
        lease.wait_for(Option::is_none).await.ok()?;
        let server = server.upgrade()?;
        let is_another = |stored: &StoredLease| {
            &*stored.name == LEASE && stored.run.is_some_and(|run| run != server.nodes.run())
        };
        let waiting = tokio::time::timeout(LOOK_AGAIN, lease.wait_for(Option::is_some));
        let waited = waiting.await.map(|held| held.map(drop));
        match waited {
            Ok(held) => held.ok()?,
            // Nobody has taken it who cannot be seen: that takes the database.
            Err(_) => match server.store.nodes.leases().await {
                Ok(leases) if leases.iter().any(is_another) => return Some(()),
                _ => {}
            },
        }
    }
}
