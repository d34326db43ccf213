//! Records that a reader could not deal with, however often it tried: it went past them, and somebody has to look.

use maru_protocol::cursor::Position;

use super::{Advance, ReaderId, ReaderTables};
use crate::store::StoreError;
use crate::store::engine::{Connection, query};

/// Records of one reader that may be set aside. One more and it pauses: what fails is then not the record.
const MOST_SET_ASIDE: i64 = 100;

/// What a reader goes past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSetAside {
    /// Where it stands in the log.
    pub position: Position,
    /// What stands at the position.
    pub records: String,
    /// What the last try said.
    pub why: String,
}

/// What a reader went past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Which reader.
    pub id: ReaderId,
    /// Where.
    pub position: Position,
    /// What stands at the position.
    pub records: String,
    /// What the last try said.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

impl ReaderTables {
    /// What the readers of a name went past, by position.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn set_aside(&self, name: &str) -> Result<Vec<SetAside>, StoreError> {
        let rows = query(
            "SELECT name, shard, position, records, why, set_aside_at FROM readers_set_aside \
             WHERE name = $1 ORDER BY shard, position",
        );
        let read = |row: &crate::store::engine::Row| {
            let shard = u32::try_from(row.get::<i64>(1)?);
            Ok(SetAside {
                id: ReaderId {
                    name: row.get::<String>(0)?.into(),
                    shard: shard.map_err(|error| StoreError::corrupt("readers_set_aside", error))?,
                },
                position: Position(row.get(2)?),
                records: row.get(3)?,
                why: row.get(4)?,
                at: row.get(5)?,
            })
        };
        let rows = rows.bind(name).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }
}

/// Whether a reader may go past one more.
pub(super) async fn has_room(connection: &mut Connection, id: &ReaderId) -> Result<bool, StoreError> {
    let count = query("SELECT COUNT(*) FROM readers_set_aside WHERE name = $1 AND shard = $2");
    let count = count.bind(&*id.name).bind(i64::from(id.shard));
    let count = count.optional(connection).await?;
    Ok(count.map_or(Ok(0), |row| row.get::<i64>(0))? < MOST_SET_ASIDE)
}

/// Keeps in mind what a step goes past.
pub(super) async fn keep(
    connection: &mut Connection,
    step: &Advance,
    record: NewSetAside,
) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO readers_set_aside (name, shard, position, records, why, set_aside_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, shard, position) DO UPDATE SET why = excluded.why, \
         set_aside_at = excluded.set_aside_at",
    );
    let insert = insert
        .bind(&*step.id.name)
        .bind(i64::from(step.id.shard))
        .bind(record.position.0);
    let insert = insert.bind(record.records).bind(record.why).bind(step.now);
    insert.run(connection).await
}

/// Forgets what was set aside after a position.
pub(super) async fn forget_after(
    connection: &mut Connection,
    id: &ReaderId,
    position: Position,
) -> Result<(), StoreError> {
    let delete = query("DELETE FROM readers_set_aside WHERE name = $1 AND shard = $2 AND position > $3");
    let delete = delete.bind(&*id.name).bind(i64::from(id.shard)).bind(position.0);
    delete.run(connection).await
}
