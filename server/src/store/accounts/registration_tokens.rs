//! Registration tokens: what lets somebody register where registration is not open to everybody.

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, query};
use crate::token_hash::TokenHash;

/// A registration token to make.
#[derive(Clone, Debug)]
pub struct NewRegistrationToken {
    /// What is stored of it.
    pub token_hash: TokenHash,
    /// Its first characters, to tell tokens apart in a list.
    pub hint: String,
    /// How many accounts may be made with it; none for any number.
    pub uses_allowed: Option<i64>,
    /// Whether the accounts made with it are admins.
    pub admin: bool,
    /// Milliseconds since 1970; none for a token that does not expire.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// Uses a token once: whether it makes an admin, or `None` when it is not valid.
pub(in crate::store) async fn spend(
    connection: &mut Connection,
    token: TokenHash,
    now: i64,
) -> Result<Option<bool>, StoreError> {
    let spent = query(
        "UPDATE registration_tokens SET uses = uses + 1 WHERE token_hash = $1 \
         AND (uses_allowed IS NULL OR uses < uses_allowed) AND (expires_at IS NULL OR expires_at > $2)",
    );
    let spent = spent
        .bind(&token.0[..])
        .bind(now)
        .execute(&mut *connection)
        .await?;
    if spent == 0 {
        return Ok(None);
    }
    let admin = query("SELECT admin FROM registration_tokens WHERE token_hash = $1").bind(&token.0[..]);
    admin
        .optional(connection)
        .await?
        .map(|row| row.get(0))
        .transpose()
}

async fn insert(connection: &mut Connection, token: NewRegistrationToken) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO registration_tokens (token_hash, hint, uses_allowed, admin, expires_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    );
    insert
        .bind(&token.token_hash.0[..])
        .bind(token.hint)
        .bind(token.uses_allowed)
        .bind(token.admin)
        .bind(token.expires_at)
        .bind(token.created_at)
        .run(connection)
        .await
}

impl AccountTables {
    /// Makes a registration token.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_registration_token(&self, token: NewRegistrationToken) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| Box::pin(async move { insert(&mut tx.connection, token).await }))
            .await
    }

    /// Makes a registration token on a server that has neither users nor tokens yet; whether it did.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_first_registration_token(
        &self,
        token: NewRegistrationToken,
    ) -> Result<bool, StoreError> {
        self.log.transact(move |tx| {
            Box::pin(async move {
                let known = query(
                    "SELECT 1 WHERE EXISTS (SELECT 1 FROM users) OR EXISTS (SELECT 1 FROM registration_tokens)",
                );
                if !known.all(&mut tx.connection).await?.is_empty() {
                    return Ok(false);
                }
                insert(&mut tx.connection, token).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Whether a token may be used at this time, and makes an admin; `None` when it may not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn registration_token(&self, token: TokenHash, now: i64) -> Result<Option<bool>, StoreError> {
        let row = query(
            "SELECT admin FROM registration_tokens WHERE token_hash = $1 \
             AND (uses_allowed IS NULL OR uses < uses_allowed) AND (expires_at IS NULL OR expires_at > $2)",
        );
        let row = row.bind(&token.0[..]).bind(now).optional(&self.readers).await?;
        row.map(|row| row.get(0)).transpose()
    }
}
