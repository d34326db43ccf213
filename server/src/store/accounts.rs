//! Users, devices and tokens.

use ruma::{OwnedUserId, UserId};

use super::engine::query;
use super::{Store, StoreError};
use crate::accounts::TokenHash;

/// An account to make.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Its id.
    pub user_id: OwnedUserId,
    /// argon2id in PHC form.
    pub password_hash: Option<String>,
    /// Whether it may administer the server.
    pub admin: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// An account as it is read back.
#[derive(Clone, Debug)]
pub struct StoredUser {
    /// argon2id in PHC form.
    pub password_hash: Option<String>,
    /// Whether it may administer the server.
    pub admin: bool,
    /// Whether it is closed.
    pub deactivated: bool,
}

/// A session to start.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Whose.
    pub user_id: OwnedUserId,
    /// On which device, new or known.
    pub device_id: String,
    /// The name of a new device.
    pub display_name: Option<String>,
    /// Its access token.
    pub token_hash: TokenHash,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// A session as it is read back.
#[derive(Clone, Debug)]
pub struct StoredSession {
    /// Whose.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: String,
    /// Milliseconds since 1970.
    pub expires_at: Option<u64>,
}

impl Store {
    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the id is taken.
    pub async fn create_user(&self, user: NewUser) -> Result<(), StoreError> {
        self.transact(move |tx| {
            Box::pin(async move {
                query("INSERT INTO users (user_id, password_hash, admin, created_at) VALUES ($1, $2, $3, $4)")
                    .bind(user.user_id.as_str())
                    .bind(user.password_hash)
                    .bind(user.admin)
                    .bind(user.created_at)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    /// An account by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn user(&self, user_id: &UserId) -> Result<Option<StoredUser>, StoreError> {
        let row = query("SELECT password_hash, admin, deactivated FROM users WHERE user_id = $1");
        let row = row.bind(user_id.as_str()).optional(&self.readers).await?;
        let read = |row: super::engine::Row| {
            Ok(StoredUser {
                password_hash: row.get(0)?,
                admin: row.get(1)?,
                deactivated: row.get(2)?,
            })
        };
        row.map(read).transpose()
    }

    /// Starts a session; a session that the device had is replaced.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn start_session(&self, session: NewSession) -> Result<(), StoreError> {
        self.transact(move |tx| {
            Box::pin(async move {
                let user_id = session.user_id.as_str();
                query(
                    "INSERT INTO devices (user_id, device_id, display_name, created_at) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (user_id, device_id) DO NOTHING",
                )
                .bind(user_id)
                .bind(&session.device_id)
                .bind(session.display_name)
                .bind(session.created_at)
                .execute(&mut tx.connection)
                .await?;
                query("DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2")
                    .bind(user_id)
                    .bind(&session.device_id)
                    .execute(&mut tx.connection)
                    .await?;
                query("INSERT INTO access_tokens (token_hash, user_id, device_id) VALUES ($1, $2, $3)")
                    .bind(&session.token_hash.0[..])
                    .bind(user_id)
                    .bind(&session.device_id)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    /// The session of an access token.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session(&self, token: TokenHash) -> Result<Option<StoredSession>, StoreError> {
        let row = query("SELECT user_id, device_id, expires_at FROM access_tokens WHERE token_hash = $1");
        let Some(row) = row.bind(&token.0[..]).optional(&self.readers).await? else {
            return Ok(None);
        };
        Ok(Some(StoredSession {
            user_id: row
                .get::<String>(0)?
                .try_into()
                .map_err(|error| StoreError::corrupt("access_tokens", error))?,
            device_id: row.get(1)?,
            expires_at: row
                .get::<Option<i64>>(2)?
                .map(|ms| u64::try_from(ms).unwrap_or(0)),
        }))
    }
}
