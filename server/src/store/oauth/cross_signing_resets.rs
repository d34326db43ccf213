//! Users who have allowed on the account page that their cross-signing keys are replaced, for a while.

use ruma::UserId;

use super::OAuthTables;
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::engine::query;

impl OAuthTables {
    /// Notes that a user allows it until then.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn allow_reset(
        &self,
        user_id: &UserId,
        proved: Credentials,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        let upsert = query(
            "INSERT INTO cross_signing_resets (user_id, credentials, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id) DO UPDATE SET credentials = excluded.credentials, expires_at = excluded.expires_at",
        );
        let upsert = upsert
            .bind(user_id.as_str())
            .bind(proved.version())
            .bind(expires_at);
        let allowed = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { upsert.run(&mut tx.connection).await }));
        allowed.await
    }

    /// What a user has proved who allows it at this time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn allowed_reset(&self, user_id: &UserId, now: i64) -> Result<Option<Credentials>, StoreError> {
        let row =
            query("SELECT credentials FROM cross_signing_resets WHERE user_id = $1 AND expires_at > $2");
        let row = row
            .bind(user_id.as_str())
            .bind(now)
            .optional(&self.readers)
            .await?;
        row.map(|row| Credentials::read(&row, 0)).transpose()
    }

    /// Drops what has ended by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_resets(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM cross_signing_resets WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM cross_signing_resets WHERE user_id IN (SELECT user_id FROM cross_signing_resets \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        expired.await
    }
}
