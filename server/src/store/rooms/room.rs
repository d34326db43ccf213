//! Rooms that this server knows: table `rooms`.

use ruma::{OwnedRoomId, RoomId};

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, Row, query};
use crate::store::rooms::RoomTables;

/// A room that is new to this server.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// Its local number.
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version, as in `m.room.create`.
    pub version: String,
    /// Whether it is listed in the public directory.
    pub published: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// A room as it is read back.
#[derive(Clone, Debug)]
pub struct StoredRoom {
    /// Its local number.
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: String,
    /// Whether it is listed in the public directory.
    pub published: bool,
}

static INSERT: Insert = Insert {
    table: "rooms",
    columns: &[
        ("nid", Kind::Int),
        ("room_id", Kind::Text),
        ("version", Kind::Text),
        ("published", Kind::Int),
        ("created_at", Kind::Int),
    ],
    on_conflict: "",
};

pub(in crate::store) async fn store(
    connection: &mut Connection,
    rooms: Vec<&NewRoom>,
) -> Result<(), StoreError> {
    let rows = rooms.into_iter().map(|room| {
        vec![
            room.nid.into(),
            room.room_id.as_str().into(),
            room.version.as_str().into(),
            room.published.into(),
            room.created_at.into(),
        ]
    });
    INSERT.rows(connection, rows.collect()).await
}

pub(super) fn read_room(row: &Row) -> Result<StoredRoom, StoreError> {
    Ok(StoredRoom {
        nid: row.get(0)?,
        room_id: row
            .get::<String>(1)?
            .try_into()
            .map_err(|error| StoreError::corrupt("rooms", error))?,
        version: row.get(2)?,
        published: row.get(3)?,
    })
}

impl RoomTables {
    /// A room by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room(&self, room_id: &RoomId) -> Result<Option<StoredRoom>, StoreError> {
        let row = query("SELECT nid, room_id, version, published FROM rooms WHERE room_id = $1")
            .bind(room_id.as_str());
        row.optional(&self.readers)
            .await?
            .as_ref()
            .map(read_room)
            .transpose()
    }

    /// A room by its local number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn room_by_nid(&self, nid: i64) -> Result<Option<StoredRoom>, StoreError> {
        Ok(self.rooms_by_nid(vec![nid]).await?.pop())
    }

    /// Rooms by their local numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rooms_by_nid(&self, nids: Vec<i64>) -> Result<Vec<StoredRoom>, StoreError> {
        let rows = query("SELECT nid, room_id, version, published FROM rooms WHERE nid = ANY($1)").bind(nids);
        rows.all(&self.readers).await?.iter().map(read_room).collect()
    }

    /// The rooms listed in the public directory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn published_rooms(&self) -> Result<Vec<StoredRoom>, StoreError> {
        let rows =
            query("SELECT nid, room_id, version, published FROM rooms WHERE published = 1 ORDER BY nid");
        rows.all(&self.readers).await?.iter().map(read_room).collect()
    }

    /// Lists a room in the public directory, or takes it out.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_published(&self, room: i64, published: bool) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let update = query("UPDATE rooms SET published = $1 WHERE nid = $2")
                        .bind(published)
                        .bind(room);
                    update.run(&mut tx.connection).await
                })
            })
            .await
    }
}
