//! How far this node has brought the log, for whoever tells the others so in place of the database.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use maru_protocol::cursor::Position;
use tokio::sync::Notify;

/// The newest position that this node has committed, and whether somebody tells it to the other nodes. Only the newest one
/// is kept: whoever hears of it reads all before it.
#[derive(Debug, Default)]
pub struct CommitSignal {
    newest: AtomicI64,
    raised: Notify,
    is_carried: AtomicBool,
}

impl CommitSignal {
    /// Whether what is raised is told to the other nodes now. Where it is not, the database has to.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        self.is_carried.load(Ordering::Relaxed)
    }

    /// This node has committed up to a position. Returns at once.
    pub fn raise(&self, position: Position) {
        if self.is_carried() {
            self.newest.fetch_max(position.0, Ordering::AcqRel);
            self.raised.notify_one();
        }
    }

    /// From now on somebody tells the other nodes, or nobody does any more.
    pub(super) fn carry(&self, is_carried: bool) {
        self.is_carried.store(is_carried, Ordering::Relaxed);
    }

    /// The newest position, once there is one that was not taken yet.
    pub(super) async fn take(&self) -> Position {
        self.raised.notified().await;
        Position(self.newest.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_newest_is_told_and_nothing_where_nobody_tells_it() {
        let signal = CommitSignal::default();
        signal.raise(Position(3));
        signal.carry(true);
        signal.raise(Position(7));
        signal.raise(Position(5));
        assert_eq!(signal.take().await, Position(7));
        let again = tokio::time::timeout(std::time::Duration::ZERO, signal.take()).await;
        assert!(again.is_err(), "it was taken");
    }
}
