//! Leads the pool to peers: by the book, and to a domain that nobody has told us of by what it publishes.

use std::sync::Arc;

use maru_federation::{AddressBook, Target};
use maru_protocol::ServerKind;
use ruma::ServerName;

use crate::peers::Peers;
use crate::refusal::Refusal;

/// Where peers are, as far as this server can find out.
pub(in crate::peers) struct PeerLookup(pub(in crate::peers) Arc<Peers>);

impl AddressBook for PeerLookup {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let Self(peers) = self;
        let known = peers.book.targets(peer).await;
        if !known.is_empty() || ServerKind::of(peer) != Ok(ServerKind::Domain) {
            return known;
        }
        if let Err(refusal) = peers.discover(peer).await {
            tracing::debug!(%peer, %refusal, "not discovered");
        }
        peers.book.targets(peer).await
    }
}

impl Peers {
    /// Learns the addresses of a domain from the record that it publishes.
    async fn discover(&self, name: &ServerName) -> Result<(), Refusal> {
        let published = self.prove(name, None).await?.map_err(unavailable)?;
        let Some(record) = published.record else {
            return Ok(());
        };
        let verified = record.verify().map_err(unavailable)?;
        if verified.name != name {
            return Err(unavailable("it publishes the record of another server"));
        }
        self.keep(&record, None).await?.map_err(unavailable)?;
        self.book.learn(&verified);
        Ok(())
    }
}

fn unavailable(why: impl std::fmt::Display) -> Refusal {
    Refusal::Unavailable(why.to_string())
}
