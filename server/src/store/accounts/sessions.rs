//! Sessions: access tokens, the refresh tokens that renew them, and login tokens. All are stored as hashes.

use ruma::{OwnedUserId, UserId};

use super::credentials;
use super::credentials::Credentials;
use super::devices::{Made, NewBareDevice, make_device};
use super::users::user_id;
use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, Row, query};
use crate::store::log::writer::Transaction;
use crate::store::log::{Record, SessionsEnded};
use crate::store::oauth::{self, Grant};
use crate::token_hash::TokenHash;

/// The tokens of a session.
#[derive(Clone, Copy, Debug)]
pub struct NewTokens {
    /// The access token.
    pub token_hash: TokenHash,
    /// When the access token ends, in milliseconds since 1970; none for never.
    pub expires_at: Option<i64>,
    /// The refresh token, if the access token ends.
    pub refresh_hash: Option<TokenHash>,
}

/// The OAuth 2.0 client that a session is of.
#[derive(Clone, Debug)]
pub struct SessionClient {
    /// Its id.
    pub client_id: String,
    /// What all refresh tokens of the session have in common.
    pub family: TokenHash,
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
    /// Its tokens.
    pub tokens: NewTokens,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// How many devices the user may have, this one included.
    pub devices_allowed: i64,
    /// When its user proved to be the owner of the account.
    pub proved: Credentials,
    /// The client that it is of, and what its user has allowed it, which is used up.
    pub client: Option<(SessionClient, Grant)>,
}

impl NewSession {
    /// Its device.
    fn device(&self) -> NewBareDevice {
        NewBareDevice {
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            display_name: self.display_name.clone(),
            created_at: self.created_at,
            devices_allowed: self.devices_allowed,
        }
    }
}

/// What came of starting a session.
#[derive(Clone, Debug)]
pub enum Started {
    /// It runs; these access tokens of the device are not valid any more.
    Running(Vec<TokenHash>),
    /// The user has as many devices as allowed.
    TooManyDevices,
    /// What was proved does not hold any more: the password has changed, everything was logged out, or the account is
    /// closed.
    Outdated,
    /// What its user has allowed is used up already.
    UsedUp,
    /// The device is signed in by another client.
    OtherClient,
}

/// The session that a token is of.
#[derive(Clone, Debug)]
pub struct SessionOf {
    /// Whose.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: String,
    /// The OAuth 2.0 client that it is of.
    pub client_id: Option<String>,
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
    /// Whether its tokens replace others that stay valid until these are used.
    pub replaces: bool,
}

/// A session whose tokens were renewed.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Access tokens that are not valid any more.
    pub ended: Vec<TokenHash>,
}

/// A hash as a column holds it.
pub(in crate::store) fn hash(row: &Row, index: usize) -> Result<TokenHash, StoreError> {
    let bytes: Vec<u8> = row.get(index)?;
    let bytes = bytes.try_into();
    bytes
        .map(TokenHash)
        .map_err(|_| StoreError::corrupt("access_tokens", "a hash of the wrong length"))
}

/// The access tokens of these devices.
pub(in crate::store) async fn tokens_of(
    connection: &mut Connection,
    user_id: &UserId,
    devices: Vec<String>,
) -> Result<Vec<TokenHash>, StoreError> {
    let rows = query("SELECT token_hash FROM access_tokens WHERE user_id = $1 AND device_id = ANY($2)");
    let rows = rows.bind(user_id.as_str()).bind(devices).all(connection).await?;
    rows.iter().map(|row| hash(row, 0)).collect()
}

async fn insert_tokens(
    connection: &mut Connection,
    user_id: &UserId,
    device_id: &str,
    tokens: NewTokens,
    client: Option<SessionClient>,
    replaces: Option<TokenHash>,
) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO access_tokens (token_hash, user_id, device_id, expires_at, refresh_hash, replaces_refresh_hash, \
         client_id, family) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    insert
        .bind(&tokens.token_hash.0[..])
        .bind(user_id.as_str())
        .bind(device_id)
        .bind(tokens.expires_at)
        .bind(tokens.refresh_hash.map(|hash| hash.0.to_vec()))
        .bind(replaces.map(|hash| hash.0.to_vec()))
        .bind(client.as_ref().map(|client| client.client_id.clone()))
        .bind(client.map(|client| client.family.0.to_vec()))
        .run(connection)
        .await
}

/// Drops the pair of tokens whose refresh token this is; the access tokens dropped.
async fn drop_pair(connection: &mut Connection, refresh_hash: &[u8]) -> Result<Vec<TokenHash>, StoreError> {
    let rows = query("SELECT token_hash FROM access_tokens WHERE refresh_hash = $1").bind(refresh_hash);
    let dropped = rows.all(&mut *connection).await?;
    query("DELETE FROM access_tokens WHERE refresh_hash = $1")
        .bind(refresh_hash)
        .run(connection)
        .await?;
    dropped.iter().map(|row| hash(row, 0)).collect()
}

/// Drops what the pair with this access token has replaced: it is in use now.
async fn drop_replaced(
    connection: &mut Connection,
    token_hash: TokenHash,
) -> Result<Vec<TokenHash>, StoreError> {
    let row = query("SELECT replaces_refresh_hash FROM access_tokens WHERE token_hash = $1");
    let row = row.bind(&token_hash.0[..]).optional(&mut *connection).await?;
    let Some(replaced) = row.map_or(Ok(None), |row| row.get::<Option<Vec<u8>>>(0))? else {
        return Ok(Vec::new());
    };
    query("UPDATE access_tokens SET replaces_refresh_hash = NULL WHERE token_hash = $1")
        .bind(&token_hash.0[..])
        .run(connection)
        .await?;
    drop_pair(connection, &replaced).await
}

/// Whether a device is signed in, and not by this client, if there is one.
async fn is_of_another(
    connection: &mut Connection,
    session: &NewSession,
    client_id: Option<&str>,
) -> Result<bool, StoreError> {
    let other = query(
        "SELECT 1 FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND (client_id IS NULL OR client_id <> $3) \
         LIMIT 1",
    );
    let other = other.bind(session.user_id.as_str()).bind(&session.device_id);
    // No client has an empty id.
    let client_id = client_id.unwrap_or_default();
    Ok(other.bind(client_id).optional(connection).await?.is_some())
}

fn session_of(row: &Row) -> Result<SessionOf, StoreError> {
    Ok(SessionOf {
        user_id: user_id(row, 0, "access_tokens")?,
        device_id: row.get(1)?,
        client_id: row.get(2)?,
    })
}

/// Adds to the log that sessions of a user end.
pub(super) fn note_ended(tx: &mut Transaction, user_id: &UserId, tokens: &[TokenHash]) {
    if !tokens.is_empty() {
        tx.push(Record::SessionsEnded(SessionsEnded {
            user_id: user_id.to_owned(),
            tokens: tokens.to_vec(),
        }));
    }
}

impl AccountTables {
    /// Starts a session on a device, if what was proved still holds; the sessions that the device had end.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn start_session(&self, session: NewSession) -> Result<Started, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let holds = credentials::hold(&mut tx.connection, &session.user_id, Some(session.proved));
                    if !holds.await? {
                        return Ok(Started::Outdated);
                    }
                    if let Some((client, grant)) = &session.client {
                        // Whoever has a device code need not be who allows it: it signs in no device that is another's.
                        let own = match grant {
                            Grant::Code(_) => Some(&*client.client_id),
                            Grant::DeviceCode(_) => None,
                        };
                        if is_of_another(&mut tx.connection, &session, own).await? {
                            return Ok(Started::OtherClient);
                        }
                        if !oauth::use_up(&mut tx.connection, *grant, client.family).await? {
                            return Ok(Started::UsedUp);
                        }
                    }
                    if make_device(&mut tx.connection, &session.device()).await? == Made::TooMany {
                        return Ok(Started::TooManyDevices);
                    }
                    let (user_id, device_id) = (&session.user_id, &session.device_id);
                    let ended = tokens_of(&mut tx.connection, user_id, vec![device_id.clone()]).await?;
                    query("DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2")
                        .bind(user_id.as_str())
                        .bind(device_id)
                        .run(&mut tx.connection)
                        .await?;
                    let client = session.client.as_ref().map(|(client, _)| client.clone());
                    let connection = &mut tx.connection;
                    insert_tokens(connection, user_id, device_id, session.tokens, client, None).await?;
                    note_ended(tx, user_id, &ended);
                    Ok(Started::Running(ended))
                })
            })
            .await
    }

    /// The session of an access token.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session(&self, token: TokenHash) -> Result<Option<StoredSession>, StoreError> {
        let row = query(
            "SELECT user_id, device_id, expires_at, replaces_refresh_hash FROM access_tokens WHERE token_hash = $1",
        );
        let Some(row) = row.bind(&token.0[..]).optional(&self.readers).await? else {
            return Ok(None);
        };
        let expires_at = row.get::<Option<i64>>(2)?;
        Ok(Some(StoredSession {
            user_id: user_id(&row, 0, "access_tokens")?,
            device_id: row.get(1)?,
            expires_at: expires_at.map(|ms| u64::try_from(ms).unwrap_or(0)),
            replaces: row.get::<Option<Vec<u8>>>(3)?.is_some(),
        }))
    }

    /// Ends the tokens that the pair with this access token replaces, because the pair is used; the access tokens
    /// that ended.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn end_replaced(
        &self,
        user_id: &UserId,
        token: TokenHash,
    ) -> Result<Vec<TokenHash>, StoreError> {
        let user_id = user_id.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let ended = drop_replaced(&mut tx.connection, token).await?;
                    note_ended(tx, &user_id, &ended);
                    Ok(ended)
                })
            })
            .await
    }

    /// Gives the session of a refresh token a new pair of tokens. The old pair stays valid until the new one is used:
    /// an answer may get lost. `None` for an unknown refresh token, or one of another client.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn renew(
        &self,
        refresh: TokenHash,
        tokens: NewTokens,
        client_id: Option<String>,
    ) -> Result<Option<Renewed>, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let connection = &mut tx.connection;
                    let row = query(
                        "SELECT user_id, device_id, client_id, token_hash, family FROM access_tokens \
                         WHERE refresh_hash = $1",
                    );
                    let Some(row) = row.bind(&refresh.0[..]).optional(&mut *connection).await? else {
                        return Ok(None);
                    };
                    let session = session_of(&row)?;
                    if session.client_id != client_id {
                        return Ok(None);
                    }
                    let (user_id, device_id) = (session.user_id, session.device_id);
                    let client = match client_id {
                        Some(client_id) => Some(SessionClient {
                            client_id,
                            family: hash(&row, 4)?,
                        }),
                        None => None,
                    };
                    let mut ended = drop_replaced(connection, hash(&row, 3)?).await?;
                    // A pair from an answer that got lost: nobody has used it.
                    let lost = query("SELECT token_hash FROM access_tokens WHERE replaces_refresh_hash = $1");
                    for row in lost.bind(&refresh.0[..]).all(&mut *connection).await? {
                        ended.push(hash(&row, 0)?);
                    }
                    query("DELETE FROM access_tokens WHERE replaces_refresh_hash = $1")
                        .bind(&refresh.0[..])
                        .run(connection)
                        .await?;
                    insert_tokens(connection, &user_id, &device_id, tokens, client, Some(refresh)).await?;
                    note_ended(tx, &user_id, &ended);
                    Ok(Some(Renewed { user_id, ended }))
                })
            })
            .await
    }

    /// The session of an access token or of the refresh token that renews it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session_of_token(&self, token: TokenHash) -> Result<Option<SessionOf>, StoreError> {
        for statement in [
            "SELECT user_id, device_id, client_id FROM access_tokens WHERE token_hash = $1",
            "SELECT user_id, device_id, client_id FROM access_tokens WHERE refresh_hash = $1",
        ] {
            let row = query(statement).bind(&token.0[..]);
            if let Some(row) = row.optional(&self.readers).await? {
                return session_of(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// The session whose refresh tokens are of this family.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session_of_family(&self, family: TokenHash) -> Result<Option<SessionOf>, StoreError> {
        let row = query("SELECT user_id, device_id, client_id FROM access_tokens WHERE family = $1 LIMIT 1");
        let row = row.bind(&family.0[..]).optional(&self.readers).await?;
        row.as_ref().map(session_of).transpose()
    }

    /// The OAuth 2.0 client that a device is signed in by.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn client_of(&self, user_id: &UserId, device_id: &str) -> Result<Option<String>, StoreError> {
        let row = query("SELECT client_id FROM access_tokens WHERE user_id = $1 AND device_id = $2 LIMIT 1");
        let row = row.bind(user_id.as_str()).bind(device_id);
        let row = row.optional(&self.readers).await?;
        row.map_or(Ok(None), |row| row.get(0))
    }

    /// Stores a login token; false when what was proved does not hold any more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_login_token(
        &self,
        token: TokenHash,
        user_id: &UserId,
        proved: Credentials,
        expires_at: i64,
    ) -> Result<bool, StoreError> {
        let user_id = user_id.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    if !credentials::hold(&mut tx.connection, &user_id, Some(proved)).await? {
                        return Ok(false);
                    }
                    query("INSERT INTO login_tokens (token_hash, user_id, expires_at) VALUES ($1, $2, $3)")
                        .bind(&token.0[..])
                        .bind(user_id.as_str())
                        .bind(expires_at)
                        .run(&mut tx.connection)
                        .await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Drops login tokens that have expired by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_login_tokens(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM login_tokens WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM login_tokens WHERE token_hash IN (SELECT token_hash FROM login_tokens \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { delete.execute(&mut tx.connection).await }));
        expired.await
    }

    /// Uses a login token up: whose it is and what it proves, if it is valid at this time.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn take_login_token(
        &self,
        token: TokenHash,
        now: i64,
    ) -> Result<Option<(OwnedUserId, Credentials)>, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let row = query(
                        "SELECT users.user_id, users.credentials FROM login_tokens \
                     JOIN users ON users.user_id = login_tokens.user_id \
                     WHERE login_tokens.token_hash = $1 AND login_tokens.expires_at > $2",
                    );
                    let row = row.bind(&token.0[..]).bind(now);
                    let found = row.optional(&mut tx.connection).await?;
                    query("DELETE FROM login_tokens WHERE token_hash = $1")
                        .bind(&token.0[..])
                        .run(&mut tx.connection)
                        .await?;
                    let whose = |row| Ok((user_id(&row, 0, "login_tokens")?, Credentials::read(&row, 1)?));
                    found.map(whose).transpose()
                })
            })
            .await
    }
}
