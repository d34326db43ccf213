//! Who shares rooms with whom: what private things depend on, such as presence and device keys.

use std::collections::HashSet;

use ruma::{OwnedUserId, UserId};

use super::engine::{Connection, Row, query};
use super::{Store, StoreError};

fn read(row: &Row) -> Result<OwnedUserId, StoreError> {
    row.get::<String>(0)?
        .try_into()
        .map_err(|error| StoreError::corrupt("memberships", error))
}

/// Everybody who is in a room with the user, and the user. Costs grow with the members of the user's rooms.
pub(super) async fn everybody(
    connection: &mut Connection,
    user_id: &UserId,
) -> Result<HashSet<OwnedUserId>, StoreError> {
    let rows = query(
        "SELECT DISTINCT other.user_id FROM memberships AS own \
         JOIN memberships AS other ON other.room = own.room AND other.membership = 'join' \
         WHERE own.user_id = $1 AND own.membership = 'join'",
    );
    let rows = rows.bind(user_id.as_str()).all(connection).await?;
    let mut everybody: HashSet<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
    everybody.insert(user_id.to_owned());
    Ok(everybody)
}

impl Store {
    /// Those of the users who are in a room that `user_id` is in too. Costs grow with the rooms of `others`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sharing_rooms(
        &self,
        user_id: &UserId,
        others: Vec<String>,
    ) -> Result<HashSet<OwnedUserId>, StoreError> {
        if others.is_empty() {
            return Ok(HashSet::new());
        }
        let rows = query(
            "SELECT DISTINCT other.user_id FROM memberships AS other \
             JOIN memberships AS own ON own.room = other.room AND own.user_id = $1 AND own.membership = 'join' \
             WHERE other.user_id = ANY($2) AND other.membership = 'join'",
        );
        rows.bind(user_id.as_str())
            .bind(others)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// Whether two users are in a room together.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn share_a_room(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        Ok(!self.sharing_rooms(one, vec![other.to_string()]).await?.is_empty())
    }
}
