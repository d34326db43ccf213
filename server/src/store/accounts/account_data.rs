//! Account data: a user's private settings, global or of one room. Tags, push rules and read markers are account data
//! too.

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::log::Record;
use crate::store::log::writer::Transaction;

/// The room number of global account data.
pub const GLOBAL: i64 = 0;

/// One piece of a user's account data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountData {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The room (rooms.nid), or [`GLOBAL`].
    pub room: i64,
    /// For example `m.direct`.
    pub data_type: String,
    /// A JSON object.
    pub content: String,
}

/// What a user may have.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Pieces.
    pub items: i64,
    /// Bytes of their contents and types.
    pub bytes: i64,
}

impl Quota {
    /// For what the server writes for the user: it is counted, and never refused.
    pub const NONE: Self = Self {
        items: i64::MAX,
        bytes: i64::MAX,
    };
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Stored,
    /// The user would have more than the quota, and more than before.
    OverQuota,
}

/// How much a user has.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    items: i64,
    bytes: i64,
}

impl Usage {
    fn of(data_type: &str, content: Option<&str>) -> Self {
        content.map_or_else(Self::default, |content| Self {
            items: 1,
            bytes: i64::try_from(data_type.len() + content.len()).unwrap_or(i64::MAX),
        })
    }

    fn change(self, before: Self, after: Self) -> Self {
        Self {
            items: self.items - before.items + after.items,
            bytes: self.bytes - before.bytes + after.bytes,
        }
    }

    /// Whether it is within a quota, or has not grown.
    fn is_allowed(self, before: Self, quota: Quota) -> bool {
        (self.items <= quota.items || self.items <= before.items)
            && (self.bytes <= quota.bytes || self.bytes <= before.bytes)
    }
}

static UPSERT: Insert = Insert {
    table: "account_data",
    columns: &[
        ("user_id", Kind::Text),
        ("room", Kind::Int),
        ("type", Kind::Text),
        ("content", Kind::Text),
        ("position", Kind::Int),
    ],
    on_conflict: "ON CONFLICT (user_id, room, type) DO UPDATE SET content = excluded.content, \
                  position = excluded.position",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    data: Vec<(i64, &AccountData)>,
) -> Result<(), StoreError> {
    let rows = data.into_iter().map(|(position, data)| {
        vec![
            data.user_id.as_str().into(),
            data.room.into(),
            data.data_type.as_str().into(),
            data.content.as_str().into(),
            position.into(),
        ]
    });
    UPSERT.rows(connection, rows.collect()).await
}

fn read(row: &Row) -> Result<AccountData, StoreError> {
    Ok(AccountData {
        user_id: row
            .get::<String>(0)?
            .try_into()
            .map_err(|error| StoreError::corrupt("account_data", error))?,
        room: row.get(1)?,
        data_type: row.get(2)?,
        content: row.get(3)?,
    })
}

impl AccountTables {
    /// One piece of account data.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_data(
        &self,
        user_id: &UserId,
        room: i64,
        data_type: &str,
    ) -> Result<Option<AccountData>, StoreError> {
        let row = query(
            "SELECT user_id, room, type, content FROM account_data WHERE user_id = $1 AND room = $2 AND type = $3",
        );
        let row = row
            .bind(user_id.as_str())
            .bind(room)
            .bind(data_type)
            .optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A user's account data, global and of all rooms, that changed after a position (`None` for all).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_data_after(
        &self,
        user_id: &UserId,
        after: Option<Position>,
    ) -> Result<Vec<AccountData>, StoreError> {
        let rows = query(
            "SELECT user_id, room, type, content FROM account_data WHERE user_id = $1 AND position > $2 \
             ORDER BY position",
        );
        let after = after.map_or(0, |position| position.0);
        rows.bind(user_id.as_str())
            .bind(after)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// A user's account data of one type, of all rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_data_of_type(
        &self,
        user_id: &UserId,
        data_type: &str,
    ) -> Result<Vec<AccountData>, StoreError> {
        let rows = query(
            "SELECT user_id, room, type, content FROM account_data WHERE user_id = $1 AND type = $2 AND room <> 0",
        );
        rows.bind(user_id.as_str())
            .bind(data_type)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// The account data of one type of several users (for example everybody's push rules).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_data_of(
        &self,
        users: Vec<String>,
        room: i64,
        data_type: &str,
    ) -> Result<Vec<AccountData>, StoreError> {
        let rows = query(
            "SELECT user_id, room, type, content FROM account_data \
             WHERE user_id = ANY($1) AND room = $2 AND type = $3",
        );
        rows.bind(users)
            .bind(room)
            .bind(data_type)
            .all(&self.readers)
            .await?
            .iter()
            .map(read)
            .collect()
    }

    /// The users who have push rules or a list of ignored users stored, with the rooms (rooms.nid) that they are joined to; none for a user without
    /// rooms. Read once, at the start: costs grow with the users and their rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn owners_of_push_rules(&self) -> Result<Vec<(OwnedUserId, Option<i64>)>, StoreError> {
        let rows = query(
            "SELECT DISTINCT a.user_id, m.room FROM account_data AS a \
             LEFT JOIN memberships AS m ON m.user_id = a.user_id AND m.membership = 'join' \
             WHERE a.type IN ('m.push_rules', 'm.ignored_user_list') AND a.room = 0",
        );
        let read = |row: &Row| {
            let user_id = row.get::<String>(0)?.try_into();
            let user_id = user_id.map_err(|error| StoreError::corrupt("account_data", error))?;
            Ok((user_id, row.get(1)?))
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// Stores a piece of account data within a quota.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_account_data(&self, data: AccountData, quota: Quota) -> Result<Written, StoreError> {
        self.log
            .transact(move |tx| Box::pin(async move { write_within(tx, data, quota).await }))
            .await
    }

    /// Changes one piece of account data by what it is now, so that two changes at once both count; within a quota, where
    /// there is one. When `change` refuses, nothing is stored and its refusal is returned.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn change_account_data<E: Send + 'static>(
        &self,
        user_id: &UserId,
        room: i64,
        data_type: &'static str,
        quota: Option<Quota>,
        change: impl FnOnce(Option<String>) -> Result<String, E> + Send + 'static,
    ) -> Result<Result<Written, E>, StoreError> {
        let user_id = user_id.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let now = content_now(&mut tx.connection, &user_id, room, data_type).await?;
                    let content = match change(now) {
                        Ok(content) => content,
                        Err(refusal) => return Ok(Err(refusal)),
                    };
                    let data = AccountData {
                        user_id,
                        room,
                        data_type: data_type.to_owned(),
                        content,
                    };
                    match quota {
                        Some(quota) => write_within(tx, data, quota).await.map(Ok),
                        None => {
                            tx.push(Record::AccountData(data));
                            Ok(Ok(Written::Stored))
                        }
                    }
                })
            })
            .await
    }
}

async fn content_now(
    connection: &mut Connection,
    user_id: &UserId,
    room: i64,
    data_type: &str,
) -> Result<Option<String>, StoreError> {
    let now = query("SELECT content FROM account_data WHERE user_id = $1 AND room = $2 AND type = $3");
    let now = now.bind(user_id.as_str()).bind(room).bind(data_type);
    now.optional(connection).await?.map(|row| row.get(0)).transpose()
}

/// Writes a piece and counts it.
async fn write_within(tx: &mut Transaction, data: AccountData, quota: Quota) -> Result<Written, StoreError> {
    let user_id = data.user_id.as_str();
    let now = content_now(&mut tx.connection, &data.user_id, data.room, &data.data_type).await?;
    let used = query("SELECT items, bytes FROM account_data_usage WHERE user_id = $1").bind(user_id);
    let used = match used.optional(&mut tx.connection).await? {
        Some(row) => Usage {
            items: row.get(0)?,
            bytes: row.get(1)?,
        },
        None => Usage::default(),
    };
    let after = used.change(
        Usage::of(&data.data_type, now.as_deref()),
        Usage::of(&data.data_type, Some(&data.content)),
    );
    if !after.is_allowed(used, quota) {
        return Ok(Written::OverQuota);
    }
    query(
        "INSERT INTO account_data_usage (user_id, items, bytes) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO UPDATE SET items = excluded.items, bytes = excluded.bytes",
    )
    .bind(user_id)
    .bind(after.items)
    .bind(after.bytes)
    .run(&mut tx.connection)
    .await?;
    tx.push(Record::AccountData(data));
    Ok(Written::Stored)
}

#[cfg(test)]
mod tests {
    use crate::store::accounts::account_data::*;

    #[test]
    fn who_has_too_much_may_only_have_less() {
        let quota = Quota { items: 2, bytes: 10 };
        let used = |items, bytes| Usage { items, bytes };
        assert!(used(2, 10).is_allowed(used(1, 5), quota));
        assert!(!used(3, 10).is_allowed(used(2, 5), quota));
        assert!(!used(2, 11).is_allowed(used(2, 10), quota));
        assert!(used(5, 20).is_allowed(used(5, 21), quota));
        assert!(!used(5, 21).is_allowed(used(5, 20), quota));
    }
}
