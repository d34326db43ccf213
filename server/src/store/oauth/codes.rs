//! Authorization codes: what a user has allowed a client, once and for a short time.

use ruma::OwnedUserId;

use super::OAuthTables;
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::sessions::hash;
use crate::store::accounts::users::user_id;
use crate::store::engine::{Connection, query};
use crate::token_hash::TokenHash;

/// What a code stands for.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The client that was allowed.
    pub client_id: String,
    /// Where the client was told the code.
    pub redirect_uri: String,
    /// The challenge of PKCE, by S256.
    pub challenge: String,
    /// What was allowed.
    pub scope: String,
    /// By whom.
    pub user_id: OwnedUserId,
    /// What its user had proved then.
    pub proved: Credentials,
    /// On which device.
    pub device_id: String,
    /// When the code ends, in milliseconds since 1970.
    pub expires_at: i64,
}

/// A code as it is read back.
#[derive(Clone, Debug)]
pub struct StoredCode {
    /// What it stands for.
    pub allowed: Allowed,
    /// The family of refresh tokens of the session that it has become.
    pub became: Option<TokenHash>,
}

/// Uses a code up for a session; false when it was used already.
pub(super) async fn use_up(
    connection: &mut Connection,
    code: TokenHash,
    family: TokenHash,
) -> Result<bool, StoreError> {
    let used = query("UPDATE oauth_codes SET family = $1 WHERE code_hash = $2 AND family IS NULL");
    let used = used.bind(&family.0[..]).bind(&code.0[..]);
    Ok(used.execute(connection).await? > 0)
}

impl OAuthTables {
    /// Stores a code.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_code(&self, code: TokenHash, allowed: Allowed) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO oauth_codes (code_hash, client_id, redirect_uri, challenge, scope, user_id, credentials, \
             device_id, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        );
        let insert = insert
            .bind(&code.0[..])
            .bind(allowed.client_id)
            .bind(allowed.redirect_uri)
            .bind(allowed.challenge)
            .bind(allowed.scope)
            .bind(allowed.user_id.as_str())
            .bind(allowed.proved.version())
            .bind(allowed.device_id)
            .bind(allowed.expires_at);
        let put = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { insert.run(&mut tx.connection).await }));
        put.await
    }

    /// What a code stands for, whether it has ended or not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn code(&self, code: TokenHash) -> Result<Option<StoredCode>, StoreError> {
        let row = query(
            "SELECT client_id, redirect_uri, challenge, scope, user_id, credentials, device_id, expires_at, family \
             FROM oauth_codes WHERE code_hash = $1",
        );
        let Some(row) = row.bind(&code.0[..]).optional(&self.readers).await? else {
            return Ok(None);
        };
        let is_used = row.get::<Option<Vec<u8>>>(8)?.is_some();
        Ok(Some(StoredCode {
            allowed: Allowed {
                client_id: row.get(0)?,
                redirect_uri: row.get(1)?,
                challenge: row.get(2)?,
                scope: row.get(3)?,
                user_id: user_id(&row, 4, "oauth_codes")?,
                proved: Credentials::read(&row, 5)?,
                device_id: row.get(6)?,
                expires_at: row.get(7)?,
            },
            became: match is_used {
                true => Some(hash(&row, 8)?),
                false => None,
            },
        }))
    }

    /// Drops codes that have ended by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_codes(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM oauth_codes WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM oauth_codes WHERE code_hash IN (SELECT code_hash FROM oauth_codes \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        expired.await
    }
}
