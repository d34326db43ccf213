//! Keeps one peer connected while somebody wants it to be: dials its addresses, waits after a failure, and
//! stops waiting as soon as the peer contacts us.

use std::{sync::Arc, time::Duration};

use maru_protocol::wire::CloseCode;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{backoff::Backoff, connection, peer::Peer, shared::Shared, view::PeerState};
use crate::{
    address_book::{AddressBook, Target},
    homeserver::Homeserver,
    limits,
    link::{Link, LinkError, Transport},
    peer::Role,
};

/// What a keeper works with.
pub(super) struct Keeper<H, A> {
    pub(super) shared: Arc<Shared<H>>,
    pub(super) addresses: Arc<A>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) peer: Arc<Peer>,
}

impl<H: Homeserver, A: AddressBook> Keeper<H, A> {
    /// Runs until the pool stops or nobody wants the peer any more.
    pub(super) async fn run(self) {
        let stopping = self.shared.registry.stopping.subscribe();
        let settings = &self.shared.settings;
        let mut backoff = Backoff::new(settings.first_retry, settings.longest_retry);
        while self.until_wanted(&mut backoff, stopping.clone()).await {
            let begun = Instant::now();
            match self.round(stopping.clone()).await {
                Ok(()) => backoff.reset(),
                Err(reason) => {
                    tracing::debug!(peer = %self.peer.name, reason, "not reached");
                    self.peer.unreachable(reason);
                }
            }
            self.wait(&mut backoff, begun, stopping.clone()).await;
        }
    }

    /// Waits until the peer should be dialled. False when that will not be.
    async fn until_wanted(&self, backoff: &mut Backoff, mut stopping: watch::Receiver<bool>) -> bool {
        loop {
            if *stopping.borrow() {
                return false;
            }
            let connected = self.peer.has_connection();
            if connected {
                backoff.reset();
            } else if self.is_wanted() {
                return true;
            } else {
                self.peer.set_state(PeerState::Idle);
            }
            let forgotten = Instant::now() + self.shared.settings.idle_after;
            tokio::select! {
                () = self.peer.changed.notified() => {}
                _ = stopping.changed() => {}
                () = sleep_until(forgotten), if !connected => {
                    if !self.is_wanted() && self.shared.registry.retire(&self.peer) {
                        return false;
                    }
                }
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.peer.is_wanted() || self.shared.server.keeps_connected(&self.peer.name)
    }

    /// Waits out the back-off. It ends as soon as the peer contacts us, and early for a caller.
    async fn wait(&self, backoff: &mut Backoff, begun: Instant, mut stopping: watch::Receiver<bool>) {
        let delay = backoff.failed(rand::random());
        let mut until = Instant::now() + delay;
        self.peer.set_state(PeerState::Waiting(delay));
        while !self.peer.has_connection() && !*stopping.borrow() {
            if self.peer.is_called() {
                until = until.min(begun + self.shared.settings.first_retry);
            }
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.peer.changed.notified() => {}
                _ = stopping.changed() => {}
            }
        }
        // Whoever comes next looks at what has changed, too.
        self.peer.changed.notify_one();
    }

    /// Tries every address once. Ends when a connection that became ready is over, whoever dialled it.
    async fn round(&self, stopping: watch::Receiver<bool>) -> Result<(), String> {
        let looking = self.addresses.targets(&self.peer.name);
        let targets = timeout(limits::LOOK_UP_TIMEOUT, looking)
            .await
            .unwrap_or_default();
        let mut reason = "no address is known".to_owned();
        for target in targets.into_iter().take(limits::MAX_TARGETS) {
            self.peer.set_state(PeerState::Dialling);
            let link = match self.dial(target, stopping.clone()).await {
                Dialled::Link(link) => link,
                Dialled::Failed(error) => {
                    reason = format!("{}: {error}", target.address);
                    continue;
                }
                Dialled::NoNeed => return Ok(()),
            };
            if link.peer_key() == self.shared.own_key {
                link.close(CloseCode::WrongServer, "dialled myself");
                reason = format!("{}: that is ourselves", target.address);
                continue;
            }
            let role = Role::Dialler(self.peer.name.clone());
            let ended = connection::run(self.shared.clone(), link, role, None).await;
            if ended.was_ready || self.peer.has_connection() {
                return Ok(());
            }
            reason = format!("{}: {}", target.address, ended.reason);
        }
        Err(reason)
    }

    async fn dial(&self, target: Target, mut stopping: watch::Receiver<bool>) -> Dialled {
        let mut ready = self.peer.ready.subscribe();
        tokio::select! {
            link = self.transport.dial(target.address, target.key) => match link {
                Ok(link) => Dialled::Link(link),
                Err(error) => Dialled::Failed(error),
            },
            _ = ready.wait_for(Option::is_some) => Dialled::NoNeed,
            _ = stopping.wait_for(|stopping| *stopping) => Dialled::NoNeed,
        }
    }
}

/// What became of dialling one address.
enum Dialled {
    Link(Arc<dyn Link>),
    Failed(LinkError),
    /// The peer came to us meanwhile, or the pool stops.
    NoNeed,
}

/// The shortest and longest waits between rounds of dialling that are sensible outside tests.
pub(super) const RETRIES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
