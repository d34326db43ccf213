//! Browser sessions: who is signed in on this server's own pages. One is worth nothing once its user's credentials move on.

use ruma::{OwnedUserId, UserId};

use super::OAuthTables;
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::users::user_id;
use crate::store::engine::query;
use crate::token_hash::TokenHash;

/// Sessions that are ended at once where a user has too many.
const TOGETHER: i64 = 20;

impl OAuthTables {
    /// Starts a session; those of the user that end first go where there are more than `most`.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn start_browser_session(
        &self,
        token: TokenHash,
        user_id: &UserId,
        proved: Credentials,
        expires_at: i64,
        most: i64,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO browser_sessions (token_hash, user_id, credentials, expires_at) VALUES ($1, $2, $3, $4)",
        );
        let insert = insert
            .bind(&token.0[..])
            .bind(user_id.as_str())
            .bind(proved.version())
            .bind(expires_at);
        let surplus = query(
            "DELETE FROM browser_sessions WHERE token_hash IN (SELECT token_hash FROM browser_sessions \
             WHERE user_id = $1 ORDER BY expires_at DESC LIMIT $2 OFFSET $3)",
        );
        let surplus = surplus.bind(user_id.as_str()).bind(TOGETHER).bind(most);
        let started = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                insert.run(&mut tx.connection).await?;
                surplus.run(&mut tx.connection).await
            })
        });
        started.await
    }

    /// Whose a session is at this time, and what its user has proved.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn browser_session(
        &self,
        token: TokenHash,
        now: i64,
    ) -> Result<Option<(OwnedUserId, Credentials)>, StoreError> {
        let row = query(
            "SELECT users.user_id, users.credentials FROM browser_sessions \
             JOIN users ON users.user_id = browser_sessions.user_id \
             AND users.credentials = browser_sessions.credentials AND users.deactivated = 0 \
             WHERE browser_sessions.token_hash = $1 AND browser_sessions.expires_at > $2",
        );
        let row = row.bind(&token.0[..]).bind(now).optional(&self.readers).await?;
        row.map(|row| Ok((user_id(&row, 0, "browser_sessions")?, Credentials::read(&row, 1)?)))
            .transpose()
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn end_browser_session(&self, token: TokenHash) -> Result<(), StoreError> {
        let delete = query("DELETE FROM browser_sessions WHERE token_hash = $1").bind(&token.0[..]);
        let ended = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.run(&mut tx.connection).await }));
        ended.await
    }

    /// Drops sessions that have ended by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_browser_sessions(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM browser_sessions WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM browser_sessions WHERE token_hash IN (SELECT token_hash FROM browser_sessions \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        expired.await
    }
}
