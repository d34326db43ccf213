//! PostgreSQL's own notifications: how a node hears that others have committed, one a commit with the position in it, and what
//! they tell it beside the log.
//!
//! They are hints. One that is lost costs a delay, since the log is looked at from time to time in any case.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::Position;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{Notify, broadcast};
use tokio::time::{MissedTickBehavior, interval};

use crate::store::StoreError;

/// The names of the channels.
pub(in crate::store) mod channels {
    /// Commits of the log, each as its position.
    pub(in crate::store) const COMMITS: &str = "maru_log";
    /// What nodes tell each other beside the log.
    pub(in crate::store) const MESSAGES: &str = "maru_nodes";
}

/// How often the log is looked at, whatever is announced.
const LOOKING: Duration = Duration::from_secs(2);

/// How long to wait before listening is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is heard beside commits.
#[derive(Clone, Debug)]
pub enum Notification {
    /// From now on this process hears what is told; what was told before it may have missed.
    Listening,
    /// A node tells this, perhaps this one.
    Told(Arc<str>),
}

/// Whom the listener tells.
pub(super) struct Listener<P> {
    /// The log is to be looked at.
    pub(super) hint: Arc<Notify>,
    /// How far this process has come.
    pub(super) position: P,
    /// What is told beside commits.
    pub(super) notifications: broadcast::Sender<Notification>,
}

impl<P: Fn() -> Position> Listener<P> {
    /// Hints whenever a commit is announced, and from time to time, and passes on what is told. Never returns.
    pub(super) async fn listen(self, options: PgConnectOptions) {
        loop {
            if let Err(error) = self.listen_once(options.clone()).await {
                tracing::warn!(%error, "other nodes' commits are not heard of at once");
            }
            self.hint.notify_one();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What was announced before is not heard of.
    fn begin(&self) {
        self.hint.notify_one();
        let _ = self.notifications.send(Notification::Listening);
    }

    async fn listen_once(&self, options: PgConnectOptions) -> Result<(), StoreError> {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener
            .listen_all([channels::COMMITS, channels::MESSAGES])
            .await?;
        self.begin();
        let mut looking = interval(LOOKING);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let announced = tokio::select! {
                announced = listener.try_recv() => announced?,
                _ = looking.tick() => {
                    self.hint.notify_one();
                    continue;
                }
            };
            let Some(announced) = announced else {
                // The connection was made anew.
                self.begin();
                continue;
            };
            if announced.channel() == channels::MESSAGES {
                let told = Notification::Told(announced.payload().into());
                let _ = self.notifications.send(told);
                continue;
            }
            let reached = announced.payload().parse().map(Position);
            if reached.is_ok_and(|reached| reached > (self.position)()) {
                self.hint.notify_one();
            }
        }
    }
}
