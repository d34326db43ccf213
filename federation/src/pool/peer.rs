//! One peer, as everybody in the pool sees it: whether it is connected, who wants it to be, and which of
//! two connections stays.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use maru_protocol::{
    PublicKey,
    wire::{CloseCode, Cursor},
};
use ruma::OwnedServerName;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, Semaphore, watch},
    time::Instant,
};

use super::view::{Counters, PeerState, PeerView};
use crate::{limits, link::Link};

/// One peer of the pool.
pub(super) struct Peer {
    pub(super) name: OwnedServerName,
    pub(super) counters: Counters,
    /// Permits for requests to it.
    pub(super) requests: Arc<Semaphore>,
    /// Held by a connection from before it looks up what is stored of the peer's log until its last store
    /// has ended, so that no late store of an old connection moves the cursor backwards.
    pub(super) storing: Arc<AsyncMutex<()>>,
    /// Told when somebody wants something of the peer, or its connection changes.
    pub(super) changed: Notify,
    /// Told when our log may hold something new for it.
    pub(super) woken: Notify,
    /// Told when our extremities have moved by an event that it may not be sent.
    pub(super) extremities_owed: Notify,
    /// The link while both sides are ready.
    pub(super) ready: watch::Sender<Option<Arc<dyn Link>>>,
    /// Counts rounds of dialling that failed.
    pub(super) failures: watch::Sender<u64>,
    /// Whether our log may hold something that no connection has read yet.
    log_waits: AtomicBool,
    /// How many callers want it connected.
    callers: AtomicUsize,
    /// How many requests run on its connection, either way.
    uses: AtomicUsize,
    inner: Mutex<Inner>,
}

/// A connection whose hello is judged.
struct Current {
    id: u64,
    link: Arc<dyn Link>,
    /// The key of the side that dialled it.
    dialled_by: PublicKey,
    dialled: bool,
    ready_since: Option<Instant>,
}

struct Inner {
    state: PeerState,
    current: Option<Current>,
    next_id: u64,
    acknowledged: Option<Cursor>,
    caught_up: bool,
    in_flight: (usize, usize),
    last_error: Option<String>,
}

/// Of two connections between the same servers, the other one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OtherStays;

/// Names one connection of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionId(u64);

impl Peer {
    pub(super) fn new(name: OwnedServerName) -> Self {
        Self {
            name,
            counters: Counters::default(),
            requests: Arc::new(Semaphore::new(limits::MAX_REQUESTS_OUT)),
            storing: Arc::default(),
            changed: Notify::new(),
            woken: Notify::new(),
            extremities_owed: Notify::new(),
            ready: watch::Sender::new(None),
            failures: watch::Sender::new(0),
            log_waits: AtomicBool::new(false),
            callers: AtomicUsize::new(0),
            uses: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                state: PeerState::Idle,
                current: None,
                next_id: 0,
                acknowledged: None,
                caught_up: false,
                in_flight: (0, 0),
                last_error: None,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our log may hold something new for it.
    pub(super) fn wake(&self) {
        self.log_waits.store(true, Ordering::Relaxed);
        self.woken.notify_one();
        self.changed.notify_one();
    }

    /// Our extremities have moved and it may not know by what. Nothing to do while it is not connected: it hears them then.
    pub(super) fn owe_extremities(&self) {
        self.extremities_owed.notify_one();
    }

    /// A connection reads our log for it now; whatever comes later wakes again.
    pub(super) fn log_is_read(&self) {
        self.log_waits.store(false, Ordering::Relaxed);
    }

    /// A connection ended before the peer had all of our log.
    pub(super) fn log_is_unread(&self) {
        self.log_waits.store(true, Ordering::Relaxed);
    }

    /// Somebody wants it connected, until the guard is dropped.
    pub(super) fn want(self: &Arc<Self>) -> Wanted {
        self.callers.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Wanted(self.clone())
    }

    /// A request runs on its connection, until the guard is dropped.
    pub(super) fn begin_use(self: &Arc<Self>) -> InUse {
        self.uses.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Whether any request runs on its connection.
    pub(super) fn is_in_use(&self) -> bool {
        self.uses.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody waits for something that needs a connection.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_called() || self.log_waits.load(Ordering::Relaxed)
    }

    /// Whether a caller waits, who would rather not wait out a back-off.
    pub(super) fn is_called(&self) -> bool {
        self.callers.load(Ordering::Relaxed) > 0
    }

    /// Whether there is a connection whose hello is judged.
    pub(super) fn has_connection(&self) -> bool {
        self.inner().current.is_some()
    }

    /// Takes a connection whose hello is judged in the place of the one there is, if any, or refuses it.
    ///
    /// The one dialled by the lower key stays, so that both sides keep the same one of two that were
    /// dialled at once. A connection that has long been ready gives way all the same: its other end would
    /// not dial if it still had it. The same side dialling again has lost the old one for certain.
    pub(super) fn take_connection(
        &self,
        link: &Arc<dyn Link>,
        own_key: PublicKey,
        dialled: bool,
        now: Instant,
    ) -> Result<ConnectionId, OtherStays> {
        let dialled_by = if dialled { own_key } else { link.peer_key() };
        let mut inner = self.inner();
        if let Some(current) = &inner.current {
            let long_ready = current
                .ready_since
                .is_some_and(|since| now.saturating_duration_since(since) >= limits::SETTLED_AFTER);
            if current.dialled_by < dialled_by && !long_ready {
                // Unless the peer was restarted and has lost it: then it closes now, and the next one stays.
                current.link.probe();
                return Err(OtherStays);
            }
            current
                .link
                .close(CloseCode::Duplicate, "another connection stays");
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.state = PeerState::Greeting;
        inner.current = Some(Current {
            id,
            link: link.clone(),
            dialled_by,
            dialled,
            ready_since: None,
        });
        drop(inner);
        self.ready.send_replace(None);
        Ok(ConnectionId(id))
    }

    /// Both sides of a connection are ready. False where it has been replaced meanwhile.
    fn became_ready(&self, id: ConnectionId) -> bool {
        let mut inner = self.inner();
        let Some(current) = inner.current.as_mut().filter(|current| current.id == id.0) else {
            return false;
        };
        current.ready_since = Some(Instant::now());
        let link = current.link.clone();
        inner.state = PeerState::Connected;
        drop(inner);
        self.log_is_read();
        self.counters.connections.add(1);
        self.ready.send_replace(Some(link));
        self.changed.notify_one();
        true
    }

    /// A connection is gone. True where it was the present one.
    fn drop_connection(&self, id: ConnectionId, reason: String) -> bool {
        let mut inner = self.inner();
        let was_present = inner.current.as_ref().is_some_and(|current| current.id == id.0);
        if was_present {
            inner.current = None;
            inner.state = PeerState::Idle;
            inner.last_error = Some(reason);
            inner.in_flight = (0, 0);
        }
        drop(inner);
        if was_present {
            self.ready.send_replace(None);
            self.changed.notify_one();
        }
        was_present
    }

    /// Closes the present connection, if any.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        if let Some(current) = &self.inner().current {
            current.link.close(code, reason);
        }
    }

    /// Notes what the keeper is doing; a connection that came meanwhile says more.
    pub(super) fn set_state(&self, state: PeerState) {
        let mut inner = self.inner();
        if inner.current.is_none() {
            inner.state = state;
        }
    }

    /// Notes that it could not be reached.
    pub(super) fn unreachable(&self, reason: String) {
        self.inner().last_error = Some(reason);
        self.failures.send_modify(|failures| *failures += 1);
    }

    /// Why it is not connected, as far as that is known.
    pub(super) fn last_error(&self) -> Option<String> {
        self.inner().last_error.clone()
    }

    /// Notes how far it has our log.
    pub(super) fn acknowledged(&self, cursor: Cursor) {
        self.inner().acknowledged = Some(cursor);
    }

    /// Notes how the log flows.
    pub(super) fn flows(&self, caught_up: bool, in_flight: (usize, usize)) {
        let mut inner = self.inner();
        inner.caught_up = caught_up;
        inner.in_flight = in_flight;
    }

    pub(super) fn view(&self) -> PeerView {
        let inner = self.inner();
        let current = inner.current.as_ref();
        let ready_since = current.and_then(|current| current.ready_since);
        PeerView {
            name: self.name.clone(),
            state: inner.state,
            path: current.map(|current| current.link.path()),
            tls_key: current.map(|current| current.link.peer_key()),
            dialled: current.is_some_and(|current| current.dialled),
            round_trip: current.and_then(|current| current.link.round_trip()),
            connected_for: ready_since.map(|since| since.elapsed()),
            acknowledged: inner.acknowledged.clone(),
            caught_up: inner.caught_up,
            in_flight: inner.in_flight,
            traffic: self.counters.read(),
            last_error: inner.last_error.clone(),
        }
    }
}

/// Somebody wants the peer connected while this lives.
pub(super) struct Wanted(Arc<Peer>);

impl std::ops::Deref for Wanted {
    type Target = Arc<Peer>;

    fn deref(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// A request runs while this lives.
pub(super) struct InUse(Arc<Peer>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a peer's present connection, from the moment its hello is judged until this is dropped.
pub(super) struct Taken {
    /// The peer.
    pub(super) peer: Arc<Peer>,
    id: ConnectionId,
    reason: String,
}

impl Taken {
    pub(super) fn new(peer: Arc<Peer>, id: ConnectionId) -> Self {
        Self {
            peer,
            id,
            reason: "closed while it was greeted".to_owned(),
        }
    }

    /// Both sides are ready. False where the connection has been replaced meanwhile.
    pub(super) fn became_ready(&self) -> bool {
        self.peer.became_ready(self.id)
    }

    /// Whether another connection has taken its place and is ready: its end is no loss then.
    pub(super) fn is_replaced(&self) -> bool {
        let inner = self.peer.inner();
        let current = inner.current.as_ref();
        current.is_some_and(|current| current.id != self.id.0 && current.ready_since.is_some())
    }

    /// Notes why the connection ended.
    pub(super) fn ended(&mut self, reason: String) {
        self.reason = reason;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.peer
            .drop_connection(self.id, std::mem::take(&mut self.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::memory::MemoryLink;
    use maru_protocol::SecretKey;

    /// Two keys, the lower first.
    fn keys() -> (PublicKey, PublicKey) {
        let [a, b] = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]).public_key());
        (a.min(b), a.max(b))
    }

    fn link(own: PublicKey, peer: PublicKey, dialled: bool) -> Arc<dyn Link> {
        let (near, far) = if dialled {
            MemoryLink::pair(own, peer)
        } else {
            let (near, far) = MemoryLink::pair(peer, own);
            (far, near)
        };
        // The other end lives on, or the link would count as closed.
        std::mem::forget(far);
        near
    }

    fn peer() -> Peer {
        Peer::new(ruma::owned_server_name!("b.example"))
    }

    #[tokio::test]
    async fn both_sides_keep_the_connection_that_the_lower_key_dialled() {
        let (low, high) = keys();
        for (own, other) in [(low, high), (high, low)] {
            for we_were_first in [true, false] {
                let peer = peer();
                let first = link(own, other, we_were_first);
                let second = link(own, other, !we_were_first);
                peer.take_connection(&first, own, we_were_first, Instant::now())
                    .unwrap();
                let taken = peer.take_connection(&second, own, !we_were_first, Instant::now());
                let first_dialler = if we_were_first { own } else { other };
                assert_eq!(taken.is_err(), first_dialler == low);
                if taken.is_ok() {
                    assert_eq!(first.closed().await, crate::link::CloseReason::ByUs);
                }
            }
        }
    }

    #[tokio::test]
    async fn who_dials_again_has_lost_the_old_connection() {
        let (low, high) = keys();
        for other in [low, high] {
            let own = if other == low { high } else { low };
            let peer = peer();
            let first = peer
                .take_connection(&link(own, other, false), own, false, Instant::now())
                .unwrap();
            assert!(peer.became_ready(first));
            let second = peer
                .take_connection(&link(own, other, false), own, false, Instant::now())
                .unwrap();
            assert!(!peer.became_ready(first));
            assert!(!peer.drop_connection(first, "late".into()), "the new one stays");
            assert!(peer.became_ready(second));
            assert!(peer.drop_connection(second, "gone".into()));
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_long_been_ready_gives_way_to_a_new_one() {
        let (low, high) = keys();
        let peer = peer();
        let ours = peer
            .take_connection(&link(low, high, true), low, true, Instant::now())
            .unwrap();
        assert!(peer.became_ready(ours));
        let again = link(low, high, false);
        assert_eq!(
            peer.take_connection(&again, low, false, Instant::now()),
            Err(OtherStays)
        );
        let later = Instant::now() + limits::SETTLED_AFTER;
        assert!(peer.take_connection(&again, low, false, later).is_ok());
    }
}
