//! Who is listening, and the counter of what lives in memory only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::Changes;
use super::user_stream_cache::{Item, UserInbox};

/// An inbox without sessions is kept this long, for the next poll, in milliseconds.
const KEEP_INBOX_MS: u64 = 120_000;

/// Rooms, and users, of whose newest change of typing or presence is known when it was.
const CHANGES: usize = 100_000;

/// The inboxes of all users who are listening, and how far the log has been handed out.
#[derive(Debug, Default)]
pub struct Notifier {
    inboxes: RwLock<HashMap<OwnedUserId, Arc<UserInbox>>>,
    position: AtomicI64,
    /// Wakes who waits for the position to move.
    moved: Notify,
    /// Wakes who waits for what lives in memory only to change.
    passed: Notify,
    ephemeral: AtomicU64,
    /// Held while inboxes learn of one change of what lives in memory only, so that each has its own counter, and
    /// the counter moves past a change only after all inboxes know of it.
    ephemeral_state: Mutex<EphemeralState>,
    stopping: AtomicBool,
    /// By when everybody who waits has left, where they are to.
    left_by: OnceLock<Instant>,
    /// Sessions that there are.
    sessions: AtomicI64,
}

/// Newest changes of ephemeral data: typing and presence.
#[derive(Debug)]
struct EphemeralState {
    typing: Changes<i64>,
    presence: Changes<OwnedUserId>,
    /// The counter of the newest change; 0 if nothing has changed since the server started.
    newest: u64,
    /// Whatever was sent up to this counter is void.
    void: u64,
}

impl Default for EphemeralState {
    fn default() -> Self {
        Self {
            typing: Changes::new(CHANGES),
            presence: Changes::new(CHANGES),
            newest: 0,
            void: 0,
        }
    }
}

/// What changed of what lives in memory only, whoever it concerns.
#[derive(Clone, Debug, Default)]
pub struct Passing {
    /// Rooms whose typing users changed (rooms.nid).
    pub typing: Vec<i64>,
    /// Users whose presence changed.
    pub presence: HashSet<OwnedUserId>,
    /// Whether anything else may have changed too, unnoticed.
    pub anything: bool,
}

impl Notifier {
    /// The inbox of a user; a new one is complete from the present position on.
    pub fn open(&self, user_id: &UserId) -> Arc<UserInbox> {
        if let Some(inbox) = self.get(user_id) {
            return inbox;
        }
        let mut inboxes = self.inboxes.write().unwrap_or_else(PoisonError::into_inner);
        // A batch is handed out under the read lock from its first record to the new position, so the position read
        // here is one that no half-delivered batch stands behind.
        let floor = self.position();
        let ephemeral_floor = self.ephemeral_state().newest;
        Arc::clone(
            inboxes
                .entry(user_id.to_owned())
                .or_insert_with(|| Arc::new(UserInbox::new(user_id.to_owned(), floor, ephemeral_floor))),
        )
    }

    /// How far the log has been handed out: sessions read up to here.
    pub fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Where the log stood when the server started, and where the counter of what lives in memory only begins: where it never
    /// was before, and further on than a server that ran before and was the only one.
    pub fn start_at(&self, position: Position, ephemeral: u64) {
        self.position.store(position.0, Ordering::Release);
        self.ephemeral.store(ephemeral, Ordering::Release);
    }

    /// Waits until the log has been handed out up to a position at which a record is durable already: a moment.
    pub async fn reached(&self, position: Position) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.position() >= position {
                return;
            }
            moved.await;
        }
    }

    /// The inbox of a user who is listening.
    pub fn get(&self, user_id: &UserId) -> Option<Arc<UserInbox>> {
        self.inboxes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(user_id)
            .cloned()
    }

    /// Ends all waiting, now and from now on: the server stops, and its clients come back with their cursors.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.values().for_each(|inbox| inbox.wake());
    }

    /// Has everybody who waits, now and from now on, leave within a window, each at a moment of its own: this node stops,
    /// others go on, and they do not want all of its clients at once.
    pub fn leave_within(&self, window: Duration) {
        self.left_by.get_or_init(|| Instant::now() + window);
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.values().for_each(|inbox| inbox.wake());
    }

    /// Whether everybody who waits is to leave.
    pub fn is_leaving(&self) -> bool {
        self.left_by.get().is_some()
    }

    /// A moment at which somebody leaves who begins to wait for it now, where everybody is to: evenly spread by chance over
    /// what is left of the window.
    pub fn moment_to_leave(&self) -> Option<Instant> {
        let (by, now) = (*self.left_by.get()?, Instant::now());
        Some(now + by.saturating_duration_since(now).mul_f64(rand::random()))
    }

    /// A session begins to listen.
    pub fn session_started(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// A session ends.
    pub fn session_ended(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many sessions there are: devices that poll, and WebSockets.
    pub fn sessions(&self) -> i64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether the server stops, so that nobody should wait for anything.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Drops inboxes that no session has used for a while. Costs grow with the listening users.
    pub fn sweep(&self, now_ms: u64) {
        let before = now_ms.saturating_sub(KEEP_INBOX_MS);
        let mut inboxes = self.inboxes.write().unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|_, inbox| Arc::strong_count(inbox) > 1 || !inbox.is_unused_since(before));
    }

    /// Has the sessions of a user look at their tokens again, at once.
    pub fn recall(&self, user_id: &UserId) {
        if let Some(inbox) = self.get(user_id) {
            inbox.recall();
        }
    }

    /// Has the sessions of a user look for news.
    pub fn wake(&self, user_id: &UserId) {
        if let Some(inbox) = self.get(user_id) {
            inbox.wake();
        }
    }

    /// How many users are listening.
    pub fn len(&self) -> usize {
        self.inboxes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is listening.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counter of what lives in memory only.
    pub fn ephemeral(&self) -> u64 {
        self.ephemeral.load(Ordering::Acquire)
    }

    /// Waits until something has changed after a counter of what lives in memory only.
    pub async fn passed(&self, ephemeral: u64) {
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            if self.ephemeral() > ephemeral {
                return;
            }
            passed.await;
        }
    }

    /// Tells users that the typing users of a room changed.
    pub fn typing_changed<'u>(&self, room: i64, users: impl IntoIterator<Item = &'u UserId>) {
        let noted = |state: &mut EphemeralState, counter| state.typing.note(room, counter);
        self.tell(users, noted, |inbox, counter| inbox.typing_changed(room, counter));
    }

    /// Tells users that somebody's presence changed.
    pub fn presence_changed<'u>(&self, who: &UserId, users: impl IntoIterator<Item = &'u UserId>) {
        let noted = |state: &mut EphemeralState, counter| state.presence.note(who.to_owned(), counter);
        self.tell(users, noted, |inbox, counter| {
            inbox.presence_changed(who.to_owned(), counter)
        });
    }

    /// What changed of what lives in memory only after a counter, for all users. Costs grow with that.
    pub fn passing_after(&self, ephemeral: u64) -> Passing {
        let state = self.ephemeral_state();
        Passing {
            typing: state.typing.after(ephemeral).copied().collect(),
            presence: state.presence.after(ephemeral).cloned().collect(),
            anything: ephemeral < state.void,
        }
    }

    /// Voids what was sent of typing and presence until now: each device is sent all of it once more, however it is
    /// now. The inboxes of those who listen, who are to be woken.
    pub fn void_passing(&self) -> Vec<Arc<UserInbox>> {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.ephemeral_state();
        let counter = self.ephemeral.load(Ordering::Acquire) + 1;
        inboxes.values().for_each(|inbox| inbox.void_passing(counter));
        (state.newest, state.void) = (counter, counter);
        self.ephemeral.store(counter, Ordering::Release);
        self.passed.notify_waiters();
        inboxes.values().cloned().collect()
    }

    fn tell<'u>(
        &self,
        users: impl IntoIterator<Item = &'u UserId>,
        noted: impl Fn(&mut EphemeralState, u64),
        note: impl Fn(&UserInbox, u64),
    ) {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.ephemeral_state();
        let counter = self.ephemeral.load(Ordering::Acquire) + 1;
        let listening: Vec<_> = users
            .into_iter()
            .filter_map(|user_id| inboxes.get(user_id))
            .collect();
        listening.iter().for_each(|inbox| note(inbox, counter));
        noted(&mut state, counter);
        state.newest = counter;
        self.ephemeral.store(counter, Ordering::Release);
        drop(state);
        self.passed.notify_waiters();
        listening.iter().for_each(|inbox| inbox.wake());
    }

    fn ephemeral_state(&self) -> MutexGuard<'_, EphemeralState> {
        self.ephemeral_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to hand out a batch.
    pub(super) fn delivering(&self) -> Delivering<'_> {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        Delivering {
            notifier: self,
            inboxes,
            touched: Vec::new(),
        }
    }
}

/// A batch being handed out. No inbox is opened meanwhile.
pub(super) struct Delivering<'h> {
    notifier: &'h Notifier,
    inboxes: RwLockReadGuard<'h, HashMap<OwnedUserId, Arc<UserInbox>>>,
    touched: Vec<Arc<UserInbox>>,
}

impl Delivering<'_> {
    /// Whether nobody is listening.
    pub(super) fn is_idle(&self) -> bool {
        self.inboxes.is_empty()
    }

    /// Gives an item to a user, if that user is listening.
    pub(super) fn give(&mut self, user_id: &UserId, position: Position, item: &Item) {
        if let Some(inbox) = self.inboxes.get(user_id) {
            inbox.deliver(position, item.clone());
            self.touched.push(Arc::clone(inbox));
        }
    }

    /// Makes the batch readable and wakes who got something.
    pub(super) fn finish(mut self, position: Position) {
        self.notifier.position.store(position.0, Ordering::Release);
        drop(self.inboxes);
        self.notifier.moved.notify_waiters();
        self.touched.sort_unstable_by_key(Arc::as_ptr);
        self.touched.dedup_by_key(|inbox| Arc::as_ptr(inbox));
        self.touched.iter().for_each(|inbox| inbox.wake());
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use crate::live::notifier::*;

    /// Rooms in which each of two threads tells that somebody types.
    const ROOMS: u16 = 2_000;

    #[test]
    fn of_changes_at_once_none_is_lost() {
        let notifier = Notifier::default();
        let alice = user_id!("@alice:example.org");
        let inbox = notifier.open(alice);
        let telling = AtomicI64::new(2);
        let mut delivered = HashSet::new();
        std::thread::scope(|scope| {
            for first in [0, ROOMS] {
                let (notifier, telling) = (&notifier, &telling);
                scope.spawn(move || {
                    for room in first..first + ROOMS {
                        notifier.typing_changed(i64::from(room), [alice]);
                    }
                    telling.fetch_sub(1, Ordering::SeqCst);
                });
            }
            let mut since = 0;
            loop {
                let is_over = telling.load(Ordering::SeqCst) == 0;
                let now = notifier.ephemeral();
                let fresh = inbox.after(Position::START, since, Position::START, now);
                delivered.extend(fresh.unwrap_or_default().typing);
                since = now;
                if is_over {
                    break;
                }
            }
        });
        assert_eq!(delivered.len(), 2 * usize::from(ROOMS));
        assert_eq!(notifier.ephemeral(), 2 * u64::from(ROOMS));
    }

    #[test]
    fn what_changes_while_an_inbox_is_gone_is_not_lost() {
        let notifier = Notifier::default();
        let (alice, bob) = (user_id!("@alice:example.org"), user_id!("@bob:example.org"));
        notifier.start_at(Position(7), 1_000_000);
        let since = notifier.ephemeral();
        // Nothing has changed since the start: that is all there is to know.
        let reaches = |inbox: &UserInbox, since| {
            !inbox.has_after(Position(7), since, Position(7), notifier.ephemeral())
        };
        assert!(reaches(&notifier.open(alice), since - 1));
        notifier.typing_changed(1, [alice]);
        assert!(!reaches(&notifier.open(alice), since));
        notifier.sweep(KEEP_INBOX_MS + 1);
        assert!(notifier.is_empty());
        notifier.presence_changed(bob, [alice]);
        let inbox = notifier.open(alice);
        assert!(
            inbox
                .after(Position(7), since, Position(7), notifier.ephemeral())
                .is_none()
        );
        let passing = notifier.passing_after(since);
        assert_eq!((&*passing.typing, passing.presence.len()), (&[1][..], 1));
        let passing = notifier.passing_after(since + 1);
        assert_eq!((passing.typing.len(), passing.presence.contains(bob)), (0, true));
        assert!(reaches(&inbox, notifier.ephemeral()));
    }

    #[test]
    fn what_was_told_and_is_void_is_told_again_once() {
        let notifier = Notifier::default();
        let [alice, bob] = [user_id!("@alice:example.org"), user_id!("@bob:example.org")];
        notifier.start_at(Position(7), 1_000_000);
        let inbox = notifier.open(alice);
        let since = notifier.ephemeral();
        assert_eq!(notifier.void_passing().len(), 1);
        let now = notifier.ephemeral();
        for inbox in [inbox, notifier.open(bob)] {
            assert!(inbox.after(Position(7), since, Position(7), now).is_none());
            assert!(!inbox.has_after(Position(7), now, Position(7), now));
        }
        assert!(notifier.passing_after(since).anything && !notifier.passing_after(now).anything);
    }
}
