//! PostgreSQL's notifications as the carrier of what nodes tell each other beside the log.

use tokio::sync::broadcast;

use super::NodeTables;
use crate::store::StoreError;
use crate::store::engine::query;
pub use crate::store::log::Notification;
use crate::store::log::channels;

impl NodeTables {
    /// Tells the other nodes something, of at most 7,999 bytes: a notification, which takes a lock of the whole database
    /// server for a moment. Whoever does not listen now never hears of it.
    ///
    /// # Errors
    /// When it was not told.
    pub async fn tell(&self, message: String) -> Result<(), StoreError> {
        let telling = query("SELECT 1::bigint FROM (SELECT pg_notify($1, $2)) AS told");
        let telling = telling.bind(channels::MESSAGES).bind(message);
        telling.all(&self.readers).await.map(drop)
    }

    /// What other nodes tell from now on, this one's own words among it. Whoever is slow misses some. Nothing where one
    /// process has the database to itself.
    #[must_use]
    pub fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.log.notifications()
    }
}
