//! The user directory: accounts by a part of their names, and what somebody may know them by.

use std::collections::HashMap;

use ruma::{OwnedUserId, UserId};

use super::users::user_id;
use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Query, Row, query};

/// A user whom the directory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    /// The user.
    pub user_id: OwnedUserId,
    /// A JSON string.
    pub displayname: Option<String>,
    /// A JSON string.
    pub avatar_url: Option<String>,
    /// Whether a name begins with the term: such users come first.
    pub begins: bool,
}

/// Open accounts but the caller's whose names contain a term and of whose rooms, with the caller's, something is so.
macro_rules! select_users {
    ($condition:literal) => {
        concat!(
            "SELECT users.user_id, names.value, avatars.value, \
               CAST(CASE WHEN users.search_text LIKE $3 ESCAPE '\\' THEN 1 ELSE 0 END AS BIGINT) AS begins FROM users \
             LEFT JOIN profiles AS names ON names.user_id = users.user_id AND names.field = 'displayname' \
             LEFT JOIN profiles AS avatars ON avatars.user_id = users.user_id AND avatars.field = 'avatar_url' \
             WHERE users.deactivated = 0 AND users.user_id <> $2 AND users.search_text LIKE $1 ESCAPE '\\' AND ",
            $condition,
            " ( SELECT 1 FROM memberships AS theirs \
                WHERE theirs.user_id = users.user_id AND theirs.membership = 'join' AND ( \
                    EXISTS (SELECT 1 FROM rooms WHERE rooms.nid = theirs.room AND rooms.published = 1) \
                    OR EXISTS (SELECT 1 FROM memberships AS mine WHERE mine.room = theirs.room \
                               AND mine.user_id = $2 AND mine.membership = 'join'))) \
             ORDER BY begins DESC, users.user_id LIMIT $4"
        )
    };
}

fn found(row: &Row) -> Result<FoundUser, StoreError> {
    Ok(FoundUser {
        user_id: user_id(row, 0, "users")?,
        displayname: row.get(1)?,
        avatar_url: row.get(2)?,
        begins: row.get(3)?,
    })
}

fn with_term(select: &'static str, caller: &UserId, term: &str, limit: i64) -> Query {
    let escaped = term.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    query(select)
        .bind(format!("%{escaped}%"))
        .bind(caller.as_str())
        .bind(format!("{escaped}%"))
        .bind(limit)
}

impl AccountTables {
    /// Up to `limit` open accounts whose local part or display name contains `term`, which is in lower case, among
    /// those who share a room with `caller` or are in a room of the public directory. Those come first whose name
    /// begins with the term; the caller is not among them. Costs grow with the accounts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn search_users(
        &self,
        caller: &UserId,
        term: &str,
        limit: i64,
    ) -> Result<Vec<FoundUser>, StoreError> {
        let rows = with_term(select_users!("EXISTS"), caller, term, limit);
        rows.all(&self.readers).await?.iter().map(found).collect()
    }

    /// Like [`AccountTables::search_users`], among all the others.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn search_strangers(
        &self,
        caller: &UserId,
        term: &str,
        limit: i64,
    ) -> Result<Vec<FoundUser>, StoreError> {
        let rows = with_term(select_users!("NOT EXISTS"), caller, term, limit);
        rows.all(&self.readers).await?.iter().map(found).collect()
    }

    /// The rooms (rooms.nid) that some users are joined to, at most `limit` in all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn joined_rooms_of(
        &self,
        users: Vec<String>,
        limit: i64,
    ) -> Result<HashMap<OwnedUserId, Vec<i64>>, StoreError> {
        let rows = query(
            "SELECT user_id, room FROM memberships WHERE user_id = ANY($1) AND membership = 'join' \
             ORDER BY user_id, room LIMIT $2",
        );
        let mut joined: HashMap<_, Vec<_>> = HashMap::new();
        for row in &rows.bind(users).bind(limit).all(&self.readers).await? {
            let of_user = joined.entry(user_id(row, 0, "memberships")?).or_default();
            of_user.push(row.get(1)?);
        }
        Ok(joined)
    }
}
