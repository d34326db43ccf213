//! Who shares rooms with whom: what private things depend on, such as presence and device keys.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UserId};

use crate::store::StoreError;
use crate::store::accounts::users;
use crate::store::engine::{Connection, Row, query};
use crate::store::log::writer::Transaction;
use crate::store::log::{DeviceListChange, Record};
use crate::store::rooms::RoomTables;

fn read(row: &Row) -> Result<OwnedUserId, StoreError> {
    row.get::<String>(0)?
        .try_into()
        .map_err(|error| StoreError::corrupt("memberships", error))
}

/// Tells everybody who shares rooms with a user, here and on other servers, that the user's devices or keys changed.
pub(in crate::store) async fn push_device_list(
    tx: &mut Transaction,
    user_id: OwnedUserId,
) -> Result<(), StoreError> {
    let tell = users::sharing_rooms(&mut tx.connection, &user_id).await?;
    let account = query("SELECT user_id FROM users WHERE user_id = $1").bind(user_id.as_str());
    let own = account.optional(&mut tx.connection).await?.is_some();
    let servers = if own {
        servers_with(&mut tx.connection, &user_id).await?
    } else {
        Vec::new()
    };
    tx.push(Record::DeviceList(DeviceListChange {
        user_id,
        own,
        tell: tell.into(),
        for_one: false,
        servers: servers.into(),
    }));
    Ok(())
}

/// Tells `reader` that keys of a user look different to that reader alone: a signature over them is the reader's, or they
/// are the reader's own user-signing key.
pub(in crate::store) fn push_keys_for_one(tx: &mut Transaction, reader: OwnedUserId, user_id: OwnedUserId) {
    tx.push(Record::DeviceList(DeviceListChange {
        user_id,
        own: false,
        tell: [reader].into(),
        for_one: true,
        servers: [].into(),
    }));
}

/// Stores a change that one reader can see.
pub(in crate::store) async fn store_for_one(
    connection: &mut Connection,
    position: i64,
    change: &DeviceListChange,
) -> Result<(), StoreError> {
    for reader in change.tell.iter() {
        let upsert = query(
            "INSERT INTO key_changes (reader, user_id, position) VALUES ($1, $2, $3) \
             ON CONFLICT (reader, user_id) DO UPDATE SET position = excluded.position",
        );
        let upsert = upsert.bind(reader.as_str()).bind(change.user_id.as_str());
        upsert.bind(position).run(&mut *connection).await?;
    }
    Ok(())
}

/// The other servers that are in a room with a user. Costs grow with the user's rooms and their servers.
async fn servers_with(
    connection: &mut Connection,
    user_id: &UserId,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let rows = query(
        "SELECT DISTINCT i.server_name FROM memberships AS m \
         JOIN interests AS i ON i.room = m.room AND i.to_position IS NULL \
         WHERE m.user_id = $1 AND m.membership = 'join'",
    );
    let rows = rows.bind(user_id.as_str()).all(connection).await?;
    rows.iter().map(|row| server_name(row, 0)).collect()
}

fn server_name(row: &Row, index: usize) -> Result<OwnedServerName, StoreError> {
    let name = row.get::<String>(index)?.try_into();
    name.map_err(|error| StoreError::corrupt("interests", error))
}

impl RoomTables {
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

    /// Which of these users are joined to which of these rooms, by ids; the rooms' local numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn joined_in(
        &self,
        users: Vec<String>,
        rooms: Vec<String>,
    ) -> Result<HashMap<(OwnedRoomId, OwnedUserId), i64>, StoreError> {
        // Each membership is looked up by itself: PostgreSQL would read all those of the users.
        let rows = query(if self.readers.is_sqlite() {
            "SELECT m.user_id, rooms.room_id, rooms.nid FROM rooms CROSS JOIN memberships AS m \
             WHERE rooms.room_id = ANY($2) AND m.room = rooms.nid AND m.user_id = ANY($1) AND m.membership = 'join'"
        } else {
            "SELECT m.user_id, rooms.room_id, rooms.nid FROM rooms CROSS JOIN unnest($1::text[]) AS asked (user_id) \
             CROSS JOIN LATERAL (SELECT * FROM memberships AS one \
               WHERE one.room = rooms.nid AND one.user_id = asked.user_id OFFSET 0) AS m \
             WHERE rooms.room_id = ANY($2) AND m.membership = 'join'"
        });
        let joined = |row: &Row| {
            let room_id = row.get::<String>(1)?.try_into();
            let room_id = room_id.map_err(|error| StoreError::corrupt("rooms", error))?;
            Ok(((room_id, read(row)?), row.get(2)?))
        };
        let rows = rows.bind(users).bind(rooms).all(&self.readers).await?;
        rows.iter().map(joined).collect()
    }

    /// Those of the users who are in a room that a server is in too.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sharing_with_server(
        &self,
        server_name: &ServerName,
        users: Vec<String>,
    ) -> Result<HashSet<OwnedUserId>, StoreError> {
        let rows = query(
            "SELECT DISTINCT m.user_id FROM memberships AS m \
             JOIN interests AS i ON i.room = m.room AND i.server_name = $1 AND i.to_position IS NULL \
             WHERE m.user_id = ANY($2) AND m.membership = 'join'",
        );
        let rows = rows
            .bind(server_name.as_str())
            .bind(users)
            .all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// For each of the users, who need not be of this server: the users of this server who share a room of at most
    /// `members` members. Costs grow with the members of the users' rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn own_users_sharing(
        &self,
        users: Vec<String>,
        members: i64,
    ) -> Result<HashMap<OwnedUserId, Vec<OwnedUserId>>, StoreError> {
        let rows = query(
            "SELECT DISTINCT theirs.user_id, users.user_id FROM memberships AS theirs \
             JOIN room_heads AS h ON h.room = theirs.room AND h.joined <= $2 \
             JOIN memberships AS ours ON ours.room = theirs.room AND ours.membership = 'join' \
             JOIN users ON users.user_id = ours.user_id \
             WHERE theirs.user_id = ANY($1) AND theirs.membership = 'join'",
        );
        let mut sharing: HashMap<_, Vec<_>> = HashMap::new();
        for row in &rows.bind(users).bind(members).all(&self.readers).await? {
            let own = users::user_id(row, 1, "users")?;
            sharing.entry(read(row)?).or_default().push(own);
        }
        Ok(sharing)
    }

    /// For each of these peers: this server's users who share a room of at most `members` members with it. Costs grow
    /// with the members of the rooms that are shared.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn own_users_near(
        &self,
        peers: Vec<String>,
        members: i64,
    ) -> Result<HashMap<OwnedServerName, Vec<OwnedUserId>>, StoreError> {
        let rows = query(
            "SELECT DISTINCT m.user_id, i.server_name FROM interests AS i \
             JOIN room_heads AS h ON h.room = i.room AND h.joined <= $2 \
             JOIN memberships AS m ON m.room = i.room AND m.membership = 'join' \
             JOIN users ON users.user_id = m.user_id \
             WHERE i.server_name = ANY($1) AND i.to_position IS NULL",
        );
        let mut near: HashMap<_, Vec<_>> = HashMap::new();
        for row in &rows.bind(peers).bind(members).all(&self.readers).await? {
            near.entry(server_name(row, 1)?).or_default().push(read(row)?);
        }
        Ok(near)
    }

    /// The other servers in rooms of at most `members` members that a user is in. Costs grow with the user's rooms and the
    /// servers in them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn servers_near(
        &self,
        user_id: &UserId,
        members: i64,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let rows = query(
            "SELECT DISTINCT i.server_name FROM memberships AS m \
             JOIN room_heads AS h ON h.room = m.room AND h.joined <= $2 \
             JOIN interests AS i ON i.room = m.room AND i.to_position IS NULL \
             WHERE m.user_id = $1 AND m.membership = 'join'",
        );
        let rows = rows.bind(user_id.as_str()).bind(members).all(&self.readers);
        rows.await?.iter().map(|row| server_name(row, 0)).collect()
    }

    /// Whether two users are in a room together.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn share_a_room(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        Ok(!self.sharing_rooms(one, vec![other.to_string()]).await?.is_empty())
    }
}
