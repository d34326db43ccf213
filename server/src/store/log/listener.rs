//! How a node hears that others have committed: PostgreSQL's own notifications, one a commit with the position in it.
//!
//! They are hints. One that is lost costs a delay, since the log is looked at from time to time in any case.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::Position;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;

use crate::store::StoreError;

/// The channel on which `journal.rs` announces commits.
const CHANNEL: &str = "maru_log";

/// How often the log is looked at, whatever is announced.
const LOOKING: Duration = Duration::from_secs(2);

/// How long to wait before listening is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Calls `hint` whenever a commit is announced, and from time to time. Never returns.
pub(super) async fn listen(options: PgConnectOptions, hint: Arc<Notify>, position: impl Fn() -> Position) {
    loop {
        if let Err(error) = listen_once(options.clone(), &hint, &position).await {
            tracing::warn!(%error, "other nodes' commits are not heard of at once");
        }
        hint.notify_one();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    options: PgConnectOptions,
    hint: &Notify,
    position: &impl Fn() -> Position,
) -> Result<(), StoreError> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    // What was announced before is not heard of.
    hint.notify_one();
    loop {
        match tokio::time::timeout(LOOKING, listener.recv()).await {
            Ok(announced) => {
                let reached = announced?.payload().parse().map(Position);
                if reached.is_ok_and(|reached| reached > position()) {
                    hint.notify_one();
                }
            }
            Err(_) => hint.notify_one(),
        }
    }
}
