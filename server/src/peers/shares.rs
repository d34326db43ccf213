//! Shares: what others make this server do and that takes memory is done a few at a time, and they take turns. Whoever asks
//! for much, or answers slowly what is asked for his sake, keeps nobody else waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ruma::{OwnedServerName, ServerName};
use tokio::sync::oneshot;

/// Things of one server that wait for their turn.
const MOST_WAITING: usize = 1_000;

/// What is being done for the sake of whom. Bounded by the servers, and for each by [`MOST_WAITING`].
#[derive(Debug)]
pub(super) struct Shares(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    at_once: usize,
    of_one: usize,
    running: usize,
    servers: BTreeMap<OwnedServerName, Of>,
    /// Servers with something that waits, the one whose turn is next first.
    turns: VecDeque<OwnedServerName>,
}

/// What there is of one server.
#[derive(Debug, Default)]
struct Of {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Share>>,
}

/// The right to do one thing, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: OwnedServerName,
    state: Arc<Mutex<State>>,
}

/// Too much of a server waits already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Shares {
    /// So many at a time, and so many of one server.
    pub(super) fn new(at_once: usize, of_one: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            at_once,
            of_one,
            running: 0,
            servers: BTreeMap::new(),
            turns: VecDeque::new(),
        })))
    }

    /// Waits for the right to do something for the sake of a server.
    ///
    /// # Errors
    /// [`TooMany`] where too much of it waits already.
    pub(super) async fn take(&self, server: &ServerName) -> Result<Share, TooMany> {
        let turn = {
            let mut state = lock(&self.0);
            let of = state.servers.entry(server.to_owned()).or_default();
            if of.waiting.len() >= MOST_WAITING {
                return Err(TooMany);
            }
            let (give, turn) = oneshot::channel();
            of.waiting.push_back(give);
            if of.waiting.len() == 1 {
                state.turns.push_back(server.to_owned());
            }
            turn
        };
        hand_out(&self.0);
        turn.await.map_err(|_| TooMany)
    }
}

impl State {
    /// Whoever is next, if there is room for it.
    fn next(&mut self) -> Option<(OwnedServerName, oneshot::Sender<Share>)> {
        if self.running >= self.at_once {
            return None;
        }
        let may_run =
            |name: &OwnedServerName| self.servers.get(name).is_some_and(|of| of.running < self.of_one);
        let at = self.turns.iter().position(may_run)?;
        let name = self.turns.remove(at)?;
        let of = self.servers.get_mut(&name)?;
        let give = of.waiting.pop_front()?;
        of.running += 1;
        self.running += 1;
        if !of.waiting.is_empty() {
            self.turns.push_back(name.clone());
        }
        Some((name, give))
    }
}

/// Gives shares to those that wait, as far as there are any.
fn hand_out(shared: &Arc<Mutex<State>>) {
    loop {
        // Not held while a share is given: one that nobody waits for any more comes back at once.
        let next = lock(shared).next();
        let Some((of, give)) = next else { return };
        let state = Arc::clone(shared);
        drop(give.send(Share { of, state }));
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Share {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.running = state.running.saturating_sub(1);
            if let Some(of) = state.servers.get_mut(&self.of) {
                of.running = of.running.saturating_sub(1);
                if of.running == 0 && of.waiting.is_empty() {
                    state.servers.remove(&self.of);
                }
            }
        }
        hand_out(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ruma::server_name;

    use super::*;

    fn name(number: usize) -> OwnedServerName {
        format!("s{number}.example").try_into().unwrap()
    }

    #[tokio::test]
    async fn who_has_much_keeps_nobody_else_waiting() {
        let (shares, liar) = (Shares::new(9, 3), server_name!("liar.example"));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(shares.take(liar).await.unwrap());
        }
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(shares.take(liar))).collect();
        assert!(waiting.iter_mut().all(|share| share.now_or_never_mut().is_none()));
        assert_eq!(shares.take(liar).await.unwrap_err(), TooMany);
        drop(shares.take(server_name!("honest.example")).await.unwrap());
        // One that goes makes room for the next.
        held.pop();
        let next = waiting.remove(0).await;
        assert!(next.is_ok() && waiting[0].now_or_never_mut().is_none());
        drop((held, next, waiting));
        let state = lock(&shares.0);
        assert_eq!((state.running, state.servers.len(), state.turns.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn all_together_have_a_bound_and_take_turns() {
        let shares = Shares::new(9, 3);
        let mut held = Vec::new();
        for number in 0..9 {
            held.push(shares.take(&name(number)).await.unwrap());
        }
        let (first, second) = (name(98), name(99));
        let mut waiting = [&first, &first, &second].map(|name| Box::pin(shares.take(name)));
        assert!(waiting.iter_mut().all(|share| share.now_or_never_mut().is_none()));
        held.truncate(7);
        let [one, mut two, other] = waiting;
        let one = one.await.unwrap();
        assert_eq!(one.of, first);
        assert!(
            two.now_or_never_mut().is_none(),
            "the second server has the next turn"
        );
        assert_eq!(other.await.unwrap().of, second);
        drop(one);
        assert!(two.await.is_ok());
    }

    trait Look: Future + Unpin + Sized {
        fn now_or_never_mut(&mut self) -> Option<Self::Output> {
            (&mut *self).now_or_never()
        }
    }
    impl<T: Future + Unpin> Look for T {}
}
