//! Datagrams of a peer, as many as an honest one sends and no more.

use std::sync::Arc;

use maru_protocol::wire::{Datagram, decode, limits::MAX_DATAGRAM_BYTES};
use tokio::time::Instant;

use super::{peer::Peer, shared::Shared};
use crate::{homeserver::Homeserver, limits, link::Link};

/// Hands the peer's datagrams to the server until the link is closed.
pub(super) async fn hear<H: Homeserver>(shared: Arc<Shared<H>>, peer: Arc<Peer>, link: Arc<dyn Link>) {
    let mut budget = Budget::new(Instant::now());
    while let Ok(bytes) = link.receive_datagram().await {
        // An empty one only asks whether we still have the connection.
        if bytes.is_empty() && budget.spend(Instant::now()) {
            continue;
        }
        let datagram = (bytes.len() <= MAX_DATAGRAM_BYTES && budget.spend(Instant::now()))
            .then(|| decode::<Datagram>(&bytes).ok())
            .flatten();
        match datagram {
            Some(datagram) => {
                peer.counters.datagrams_in.add(1);
                shared.server.heard_datagram(&peer.name, datagram);
            }
            None => peer.counters.datagrams_dropped.add(1),
        }
    }
}

/// So many datagrams a second, with a burst of as many.
struct Budget {
    left: f64,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: limits::DATAGRAMS_PER_SECOND,
            since: now,
        }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * limits::DATAGRAMS_PER_SECOND;
        self.since = now;
        self.left = (self.left + gained).min(limits::DATAGRAMS_PER_SECOND);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_cut_to_the_budget() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let burst = (0..10_000).filter(|_| budget.spend(start)).count();
        assert_eq!(burst, limits::DATAGRAMS_PER_SECOND as usize);
        let later = start + Duration::from_millis(500);
        let more = (0..10_000).filter(|_| budget.spend(later)).count();
        assert_eq!(more, limits::DATAGRAMS_PER_SECOND as usize / 2);
    }
}
