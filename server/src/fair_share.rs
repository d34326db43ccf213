//! A fair share of what is scarce: so many work at once, and those who wait take turns by who they work for, so that
//! somebody with much to do waits for himself and not others for him.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::oneshot;

/// Places to work at, shared by all keys: mostly users.
#[derive(Clone)]
pub struct FairShare<K: Key>(Arc<Shared<K>>);

/// What a share is counted by.
pub trait Key: Clone + Eq + Hash + Send + 'static {}

impl<K: Clone + Eq + Hash + Send + 'static> Key for K {}

struct Shared<K: Key> {
    /// Places altogether.
    places: usize,
    /// Places that one key may hold.
    places_each: usize,
    /// How many of one key may wait.
    waiting_each: usize,
    line: Mutex<Line<K>>,
}

struct Line<K: Key> {
    working: usize,
    /// Keys that work or wait; bounded by the requests in flight.
    keys: HashMap<K, Of<K>>,
    /// Keys of which somebody waits, the next one first.
    turns: VecDeque<K>,
}

/// Those of one key.
struct Of<K: Key> {
    working: usize,
    waiting: VecDeque<oneshot::Sender<Place<K>>>,
}

/// A place, until it is dropped.
pub struct Place<K: Key> {
    shared: Arc<Shared<K>>,
    key: K,
}

/// Too many of the same key wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many of the same wait already")]
pub struct TooManyWait;

impl<K: Key> FairShare<K> {
    /// Places for `places` at once, of which one key holds at most `places_each`, while at most `waiting_each` more of it
    /// wait.
    #[must_use]
    pub fn new(places: usize, places_each: usize, waiting_each: usize) -> Self {
        Self(Arc::new(Shared {
            places,
            places_each,
            waiting_each,
            line: Mutex::new(Line {
                working: 0,
                keys: HashMap::new(),
                turns: VecDeque::new(),
            }),
        }))
    }

    /// Waits for a place. Whoever gives up waiting gives up the turn.
    ///
    /// # Errors
    /// [`TooManyWait`] of the same key.
    pub async fn place(&self, key: K) -> Result<Place<K>, TooManyWait> {
        let granted = {
            let mut line = self.0.line();
            let of = line.keys.entry(key.clone()).or_default();
            of.waiting.retain(|waiter| !waiter.is_closed());
            if of.waiting.len() >= self.0.waiting_each {
                return Err(TooManyWait);
            }
            let (grant, granted) = oneshot::channel();
            of.waiting.push_back(grant);
            if !line.turns.contains(&key) {
                line.turns.push_back(key);
            }
            granted
        };
        Shared::give(&self.0);
        // The sender is dropped only with a place that was sent.
        granted.await.map_err(|_| TooManyWait)
    }
}

impl<K: Key> Shared<K> {
    fn line(&self) -> MutexGuard<'_, Line<K>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to those whose turn it is.
    fn give(self: &Arc<Self>) {
        loop {
            // Not locked while a place is sent: one that nobody waits for any more comes back at once.
            let next = self.line().next(self.places, self.places_each);
            let Some((key, waiter)) = next else { return };
            let place = Place {
                shared: Arc::clone(self),
                key,
            };
            // Nobody waits there any more: the place is dropped, which gives it to the next.
            drop(waiter.send(place));
        }
    }
}

impl<K: Key> Line<K> {
    /// Takes the next place for whoever's turn it is, if there is a place and somebody.
    fn next(&mut self, places: usize, places_each: usize) -> Option<(K, oneshot::Sender<Place<K>>)> {
        if self.working >= places {
            return None;
        }
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            let Some(of) = self.keys.get_mut(&key) else {
                continue;
            };
            of.waiting.retain(|waiter| !waiter.is_closed());
            if of.waiting.is_empty() {
                self.forget_idle(&key);
                continue;
            }
            if of.working >= places_each {
                self.turns.push_back(key);
                continue;
            }
            let waiter = of.waiting.pop_front()?;
            of.working += 1;
            self.working += 1;
            if !of.waiting.is_empty() {
                self.turns.push_back(key.clone());
            }
            return Some((key, waiter));
        }
        None
    }

    fn forget_idle(&mut self, key: &K) {
        if self
            .keys
            .get(key)
            .is_some_and(|of| of.working == 0 && of.waiting.is_empty())
        {
            self.keys.remove(key);
        }
    }
}

impl<K: Key> Default for Of<K> {
    fn default() -> Self {
        Self {
            working: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<K: Key> Drop for Place<K> {
    fn drop(&mut self) {
        {
            let mut line = self.shared.line();
            line.working = line.working.saturating_sub(1);
            if let Some(of) = line.keys.get_mut(&self.key) {
                of.working = of.working.saturating_sub(1);
            }
            line.forget_idle(&self.key);
        }
        Shared::give(&self.shared);
    }
}

impl<K: Key> fmt::Debug for FairShare<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairShare")
            .field("places", &self.0.places)
            .field("working", &self.0.line().working)
            .finish_non_exhaustive()
    }
}

impl<K: Key> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_take_turns_by_key() {
        let share = FairShare::new(1, 1, 8);
        let first = share.place("a").await.unwrap();
        let [mut again, mut third] = [Box::pin(share.place("a")), Box::pin(share.place("a"))];
        let mut other = Box::pin(share.place("b"));
        assert!(
            poll!(&mut again).is_pending()
                && poll!(&mut third).is_pending()
                && poll!(&mut other).is_pending()
        );
        drop(first);
        let second = again.await.unwrap();
        assert!(poll!(&mut third).is_pending() && poll!(&mut other).is_pending());
        drop(second);
        assert!(poll!(&mut third).is_pending(), "it is another's turn");
        drop(other.await.unwrap());
        drop(third.await.unwrap());
        let line = share.0.line();
        assert!(line.working == 0 && line.keys.is_empty() && line.turns.is_empty());
    }

    #[tokio::test]
    async fn one_key_does_not_hold_all_places() {
        let share = FairShare::new(2, 1, 1);
        let mine = share.place("a").await.unwrap();
        let mut more = pin!(share.place("a"));
        assert!(poll!(&mut more).is_pending());
        assert_eq!(share.place("a").await.unwrap_err(), TooManyWait);
        let _another = share.place("b").await.unwrap();
        drop(mine);
        more.await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_place_to_the_next() {
        let share = FairShare::new(1, 1, 1);
        let mine = share.place("a").await.unwrap();
        {
            let mut given_up = pin!(share.place("b"));
            assert!(poll!(&mut given_up).is_pending());
        }
        let mut waiting = pin!(share.place("b"));
        assert!(poll!(&mut waiting).is_pending(), "who gave up does not count");
        {
            let mut granted_and_given_up = pin!(share.place("c"));
            assert!(poll!(&mut granted_and_given_up).is_pending());
            drop(mine);
            drop(waiting.await.unwrap());
        }
        share.place("d").await.unwrap();
        assert_eq!(share.0.line().working, 0);
    }
}
