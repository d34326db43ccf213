//! Drives one [`Session`] over one link: carries its actions out, brings the results back, and lets
//! requests and datagrams flow while both sides are ready.

use std::{pin::pin, sync::Arc, time::Duration};

use maru_protocol::wire::{CloseCode, Cursor, message::Hello};
use tokio::{
    sync::{OwnedMutexGuard, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::log_streams::{LogIn, LogOut};
use super::peer::{Peer, Taken};
use super::pending_calls::{Heard, Outcome, Work};
use super::shared::Shared;
use super::{datagrams, inbound_requests};
use crate::homeserver::{Claim, Homeserver};
use crate::limits;
use crate::link::frames::ReadError;
use crate::link::{CloseReason, Link, Path};
use crate::peer::{Action, Identity, Role, Session};
use crate::per_ip_limit::Place;

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether both sides had been ready.
    pub(super) was_ready: bool,
    /// Why it ended.
    pub(super) reason: String,
}

/// Runs a connection until it is closed, by whichever side, and every store that it ordered has ended.
///
/// `stranger` is let go of once the peer is judged.
pub(super) async fn run<H: Homeserver>(
    shared: Arc<Shared<H>>,
    link: Arc<dyn Link>,
    role: Role,
    stranger: Option<Place>,
) -> Ended {
    let mut connection = Connection::new(shared, link, role, stranger);
    let reason = connection.drive().await;
    connection.end(reason).await
}

/// What a connection has once its peer is known.
struct Known {
    peer: Arc<Peer>,
    taken: Taken,
    /// Let go of last, after every store has ended.
    _storing: OwnedMutexGuard<()>,
}

struct Connection<H: Homeserver> {
    shared: Arc<Shared<H>>,
    link: Arc<dyn Link>,
    session: Session,
    dialled: bool,
    log_in: LogIn,
    log_out: LogOut,
    work: Work<H>,
    known: Option<Known>,
    /// Counts us among those that are not judged yet, where the peer dialled.
    stranger: Option<Place>,
    /// Requests that are answered and datagrams that are heard, while both sides are ready.
    serving: JoinSet<()>,
    was_ready: bool,
    last_use: Instant,
    /// Why we closed it, if we did.
    closed_with: Option<String>,
}

impl<H: Homeserver> Connection<H> {
    fn new(shared: Arc<Shared<H>>, link: Arc<dyn Link>, role: Role, stranger: Option<Place>) -> Self {
        let own = Identity {
            name: shared.server.name().to_owned(),
            record: shared.server.own_record(),
            log_id: shared.server.log_id(),
        };
        let dialled = matches!(role, Role::Dialler(_));
        Self {
            session: Session::new(role, own, shared.settings.window, shared.now()),
            dialled,
            log_in: LogIn::new(link.clone()),
            log_out: LogOut::new(link.clone()),
            work: Work::new(shared.server.clone()),
            known: None,
            stranger,
            serving: JoinSet::new(),
            was_ready: false,
            last_use: Instant::now(),
            closed_with: None,
            shared,
            link,
        }
    }

    /// The loop: whatever happens first, then all that the session makes of it.
    async fn drive(&mut self) -> CloseReason {
        let link = self.link.clone();
        let mut closed = pin!(link.closed());
        let mut closing = self.shared.registry.closing.subscribe();
        let mut records = self.shared.registry.records.subscribe();
        let mut idle =
            tokio::time::interval((self.shared.settings.idle_after / 4).max(Duration::from_millis(1)));
        loop {
            if let Some(reason) = self.act() {
                return reason;
            }
            let timer = self.shared.start + self.session.timeout().unwrap_or(limits::IDLE_TIMEOUT);
            let limit = self.session.frame_limit();
            let ready = self.session.is_ready();
            let may_speak = self.log_out.has_room();
            tokio::select! {
                reason = &mut closed => return reason,
                frame = self.log_in.next(limit), if self.work.listens() => match frame {
                    Ok(frame) => self.heard(&frame),
                    Err(ReadError::Frame(error)) => {
                        self.session.close(CloseCode::LimitExceeded, &error.to_string());
                    }
                    Err(error) => return self.broken(&error).await,
                },
                written = self.log_out.write_some(), if !self.log_out.is_empty() => {
                    if let Err(error) = written {
                        return self.broken(&error).await;
                    }
                }
                outcome = self.work.next(may_speak) => self.bring(outcome),
                () = woken(self.known.as_ref()), if ready => self.session.wake(self.shared.now()),
                () = owed(self.known.as_ref()), if ready => self.session.owe_extremities(self.shared.now()),
                () = sleep_until(timer) => self.session.timer(self.shared.now()),
                _ = self.serving.join_next(), if !self.serving.is_empty() => {}
                _ = records.changed() => self.session.new_record(self.shared.server.own_record()),
                _ = idle.tick(), if ready => self.close_if_idle(),
                () = told(&mut closing) => {
                    self.session.close(CloseCode::Done, "shutting down");
                }
            }
        }
    }

    /// Carries out what the session wants done. Gives a reason when that is the end.
    fn act(&mut self) -> Option<CloseReason> {
        while let Some(action) = self.session.poll() {
            match action {
                Action::Send(frame) => self.send(&frame),
                Action::Judge(hello) => self.judge(hello),
                Action::Ready => self.ready(),
                Action::LoadReceived => self.with_peer(Work::load_received),
                Action::ReadLog {
                    after,
                    max_items,
                    max_bytes,
                } => {
                    self.with_peer(|work, peer| work.read_log(peer, after, max_items, max_bytes));
                }
                Action::Store {
                    log_id,
                    items,
                    cursor,
                } => {
                    self.used();
                    self.with_peer(|work, peer| work.store(peer, log_id, items, cursor));
                }
                Action::Acknowledged(cursor) => self.acknowledged(cursor),
                Action::LoadExtremities => self.with_peer(Work::load_extremities),
                Action::HeardExtremities(rooms) => {
                    self.with_peer(|work, peer| work.hear(peer, Heard::Extremities(rooms)));
                }
                Action::HeardRecord(record) => {
                    self.with_peer(|work, peer| work.hear(peer, Heard::Record(record)));
                }
                Action::Close { code, reason } => return Some(self.close(code, reason)),
            }
        }
        if let Some(known) = &self.known {
            known
                .peer
                .flows(self.session.is_caught_up(), self.session.in_flight());
        }
        None
    }

    fn heard(&mut self, frame: &[u8]) {
        if let Some(known) = &self.known {
            known.peer.counters.frames_in.add(1);
            known.peer.counters.bytes_in.add(frame.len() as u64);
        }
        self.session.frame(frame, self.shared.now());
    }

    fn send(&mut self, frame: &[u8]) {
        if let Some(known) = &self.known {
            known.peer.counters.frames_out.add(1);
            known.peer.counters.bytes_out.add(frame.len() as u64);
        }
        self.log_out.push(frame);
    }

    fn judge(&mut self, hello: Hello) {
        let claim = Claim {
            name: hello.name,
            record: hello.record,
            tls_key: self.link.peer_key(),
            address: match self.link.path() {
                Path::Direct(address) => Some(address),
                Path::Memory => None,
            },
            dialled: self.dialled,
        };
        self.work
            .judge(claim, self.shared.clone(), self.link.clone(), self.dialled);
    }

    fn ready(&mut self) {
        let Some(known) = &self.known else {
            return;
        };
        if !known.taken.became_ready() {
            return;
        }
        self.was_ready = true;
        self.last_use = Instant::now();
        self.link.admit();
        tracing::info!(peer = %known.peer.name, path = %self.link.path(), dialled = self.dialled, "connected");
        self.shared.server.connected(&known.peer.name, true);
        let (shared, peer, link) = (self.shared.clone(), known.peer.clone(), self.link.clone());
        self.serving.spawn(inbound_requests::serve(
            shared.clone(),
            peer.clone(),
            link.clone(),
        ));
        self.serving.spawn(datagrams::hear(shared, peer, link));
    }

    fn acknowledged(&mut self, cursor: Cursor) {
        self.used();
        self.with_peer(|work, peer| {
            peer.acknowledged(cursor.clone());
            work.acknowledged(peer, cursor);
        });
    }

    fn with_peer(&mut self, order: impl FnOnce(&mut Work<H>, &Arc<Peer>)) {
        if let Some(known) = &self.known {
            order(&mut self.work, &known.peer);
        }
    }

    /// Brings the result of some work back to the session.
    fn bring(&mut self, outcome: Outcome) {
        let now = self.shared.now();
        match outcome {
            Outcome::Judged(Ok((taken, storing))) => {
                self.stranger = None;
                let peer = taken.peer.clone();
                self.known = Some(Known {
                    peer,
                    taken,
                    _storing: storing,
                });
                self.session.judged();
            }
            Outcome::Judged(Err(rejection)) => self.session.close(rejection.code, &rejection.reason),
            Outcome::Received(received) => self.session.received(received, now),
            Outcome::Page(page) => {
                if !page.items.is_empty() {
                    self.used();
                }
                self.session.page(page.items, page.cursor, page.more, now);
            }
            Outcome::Stored => self.session.stored(),
            Outcome::Extremities(rooms) => self.session.extremities(rooms),
            Outcome::Acknowledged | Outcome::Heard(Ok(())) => {}
            Outcome::Heard(Err(rejection)) => self.session.close(rejection.code, &rejection.reason),
            Outcome::Failed(failure) => {
                tracing::warn!(peer = ?self.peer_name(), %failure, "a peer's connection is closed by a failure of ours");
                self.session.close(CloseCode::Internal, "failed inside");
            }
        }
    }

    fn used(&mut self) {
        self.last_use = Instant::now();
    }

    /// Closes the connection when nothing was said or asked for a while and nothing binds us to the peer.
    fn close_if_idle(&mut self) {
        let Some(known) = &self.known else {
            return;
        };
        if known.peer.is_in_use() {
            self.last_use = Instant::now();
        }
        let idle = self.last_use.elapsed() >= self.shared.settings.idle_after;
        if idle && self.session.is_caught_up() && !self.shared.server.keeps_connected(&known.peer.name) {
            self.session.close(CloseCode::Done, "idle");
        }
    }

    /// A stream broke: most likely because the link did, whose reason says more.
    async fn broken(&mut self, error: &(dyn std::error::Error + Sync)) -> CloseReason {
        match tokio::time::timeout(Duration::from_millis(100), self.link.closed()).await {
            Ok(reason) => reason,
            Err(_) => self.close(CloseCode::ProtocolError, error.to_string()),
        }
    }

    fn close(&mut self, code: CloseCode, reason: String) -> CloseReason {
        self.link.close(code, &reason);
        if !matches!(code, CloseCode::Done | CloseCode::Duplicate) {
            self.shared.registry.refused(code.name());
            let (peer, path, key) = (self.peer_name(), self.link.path(), self.link.peer_key());
            tracing::info!(?peer, %path, %key, %code, reason, "closed a connection");
        }
        self.closed_with = Some(format!("closed by us: {code}: {reason}"));
        CloseReason::ByUs
    }

    /// Lets go of everything, in order.
    async fn end(mut self, reason: CloseReason) -> Ended {
        self.serving.shutdown().await;
        self.link.close(CloseCode::Done, "");
        self.work.finish_store().await;
        let reason = self.closed_with.take().unwrap_or_else(|| reason.to_string());
        tracing::debug!(peer = ?self.peer_name(), was_ready = self.was_ready, reason, "connection ended");
        if let Some(known) = &mut self.known {
            if self.was_ready && !self.session.is_caught_up() {
                known.peer.log_is_unread();
            }
            known.taken.ended(reason.clone());
            if self.was_ready {
                tracing::info!(peer = %known.peer.name, reason, "disconnected");
                if !known.taken.is_replaced() {
                    self.shared.server.connected(&known.peer.name, false);
                }
            }
        }
        Ended {
            was_ready: self.was_ready,
            reason,
        }
    }

    fn peer_name(&self) -> Option<&ruma::OwnedServerName> {
        self.session.peer_name()
    }
}

/// Waits until a switch is on.
async fn told(switch: &mut watch::Receiver<bool>) {
    // An error says that the pool is gone, which is as good.
    let _ = switch.wait_for(|on| *on).await;
}

async fn owed(known: Option<&Known>) {
    match known {
        Some(known) => known.peer.extremities_owed.notified().await,
        None => std::future::pending().await,
    }
}

async fn woken(known: Option<&Known>) {
    match known {
        Some(known) => {
            known.peer.woken.notified().await;
            known.peer.log_is_read();
        }
        None => std::future::pending().await,
    }
}
