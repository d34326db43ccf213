//! A fair semaphore: so many permits at once, and those who wait for one take turns by who they work for, so that
//! somebody with much to do waits for himself and not others for him.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::oneshot;

/// Permits shared by all keys: mostly users or servers.
#[derive(Clone)]
pub struct FairSemaphore<K: Key>(Arc<Shared<K>>);

/// Who a permit is counted for.
pub trait Key: Clone + Eq + Hash + Send + 'static {}

impl<K: Clone + Eq + Hash + Send + 'static> Key for K {}

struct Shared<K: Key> {
    /// Permits altogether.
    permits: usize,
    /// Permits that one key may hold.
    permits_each: usize,
    /// How many of one key may wait.
    waiting_each: usize,
    queues: Mutex<Queues<K>>,
}

struct Queues<K: Key> {
    /// Permits held by all keys.
    held: usize,
    /// Keys that hold permits or wait; bounded by the requests in flight.
    keys: HashMap<K, Queue<K>>,
    /// Keys in whose queue somebody may wait, each once: the next one first.
    round: VecDeque<K>,
}

/// Those of one key.
struct Queue<K: Key> {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Permit<K>>>,
    /// Whether the key stands in the round.
    in_round: bool,
}

/// A permit, until it is dropped.
pub struct Permit<K: Key> {
    shared: Arc<Shared<K>>,
    key: K,
}

/// Too many of the same key wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many of the same wait already")]
pub struct TooManyWait;

impl<K: Key> FairSemaphore<K> {
    /// `permits` at once, of which one key holds at most `permits_each`, while at most `waiting_each` more of it wait.
    #[must_use]
    pub fn new(permits: usize, permits_each: usize, waiting_each: usize) -> Self {
        Self(Arc::new(Shared {
            permits,
            permits_each,
            waiting_each,
            queues: Mutex::new(Queues {
                held: 0,
                keys: HashMap::new(),
                round: VecDeque::new(),
            }),
        }))
    }

    /// Waits for a permit. Whoever gives up waiting gives up the turn.
    ///
    /// # Errors
    /// [`TooManyWait`] of the same key.
    pub async fn acquire(&self, key: K) -> Result<Permit<K>, TooManyWait> {
        let granted = self.0.lock().wait(key, self.0.waiting_each)?;
        Shared::grant(&self.0);
        // The sender is dropped only with a permit that was sent.
        granted.await.map_err(|_| TooManyWait)
    }
}

impl<K: Key> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Queues<K>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants free permits to those whose turn it is.
    fn grant(self: &Arc<Self>) {
        loop {
            // Not locked while a permit is sent: one that nobody waits for any more comes back at once.
            let next = self.lock().next(self.permits, self.permits_each);
            let Some((key, waiter)) = next else { return };
            let permit = Permit {
                shared: Arc::clone(self),
                key,
            };
            // Nobody waits there any more: the permit is dropped, which grants it to the next.
            drop(waiter.send(permit));
        }
    }
}

impl<K: Key> Queues<K> {
    /// Puts somebody into the queue of a key, in which at most `waiting_each` wait.
    fn wait(&mut self, key: K, waiting_each: usize) -> Result<oneshot::Receiver<Permit<K>>, TooManyWait> {
        let queue = self.keys.entry(key.clone()).or_default();
        queue.waiting.retain(|waiter| !waiter.is_closed());
        if queue.waiting.len() >= waiting_each {
            return Err(TooManyWait);
        }
        let (waiter, granted) = oneshot::channel();
        queue.waiting.push_back(waiter);
        if !queue.in_round {
            queue.in_round = true;
            self.round.push_back(key);
        }
        Ok(granted)
    }

    /// Takes the next permit for whoever's turn it is, if there is a permit and somebody.
    fn next(&mut self, permits: usize, permits_each: usize) -> Option<(K, oneshot::Sender<Permit<K>>)> {
        if self.held >= permits {
            return None;
        }
        for _ in 0..self.round.len() {
            let key = self.round.pop_front()?;
            let Some(queue) = self.keys.get_mut(&key) else {
                continue;
            };
            queue.waiting.retain(|waiter| !waiter.is_closed());
            if queue.waiting.is_empty() {
                queue.in_round = false;
                self.forget_idle(&key);
                continue;
            }
            if queue.held >= permits_each {
                self.round.push_back(key);
                continue;
            }
            let waiter = queue.waiting.pop_front()?;
            queue.held += 1;
            self.held += 1;
            queue.in_round = !queue.waiting.is_empty();
            if queue.in_round {
                self.round.push_back(key.clone());
            }
            return Some((key, waiter));
        }
        None
    }

    fn release(&mut self, key: &K) {
        self.held = self.held.saturating_sub(1);
        if let Some(queue) = self.keys.get_mut(key) {
            queue.held = queue.held.saturating_sub(1);
        }
        self.forget_idle(key);
    }

    fn forget_idle(&mut self, key: &K) {
        let queue = self.keys.get(key);
        if queue.is_some_and(|queue| queue.held == 0 && !queue.in_round) {
            self.keys.remove(key);
        }
    }
}

impl<K: Key> Default for Queue<K> {
    fn default() -> Self {
        Self {
            held: 0,
            waiting: VecDeque::new(),
            in_round: false,
        }
    }
}

impl<K: Key> Drop for Permit<K> {
    fn drop(&mut self) {
        self.shared.lock().release(&self.key);
        Shared::grant(&self.shared);
    }
}

impl<K: Key> fmt::Debug for FairSemaphore<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairSemaphore")
            .field("permits", &self.0.permits)
            .field("held", &self.0.lock().held)
            .finish_non_exhaustive()
    }
}

impl<K: Key> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    /// Nothing is kept of those who came and went.
    fn check_idle<K: Key>(semaphore: &FairSemaphore<K>) {
        let queues = semaphore.0.lock();
        assert_eq!((queues.held, queues.keys.len(), queues.round.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn those_who_wait_take_turns_by_key() {
        let semaphore = FairSemaphore::new(1, 1, 8);
        let first = semaphore.acquire("a").await.unwrap();
        let [mut again, mut third] = [Box::pin(semaphore.acquire("a")), Box::pin(semaphore.acquire("a"))];
        let mut other = Box::pin(semaphore.acquire("b"));
        assert!(poll!(&mut again).is_pending() && poll!(&mut third).is_pending());
        assert!(poll!(&mut other).is_pending());
        drop(first);
        let second = again.await.unwrap();
        assert!(poll!(&mut third).is_pending() && poll!(&mut other).is_pending());
        drop(second);
        assert!(poll!(&mut third).is_pending(), "it is another's turn");
        drop(other.await.unwrap());
        drop(third.await.unwrap());
        check_idle(&semaphore);
    }

    #[tokio::test]
    async fn one_key_does_not_hold_all_permits() {
        let semaphore = FairSemaphore::new(2, 1, 1);
        let mine = semaphore.acquire("a").await.unwrap();
        let mut more = pin!(semaphore.acquire("a"));
        assert!(poll!(&mut more).is_pending());
        assert_eq!(semaphore.acquire("a").await.unwrap_err(), TooManyWait);
        let _another = semaphore.acquire("b").await.unwrap();
        drop(mine);
        more.await.unwrap();
    }

    #[tokio::test]
    async fn who_is_alone_may_hold_all_permits() {
        let semaphore = FairSemaphore::new(2, 2, 1);
        let all = [semaphore.acquire("a").await, semaphore.acquire("a").await];
        assert!(all.iter().all(Result::is_ok));
        let mut another = pin!(semaphore.acquire("b"));
        assert!(poll!(&mut another).is_pending());
        drop(all);
        drop(another.await.unwrap());
        check_idle(&semaphore);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_permit_to_the_next() {
        let semaphore = FairSemaphore::new(1, 1, 1);
        let mine = semaphore.acquire("a").await.unwrap();
        {
            let mut given_up = pin!(semaphore.acquire("b"));
            assert!(poll!(&mut given_up).is_pending());
        }
        let mut waiting = pin!(semaphore.acquire("b"));
        assert!(poll!(&mut waiting).is_pending(), "who gave up does not count");
        {
            let mut granted_and_given_up = pin!(semaphore.acquire("c"));
            assert!(poll!(&mut granted_and_given_up).is_pending());
            drop(mine);
            drop(waiting.await.unwrap());
        }
        drop(semaphore.acquire("d").await.unwrap());
        check_idle(&semaphore);
    }

    #[tokio::test]
    async fn many_who_give_up_hold_up_nobody() {
        let semaphore = FairSemaphore::new(2, 2, 8);
        let held = [semaphore.acquire(1).await, semaphore.acquire(1).await];
        let mut waiting: Vec<_> = (0..4).map(|key| Box::pin(semaphore.acquire(key))).collect();
        for waiting in &mut waiting {
            assert!(poll!(waiting).is_pending());
        }
        let last = waiting.pop().unwrap();
        drop(waiting);
        drop(held);
        drop(last.await.unwrap());
        check_idle(&semaphore);
    }
}
