//! Turns at heavy work, of which only so much runs at once: whoever asks for many waits behind who asks for few.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Turns that go round among those who wait, one each. Who is alone may have all of them. What waits is bounded by the
/// requests that are open.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash + Clone> {
    at_once: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K: Eq + Hash + Clone> {
    taken: usize,
    waiting: HashMap<K, VecDeque<oneshot::Sender<Turn<K>>>>,
    /// Those who wait, each once: the next one first.
    round: VecDeque<K>,
}

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash + Clone>(Option<Arc<Turns<K>>>);

impl<K: Eq + Hash + Clone> Turns<K> {
    /// So many turns at once, at least one.
    #[must_use]
    pub fn new(at_once: usize) -> Arc<Self> {
        let state = State {
            taken: 0,
            waiting: HashMap::new(),
            round: VecDeque::new(),
        };
        Arc::new(Self {
            at_once: at_once.max(1),
            state: Mutex::new(state),
        })
    }

    /// Waits for a turn. Who gives up waiting holds up nobody.
    pub async fn take(self: &Arc<Self>, who: K) -> Turn<K> {
        let waiting = {
            let mut state = self.lock();
            if state.taken < self.at_once {
                state.taken += 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, receiver) = oneshot::channel();
            let line = state.waiting.entry(who.clone()).or_default();
            line.push_back(sender);
            if line.len() == 1 {
                state.round.push_back(who);
            }
            receiver
        };
        // The sender lives in `self` until it is used.
        waiting.await.unwrap_or(Turn(None))
    }

    /// Who comes next; the turn is free when nobody does.
    fn next(&self) -> Option<oneshot::Sender<Turn<K>>> {
        let mut state = self.lock();
        let Some(who) = state.round.pop_front() else {
            state.taken -= 1;
            return None;
        };
        let line = state.waiting.get_mut(&who)?;
        let next = line.pop_front();
        if line.is_empty() {
            state.waiting.remove(&who);
        } else {
            state.round.push_back(who);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        while let Some(next) = turns.next() {
            match next.send(Turn(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // Nobody waits there any more: the turn goes on from here.
                Err(mut unsent) => unsent.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_asks_for_few_waits_for_one_of_who_asks_for_many() {
        let turns = Turns::new(1);
        let first = turns.take("many").await;
        let mut many: Vec<_> = (0..3).map(|_| Box::pin(turns.take("many"))).collect();
        assert!(many.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let mut few = Box::pin(turns.take("few"));
        assert!((&mut few).now_or_never().is_none());
        drop(first);
        let second = (&mut many[0]).now_or_never().unwrap();
        assert!((&mut few).now_or_never().is_none());
        drop(second);
        let few = (&mut few).now_or_never().unwrap();
        assert!((&mut many[1]).now_or_never().is_none());
        drop(few);
        assert!((&mut many[1]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_gives_up_loses_no_turn_for_others() {
        let turns = Turns::new(2);
        let taken = [turns.take(1).await, turns.take(1).await];
        let mut waiting: Vec<_> = (0..4).map(|who| Box::pin(turns.take(who))).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let last = waiting.pop().unwrap();
        drop(waiting);
        drop(taken);
        drop(last.await);
        let state = turns.lock();
        assert_eq!((state.taken, state.round.len(), state.waiting.len()), (0, 0, 0));
    }
}
