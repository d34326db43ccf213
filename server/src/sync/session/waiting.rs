//! How a device waits: for something new, for its token to be looked at again, for the server to stop, or for the moment at
//! which it is to leave a node that stops while others go on.

use std::sync::OnceLock;

use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::live::Notifier;

/// The moment at which one device leaves, where everybody is to ([`Notifier::leave_within`]): chosen when it is first
/// asked.
#[derive(Debug, Default)]
pub(super) struct Leaving(OnceLock<Instant>);

impl Leaving {
    fn moment(&self, notifier: &Notifier) -> Option<Instant> {
        let chosen = self.0.get().copied();
        chosen.or_else(|| {
            let moment = notifier.moment_to_leave()?;
            Some(*self.0.get_or_init(|| moment))
        })
    }
}

impl Session<'_> {
    /// Waits for something new or a recall, or until the server stops or the device is to leave it; whether it came. May
    /// be dropped at any time.
    pub async fn wait(&self) -> bool {
        let changed = self.inbox.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        // Whatever has come: in a busy room there is always more, and the cursor keeps it.
        if self.is_to_leave() {
            return false;
        }
        if self.is_recalled() || self.has_news() {
            return true;
        }
        if !self.is_stopping() {
            let hold = self.sync.unanswered.hold(&self.caller);
            let until = hold.map(|hold| hold.until).into_iter().chain(self.leaves_at());
            or_until(until.min(), changed).await;
        }
        if self.is_to_leave() {
            return false;
        }
        // What the server says before it stops is still delivered.
        !self.is_stopping() || self.has_news()
    }

    /// Waits for a recall, or until the server stops or the device is to leave it; whether it came. What is new is left
    /// waiting. May be dropped at any time.
    pub async fn wait_for_recall(&self) -> bool {
        loop {
            let changed = self.inbox.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_stopping() || self.is_to_leave() {
                return false;
            }
            if self.is_recalled() {
                return true;
            }
            or_until(self.leaves_at(), changed).await;
        }
    }

    fn leaves_at(&self) -> Option<Instant> {
        self.leaving.moment(&self.sync.notifier)
    }

    fn is_to_leave(&self) -> bool {
        self.leaves_at().is_some_and(|at| at <= Instant::now())
    }

    fn is_stopping(&self) -> bool {
        self.sync.notifier.is_stopping()
    }

    fn is_recalled(&self) -> bool {
        self.inbox.recalls() != self.recalls
    }
}

/// Waits for something, where there is a moment no longer than until that.
async fn or_until(moment: Option<Instant>, wait: impl Future<Output = ()>) {
    match moment {
        None => wait.await,
        // Boxed, since it happens to few who wait.
        Some(moment) => drop(Box::pin(timeout_at(moment, wait)).await),
    }
}
