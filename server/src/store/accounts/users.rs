//! Accounts: who they are, and who shares rooms with whom.

use std::collections::HashMap;

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};

use super::credentials;
use super::credentials::Credentials;
use super::devices::{Devices, remove};
use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::encryption::key_backups;
use crate::store::engine::{On, Row, query};
use crate::store::log::{Erased, Record};
use crate::token_hash::TokenHash;

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
    /// Its id.
    pub user_id: OwnedUserId,
    /// argon2id in PHC form.
    pub password_hash: Option<String>,
    /// Whether it may administer the server.
    pub admin: bool,
    /// Whether it is closed.
    pub deactivated: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// What a proof of its password is worth until they change.
    pub credentials: Credentials,
}

/// An account that was closed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Access tokens that are not valid any more.
    pub ended: Vec<TokenHash>,
    /// Where the log stood: where it is erased, its messages are not for those who come after.
    pub at: Position,
}

/// What goes of an account that is erased, and the mark that it is.
const ERASE: [&str; 3] = [
    "DELETE FROM account_data WHERE user_id = $1",
    "DELETE FROM filters WHERE user_id = $1",
    "UPDATE users SET erased_at = (SELECT position FROM log WHERE one = 1) WHERE user_id = $1",
];

/// A user id as a column holds it.
pub(in crate::store) fn user_id(
    row: &Row,
    index: usize,
    table: &'static str,
) -> Result<OwnedUserId, StoreError> {
    row.get::<String>(index)?
        .try_into()
        .map_err(|error| StoreError::corrupt(table, error))
}

fn read(row: &Row) -> Result<StoredUser, StoreError> {
    Ok(StoredUser {
        user_id: user_id(row, 0, "users")?,
        password_hash: row.get(1)?,
        admin: row.get(2)?,
        deactivated: row.get(3)?,
        created_at: row.get(4)?,
        credentials: Credentials::read(row, 5)?,
    })
}

/// The local users who are joined to a room that this user is joined to, and the user.
pub(in crate::store) async fn sharing_rooms<'a>(
    on: impl Into<On<'a>>,
    user_id: &UserId,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let rows = query(
        "SELECT DISTINCT users.user_id FROM memberships AS mine \
         JOIN memberships AS theirs ON theirs.room = mine.room AND theirs.membership = 'join' \
         JOIN users ON users.user_id = theirs.user_id \
         WHERE mine.user_id = $1 AND mine.membership = 'join'",
    );
    let rows = rows.bind(user_id.as_str()).all(on).await?;
    let mut found = rows
        .iter()
        .map(|row| self::user_id(row, 0, "users"))
        .collect::<Result<Vec<_>, _>>()?;
    if !found.iter().any(|known| known == user_id) {
        found.push(user_id.to_owned());
    }
    Ok(found)
}

impl AccountTables {
    /// Makes an account. One that is made with a registration token uses the token up by one in the same commit, and
    /// becomes an admin when the token says so; false when the token is not valid any more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the id is taken.
    pub async fn create_user(&self, user: NewUser, token: Option<TokenHash>) -> Result<bool, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let mut admin = user.admin;
                    if let Some(token) = token {
                        let used =
                            super::registration_tokens::spend(&mut tx.connection, token, user.created_at);
                        match used.await? {
                            Some(makes_admin) => admin |= makes_admin,
                            None => return Ok(false),
                        }
                    }
                    let insert = query(
                        "INSERT INTO users (user_id, password_hash, admin, created_at, search_text) \
                     VALUES ($1, $2, $3, $4, $5)",
                    );
                    insert
                        .bind(user.user_id.as_str())
                        .bind(user.password_hash)
                        .bind(admin)
                        .bind(user.created_at)
                        .bind(user.user_id.localpart().to_lowercase())
                        .run(&mut tx.connection)
                        .await?;
                    Ok(true)
                })
            })
            .await
    }

    /// An account by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn user(&self, user_id: &UserId) -> Result<Option<StoredUser>, StoreError> {
        let row = query(
            "SELECT user_id, password_hash, admin, deactivated, created_at, credentials FROM users \
             WHERE user_id = $1",
        );
        let row = row.bind(user_id.as_str()).optional(&self.readers).await?;
        row.as_ref().map(read).transpose()
    }

    /// Up to `limit` accounts in the order of their ids, after the given one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn users_after(&self, after: &str, limit: i64) -> Result<Vec<StoredUser>, StoreError> {
        let rows = query(
            "SELECT user_id, password_hash, admin, deactivated, created_at, credentials FROM users \
             WHERE user_id > $1 ORDER BY user_id LIMIT $2",
        );
        let rows = rows.bind(after).bind(limit).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Gives an open account another password, ends what the old one could still become, and logs these of its devices
    /// out: the access tokens that ended. `None` when there is no such account, or what was proved does not hold any
    /// more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_password(
        &self,
        user_id: &UserId,
        password_hash: String,
        proved: Option<Credentials>,
        log_out: Devices,
    ) -> Result<Option<Vec<TokenHash>>, StoreError> {
        let user_id = user_id.to_owned();
        self.thin(&user_id, &log_out, proved).await?;
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    if !credentials::hold(&mut tx.connection, &user_id, proved).await? {
                        return Ok(None);
                    }
                    let update =
                        query("UPDATE users SET password_hash = $1 WHERE user_id = $2 AND deactivated = 0");
                    let update = update.bind(password_hash).bind(user_id.as_str());
                    if update.execute(&mut tx.connection).await? == 0 {
                        return Ok(None);
                    }
                    credentials::renew(&mut tx.connection, &user_id).await?;
                    remove(tx, user_id, log_out).await.map(Some)
                })
            })
            .await
    }

    /// Closes an account: no password, no profile, not found in the directory, no devices and no
    /// backup of their keys. Where it is erased, its account
    /// data and filters go too, and its messages are not for those who come from now on. `None` when there is no such
    /// account, or what was proved does not hold any more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn deactivate_user(
        &self,
        user_id: &UserId,
        proved: Option<Credentials>,
        erase: bool,
    ) -> Result<Option<Closed>, StoreError> {
        let user_id = user_id.to_owned();
        self.thin(&user_id, &Devices::All, proved).await?;
        self.log.transact(move |tx| {
            Box::pin(async move {
                if !credentials::hold(&mut tx.connection, &user_id, proved).await? {
                    return Ok(None);
                }
                let closed = query(
                    "UPDATE users SET deactivated = 1, password_hash = NULL, search_text = '' WHERE user_id = $1",
                );
                let closed = closed.bind(user_id.as_str()).execute(&mut tx.connection);
                if closed.await? == 0 {
                    return Ok(None);
                }
                let profile = query("DELETE FROM profiles WHERE user_id = $1").bind(user_id.as_str());
                profile.run(&mut tx.connection).await?;
                for backup in key_backups::DELETE_ALL {
                    let backup = query(backup).bind(user_id.as_str());
                    backup.run(&mut tx.connection).await?;
                }
                if erase {
                    for private in ERASE {
                        let private = query(private).bind(user_id.as_str());
                        private.run(&mut tx.connection).await?;
                    }
                }
                let now = query("SELECT position FROM log WHERE one = 1");
                let Some(now) = now.optional(&mut tx.connection).await? else {
                    return Err(StoreError::corrupt("log", "no position"));
                };
                let at = Position(now.get(0)?);
                credentials::renew(&mut tx.connection, &user_id).await?;
                if erase {
                    let user_id = user_id.clone();
                    tx.push(Record::Erased(Erased { user_id, at }));
                }
                let ended = remove(tx, user_id, Devices::All).await?;
                Ok(Some(Closed { ended, at }))
            })
        })
        .await
    }

    /// The users whose messages are erased, and from which position on. Costs grow with them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn erased_users(&self) -> Result<HashMap<OwnedUserId, Position>, StoreError> {
        let rows = query("SELECT user_id, erased_at FROM users WHERE erased_at IS NOT NULL");
        let rows = rows.all(&self.readers).await?;
        let erased = |row: &Row| Ok((user_id(row, 0, "users")?, Position(row.get(1)?)));
        rows.iter().map(erased).collect()
    }

    /// The local users who are joined to a room that this user is joined to, and the user: who must hear of a change
    /// of the user's devices. Costs grow with the members of the user's rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn users_sharing_rooms(&self, user_id: &UserId) -> Result<Vec<OwnedUserId>, StoreError> {
        sharing_rooms(&self.readers, user_id).await
    }
}
