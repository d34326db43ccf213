//! Devices and keys of users of other servers, as their servers gave them last.
//!
//! A list holds while nothing says otherwise: it was asked for after the newest word of a change, and its user has shared
//! a room with a user of this server without a break since then, so that word of a change would have come.

use std::collections::HashMap;

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, ServerName};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::federation::FederationTables;

/// The devices and keys of a user of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDeviceList {
    /// The user.
    pub user_id: OwnedUserId,
    /// Grows with every change, by the count of the user's server.
    pub version: i64,
    /// What the server gave, as JSON of the reader's own making.
    pub json: String,
}

static UPSERT: Insert = Insert {
    table: "remote_device_lists",
    columns: &[
        ("user_id", Kind::Text),
        ("server_name", Kind::Text),
        ("version", Kind::Int),
        ("asked_at", Kind::Int),
        ("json", Kind::Text),
    ],
    // Of two answers that crossed, the newer one stays; after doubt any answer is better.
    on_conflict: "ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, asked_at = excluded.asked_at, \
                  json = excluded.json WHERE remote_device_lists.asked_at = 0 OR \
                  excluded.version >= remote_device_lists.version",
};

/// Puts all lists of a server in doubt: it has lost its log, and with it what it had to tell.
pub(in crate::store) async fn doubt(
    connection: &mut Connection,
    server_name: &str,
) -> Result<(), StoreError> {
    let update = query("UPDATE remote_device_lists SET asked_at = 0 WHERE server_name = $1");
    update.bind(server_name).run(connection).await
}

impl FederationTables {
    /// The lists of these users that are here, each with whether it holds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn remote_device_lists(
        &self,
        users: Vec<String>,
    ) -> Result<HashMap<OwnedUserId, (RemoteDeviceList, bool)>, StoreError> {
        let rows = query(
            "SELECT r.user_id, r.version, r.json, CAST(CASE WHEN \
               r.asked_at >= COALESCE((SELECT d.position FROM device_lists AS d WHERE d.user_id = r.user_id), 0) \
               AND EXISTS (SELECT 1 FROM memberships AS theirs \
                 JOIN memberships AS ours ON ours.room = theirs.room AND ours.membership = 'join' \
                   AND ours.position <= r.asked_at \
                 JOIN users ON users.user_id = ours.user_id \
                 WHERE theirs.user_id = r.user_id AND theirs.membership = 'join' AND theirs.position <= r.asked_at) \
             THEN 1 ELSE 0 END AS BIGINT) FROM remote_device_lists AS r WHERE r.user_id = ANY($1)",
        );
        let read = |row: &Row| {
            let user_id: OwnedUserId = row
                .get::<String>(0)?
                .try_into()
                .map_err(|error| StoreError::corrupt("remote_device_lists", error))?;
            let list = RemoteDeviceList {
                user_id: user_id.clone(),
                version: row.get(1)?,
                json: row.get(2)?,
            };
            Ok((user_id, (list, row.get::<i64>(3)? == 1)))
        };
        let rows = rows.bind(users).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Keeps what a server answered about its users when this server's log stood at `asked_at`.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_remote_device_lists(
        &self,
        server_name: &ServerName,
        lists: Vec<RemoteDeviceList>,
        asked_at: Position,
    ) -> Result<(), StoreError> {
        let server_name = server_name.to_string();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let rows = lists.iter().map(|list| {
                        vec![
                            list.user_id.as_str().into(),
                            server_name.as_str().into(),
                            list.version.into(),
                            asked_at.0.into(),
                            list.json.as_str().into(),
                        ]
                    });
                    UPSERT.rows(&mut tx.connection, rows.collect()).await
                })
            })
            .await
    }

    /// The newest change of these users' device lists, by position; none for those without any.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_list_versions(
        &self,
        users: Vec<String>,
    ) -> Result<HashMap<OwnedUserId, Position>, StoreError> {
        let rows = query("SELECT user_id, position FROM device_lists WHERE user_id = ANY($1)").bind(users);
        let read = |row: &Row| {
            let user_id = row.get::<String>(0)?.try_into();
            let user_id = user_id.map_err(|error| StoreError::corrupt("device_lists", error))?;
            Ok((user_id, Position(row.get(1)?)))
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }
}
