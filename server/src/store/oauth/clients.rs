//! Clients: applications that have registered, and what they say of themselves.

use super::OAuthTables;
use super::counts::{self, Kind};
use crate::store::StoreError;
use crate::store::engine::query;

/// A client as it is read back.
#[derive(Clone, Debug)]
pub struct StoredClient {
    /// What it says of itself, as JSON.
    pub metadata: String,
    /// When it is forgotten, in milliseconds since 1970.
    pub expires_at: i64,
}

impl OAuthTables {
    /// A client by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn client(&self, client_id: &str) -> Result<Option<StoredClient>, StoreError> {
        let row = query("SELECT metadata, expires_at FROM oauth_clients WHERE client_id = $1");
        let row = row.bind(client_id).optional(&self.readers).await?;
        let read = |row: crate::store::engine::Row| {
            Ok(StoredClient {
                metadata: row.get(0)?,
                expires_at: row.get(1)?,
            })
        };
        row.map(read).transpose()
    }

    /// Keeps a client, for as long as this or longer; false when it is new and there are `most` others.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_client(
        &self,
        client_id: &str,
        metadata: String,
        expires_at: i64,
        most: i64,
    ) -> Result<bool, StoreError> {
        let known = self.client(client_id).await?;
        if known.is_some_and(|known| known.expires_at >= expires_at) {
            return Ok(true);
        }
        let client_id = client_id.to_owned();
        let put = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let longer = query("UPDATE oauth_clients SET expires_at = $1 WHERE client_id = $2");
                let longer = longer.bind(expires_at).bind(&client_id);
                if longer.execute(connection).await? > 0 {
                    return Ok(true);
                }
                if !counts::add_one(connection, Kind::Clients, most).await? {
                    return Ok(false);
                }
                let insert = query(
                    "INSERT INTO oauth_clients (client_id, metadata, expires_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (client_id) DO NOTHING",
                );
                let insert = insert.bind(client_id).bind(metadata).bind(expires_at);
                if insert.execute(connection).await? == 0 {
                    // Somebody else was faster.
                    counts::take_away(connection, Kind::Clients, 1).await?;
                }
                Ok(true)
            })
        });
        put.await
    }

    /// Keeps a client that somebody signs in with for as long as this.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn keep_client(&self, client_id: &str, expires_at: i64) -> Result<(), StoreError> {
        let update =
            query("UPDATE oauth_clients SET expires_at = $1 WHERE client_id = $2 AND expires_at < $1");
        let update = update.bind(expires_at).bind(client_id);
        let kept = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { update.run(&mut tx.connection).await }));
        kept.await
    }

    /// Forgets clients that have expired by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_clients(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM oauth_clients WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM oauth_clients WHERE client_id IN (SELECT client_id FROM oauth_clients \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let gone = delete.execute(&mut tx.connection).await?;
                counts::take_away(&mut tx.connection, Kind::Clients, gone).await?;
                Ok(gone)
            })
        });
        expired.await
    }
}
