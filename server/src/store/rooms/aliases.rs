//! Aliases of this server: table `aliases`.

use ruma::{OwnedRoomAliasId, OwnedUserId, RoomAliasId};

use super::room::{StoredRoom, read_room};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::log::{Change, Record};
use crate::store::rooms::RoomTables;

/// A name for a room.
#[derive(Clone, Debug)]
pub struct NewAlias {
    /// The name.
    pub alias: OwnedRoomAliasId,
    /// The room (rooms.nid).
    pub room: i64,
    /// Who made it.
    pub creator: OwnedUserId,
}

static INSERT: Insert = Insert {
    table: "aliases",
    columns: &[
        ("alias", Kind::Text),
        ("room", Kind::Int),
        ("creator", Kind::Text),
    ],
    on_conflict: "",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    aliases: Vec<&NewAlias>,
) -> Result<(), StoreError> {
    let rows = aliases.into_iter().map(|alias| {
        vec![
            alias.alias.as_str().into(),
            alias.room.into(),
            alias.creator.as_str().into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

impl RoomTables {
    /// The room that an alias names.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_of_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<Option<(StoredRoom, OwnedUserId)>, StoreError> {
        let row = query(
            "SELECT rooms.nid, rooms.room_id, rooms.version, rooms.published, aliases.creator \
             FROM aliases JOIN rooms ON rooms.nid = aliases.room WHERE aliases.alias = $1",
        );
        let Some(row) = row.bind(alias.as_str()).optional(&self.readers).await? else {
            return Ok(None);
        };
        let creator = row
            .get::<String>(4)?
            .try_into()
            .map_err(|error| StoreError::corrupt("aliases", error))?;
        Ok(Some((read_room(&row)?, creator)))
    }

    /// The aliases of a room on this server.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn aliases_of(&self, room: i64) -> Result<Vec<OwnedRoomAliasId>, StoreError> {
        let rows = query("SELECT alias FROM aliases WHERE room = $1 ORDER BY alias")
            .bind(room)
            .all(&self.readers);
        let alias = |row: &Row| {
            row.get::<String>(0)?
                .try_into()
                .map_err(|error| StoreError::corrupt("aliases", error))
        };
        rows.await?.iter().map(alias).collect()
    }

    /// The aliases of rooms on this server, each with its room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn aliases_of_rooms(&self, rooms: Vec<i64>) -> Result<Vec<(i64, String)>, StoreError> {
        let rows = query("SELECT room, alias FROM aliases WHERE room = ANY($1)")
            .bind(rooms)
            .all(&self.readers);
        let read = |row: &Row| Ok((row.get(0)?, row.get(1)?));
        rows.await?.iter().map(read).collect()
    }

    /// Stores an alias.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is taken.
    pub async fn add_alias(&self, alias: NewAlias) -> Result<(), StoreError> {
        self.log
            .append(Change::new(vec![Record::Alias(alias)]))
            .await
            .map(drop)
    }

    /// Removes an alias; whether it was there.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove_alias(&self, alias: &RoomAliasId) -> Result<bool, StoreError> {
        let alias = alias.to_string();
        self.log
            .transact(|tx| {
                Box::pin(async move {
                    let removed = query("DELETE FROM aliases WHERE alias = $1")
                        .bind(alias)
                        .execute(&mut tx.connection);
                    Ok(removed.await? > 0)
                })
            })
            .await
    }

    /// Makes all aliases of a room name another one.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn move_aliases(&self, from: i64, to: i64) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let update = query("UPDATE aliases SET room = $1 WHERE room = $2")
                        .bind(to)
                        .bind(from);
                    update.run(&mut tx.connection).await
                })
            })
            .await
    }
}
