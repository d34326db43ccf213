//! Keeps one peer connected while somebody wants it to be: dials its addresses, waits after a failure, and
//! stops waiting as soon as the peer contacts us.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use maru_protocol::wire::CloseCode;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::backoff::Backoff;
use super::connection;
use super::peer::Peer;
use super::shared::Shared;
use super::view::PeerState;
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

    /// Tries every address once, each next one beside those before it. Ends when a connection that became
    /// ready is over, whoever dialled it.
    async fn round(&self, stopping: watch::Receiver<bool>) -> Result<(), String> {
        let looking = self.addresses.targets(&self.peer.name);
        let targets = timeout(limits::LOOK_UP_TIMEOUT, looking)
            .await
            .unwrap_or_default();
        let mut dials: FuturesUnordered<_> = (0..)
            .zip(targets)
            .take(limits::MAX_TARGETS)
            .map(|(nth, target)| self.dial(nth, target))
            .collect();
        let mut reason = "no address is known".to_owned();
        loop {
            self.peer.set_state(PeerState::Dialling);
            let (target, dialled) = tokio::select! {
                dialled = dials.next() => match dialled {
                    Some(dialled) => dialled,
                    None => return Err(reason),
                },
                () = self.no_need(stopping.clone()) => return Ok(()),
            };
            reason = match dialled {
                Ok(link) => match self.greet(link).await {
                    None => return Ok(()),
                    Some(reason) => reason,
                },
                Err(error) => error.to_string(),
            };
            reason = format!("{}: {reason}", target.address);
        }
    }

    /// Dials the nth address, if none before it has led anywhere by then.
    async fn dial(&self, nth: u32, target: Target) -> (Target, Result<Arc<dyn Link>, LinkError>) {
        sleep(limits::NEXT_TARGET_AFTER * nth).await;
        // Only fails once closed, which this one never is.
        let _dialling = self.shared.dials.acquire().await;
        (target, self.transport.dial(target.address, target.key).await)
    }

    /// Waits until the peer has come to us, or the pool stops.
    async fn no_need(&self, mut stopping: watch::Receiver<bool>) {
        let mut ready = self.peer.ready.subscribe();
        tokio::select! {
            _ = ready.wait_for(Option::is_some) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Runs a connection to its end. Gives the reason of one that led nowhere.
    async fn greet(&self, link: Arc<dyn Link>) -> Option<String> {
        if link.peer_key() == self.shared.own_key {
            link.close(CloseCode::WrongServer, "dialled myself");
            return Some("that is ourselves".to_owned());
        }
        let role = Role::Dialler(self.peer.name.clone());
        // Boxed, so that a keeper that only waits is small.
        let ended = Box::pin(connection::run(self.shared.clone(), link, role, None)).await;
        (!ended.was_ready && !self.peer.has_connection()).then_some(ended.reason)
    }
}

/// The shortest and longest waits between rounds of dialling that are sensible outside tests.
pub(super) const RETRIES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
