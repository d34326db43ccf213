//! Where readers are in the log, or in the stored events that they read before it.

use std::sync::Arc;

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;

use super::effects::Statements;
use super::{Effects, NewSetAside, ReaderId, ReaderTables, set_aside};
use crate::store::StoreError;
use crate::store::engine::{Connection, Row, query};
use crate::store::log::{Committed, LogPage, Record};
use crate::store::nodes::{Lease, check_lease};
use crate::store::rooms::events::{self, StoredEvent};

/// A reader as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReader {
    /// Which.
    pub id: ReaderId,
    /// Everything up to here is dealt with, once nothing is built any more.
    pub position: Position,
    /// Of a reader that reads the stored events first: it has dealt with those up to this number.
    pub building: Option<EventNid>,
    /// Whether it waits to be resumed.
    pub paused: bool,
    /// How often it failed in a row, until now.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// Records that it has dealt with.
    pub records: u64,
    /// Records that it went past, of those that are kept.
    pub set_aside: u64,
    /// When it moved or failed last, in milliseconds since 1970.
    pub updated_at: i64,
}

/// What a reader reads, each by a cursor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// The log, by position.
    Log,
    /// The stored events, by number: a position of this track is the number of an event.
    Stored,
}

/// The end of the track of stored events: there the reader goes on with the log.
pub const ALL_STORED: Position = Position(i64::MAX);

/// A step of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Which.
    pub id: ReaderId,
    /// Along what.
    pub track: Track,
    /// By what right.
    pub lease: Lease,
    /// Where it stands.
    pub from: Position,
    /// Where it stands afterwards.
    pub to: Position,
    /// Records between.
    pub records: u64,
    /// The time, in milliseconds since 1970.
    pub now: i64,
}

impl ReaderTables {
    /// A reader as it is stored. One that never was begins at `begins`, with the stored events after `building` before it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(
        &self,
        id: &ReaderId,
        begins: Position,
        building: Option<EventNid>,
        now: i64,
    ) -> Result<StoredReader, StoreError> {
        if let Some(stored) = self.get(id).await? {
            return Ok(stored);
        }
        let new = id.clone();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let insert = query(
                    "INSERT INTO readers \
                     (name, shard, position, paused, failures, last_error, records, updated_at, building) \
                     VALUES ($1, $2, $3, 0, 0, NULL, 0, $4, $5) ON CONFLICT (name, shard) DO NOTHING",
                );
                let insert = insert.bind(&*new.name).bind(i64::from(new.shard));
                let insert = insert.bind(begins.0).bind(now).bind(building.map(|nid| nid.0));
                insert.run(&mut tx.connection).await
            })
        });
        work.await?;
        let stored = self.get(id).await?;
        stored.ok_or_else(|| StoreError::corrupt("readers", "a reader that was stored is not there"))
    }

    /// A reader as it is stored, if it ever was.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn get(&self, id: &ReaderId) -> Result<Option<StoredReader>, StoreError> {
        let row = query(
            "SELECT name, shard, position, paused, failures, last_error, records, updated_at, \
             (SELECT COUNT(*) FROM readers_set_aside AS s WHERE s.name = readers.name AND s.shard = readers.shard), building \
             FROM readers WHERE name = $1 AND shard = $2",
        );
        let row = row.bind(&*id.name).bind(i64::from(id.shard));
        row.optional(&self.readers).await?.as_ref().map(read).transpose()
    }

    /// All readers that ever were, by name and shard.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all(&self) -> Result<Vec<StoredReader>, StoreError> {
        let rows = query(
            "SELECT name, shard, position, paused, failures, last_error, records, updated_at, \
             (SELECT COUNT(*) FROM readers_set_aside AS s WHERE s.name = readers.name AND s.shard = readers.shard), building \
             FROM readers ORDER BY name, shard",
        );
        rows.all(&self.readers).await?.iter().map(read).collect()
    }

    /// Moves a cursor on and stores the effects of what was read, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::CursorMoved`] when the cursor stands elsewhere or is paused; or what the
    /// database says to the effects.
    pub async fn advance(&self, step: Advance, effects: Effects) -> Result<(), StoreError> {
        let Effects { records, statements } = effects;
        if records.is_empty() {
            let work = self.log.transact_unlogged(move |tx| {
                Box::pin(async move { advance_with(&mut tx.connection, &step, statements).await })
            });
            return work.await;
        }
        let work = self.log.transact(move |tx| {
            Box::pin(async move {
                advance_with(&mut tx.connection, &step, statements).await?;
                records.into_iter().for_each(|record| tx.push(record));
                Ok(())
            })
        });
        work.await
    }

    /// Moves a cursor past what stands at the end of the step, and keeps in mind what that was. False, and the reader is
    /// paused where it stands, when it has gone past as much as it may.
    ///
    /// # Errors
    /// As [`ReaderTables::advance`].
    pub async fn go_past(&self, step: Advance, record: NewSetAside) -> Result<bool, StoreError> {
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let has_gone = set_aside::has_room(connection, &step.id).await?;
                if has_gone {
                    advance(connection, &step).await?;
                    set_aside::keep(connection, &step, record).await?;
                } else {
                    let why = format!("too many records are set aside; the next one: {}", record.why);
                    pause_for(connection, &step, why).await?;
                }
                check_lease(connection, &step.lease).await?;
                Ok(has_gone)
            })
        });
        work.await
    }

    /// Notes that a reader has failed so many times in a row where it stands.
    ///
    /// # Errors
    /// As [`ReaderTables::advance`].
    pub async fn note_failure(&self, at: Advance, failures: u32, why: String) -> Result<(), StoreError> {
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query(match at.track {
                    Track::Log => {
                        "UPDATE readers SET failures = $4, last_error = $5, updated_at = $6 \
                         WHERE name = $1 AND shard = $2 AND position = $3"
                    }
                    Track::Stored => {
                        "UPDATE readers SET failures = $4, last_error = $5, updated_at = $6 \
                         WHERE name = $1 AND shard = $2 AND building = $3"
                    }
                });
                let update = update.bind(&*at.id.name).bind(i64::from(at.id.shard));
                let update = update.bind(at.from.0).bind(i64::from(failures));
                update.bind(why).bind(at.now).run(&mut tx.connection).await?;
                check_lease(&mut tx.connection, &at.lease).await
            })
        });
        work.await
    }

    /// Has a reader that cannot go on stop where it stands, until somebody resumes it.
    ///
    /// # Errors
    /// As [`ReaderTables::advance`].
    pub async fn rest(&self, at: Advance, why: String) -> Result<(), StoreError> {
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                pause_for(&mut tx.connection, &at, why).await?;
                check_lease(&mut tx.connection, &at.lease).await
            })
        });
        work.await
    }

    /// Has a reader stop where it stands, or go on from there with its failures forgotten. False where there is none.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_paused(&self, id: &ReaderId, paused: bool) -> Result<bool, StoreError> {
        let id = id.clone();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update =
                    query("UPDATE readers SET paused = $3, failures = 0 WHERE name = $1 AND shard = $2");
                let update = update.bind(&*id.name).bind(i64::from(id.shard)).bind(paused);
                Ok(update.execute(&mut tx.connection).await? == 1)
            })
        });
        work.await
    }

    /// Moves a cursor back, so that everything after the position is read again, what was set aside there included; and
    /// forward, past what is then never read, where `may_skip` says so. Who was reading the stored events begins with
    /// them again. False where nothing has moved.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn rewind(&self, id: &ReaderId, to: Position, may_skip: bool) -> Result<bool, StoreError> {
        let id = id.clone();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = match may_skip {
                    true => query(
                        "UPDATE readers SET position = $3, failures = 0, building = building * 0 \
                         WHERE name = $1 AND shard = $2",
                    ),
                    false => query(
                        "UPDATE readers SET position = $3, failures = 0, building = building * 0 \
                         WHERE name = $1 AND shard = $2 AND position >= $3",
                    ),
                };
                let update = update.bind(&*id.name).bind(i64::from(id.shard)).bind(to.0);
                let has_moved = update.execute(&mut tx.connection).await? == 1;
                if has_moved {
                    set_aside::forget_after(&mut tx.connection, &id, to).await?;
                }
                Ok(has_moved)
            })
        });
        work.await
    }

    /// Has a reader read all stored events, and then follow the log from `newest`, the position at which the log stands or
    /// stood. Nothing happens where its cursor has moved past `at`, or it reads them already.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], or when it was not stored.
    pub async fn begin_building(&self, at: Advance, newest: Position) -> Result<(), StoreError> {
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query(
                    "UPDATE readers SET position = $4, building = 0, failures = 0, updated_at = $5 \
                     WHERE name = $1 AND shard = $2 AND position <= $3 AND building IS NULL AND paused = 0",
                );
                let update = update.bind(&*at.id.name).bind(i64::from(at.id.shard));
                let update = update.bind(at.to.0).bind(newest.0).bind(at.now);
                update.run(&mut tx.connection).await?;
                check_lease(&mut tx.connection, &at.lease).await
            })
        });
        work.await
    }

    /// The stored events after a number, by number, as if they stood in a log of their own; `limit` at most. The page ends at
    /// [`ALL_STORED`] where there are no more. Costs grow with `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stored_events(&self, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        let events = events::after_nid(&self.readers, EventNid(after.0), limit).await?;
        let last = events.last().map(|stored| Position(stored.nid.0));
        let is_full = events.len() >= limit;
        let record = |stored: Arc<StoredEvent>| Committed {
            position: Position(stored.nid.0),
            record: Record::Event(stored),
        };
        Ok(LogPage {
            end: last.filter(|_| is_full).unwrap_or(ALL_STORED),
            records: events.into_iter().map(record).collect(),
            moved_rooms: Vec::new(),
        })
    }

    /// Forgets the readers of a name, and what they went past. False where there are none.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let aside = query("DELETE FROM readers_set_aside WHERE name = $1").bind(&name);
                aside.run(&mut tx.connection).await?;
                let readers = query("DELETE FROM readers WHERE name = $1").bind(&name);
                Ok(readers.execute(&mut tx.connection).await? > 0)
            })
        });
        work.await
    }

    /// Where the reader stands that is furthest behind: what the log must not lose after. None where there are none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn furthest_behind(&self) -> Result<Option<Position>, StoreError> {
        let row = query("SELECT MIN(position) FROM readers");
        let row = row.optional(&self.readers).await?;
        let position = row.map_or(Ok(None), |row| row.get::<Option<i64>>(0))?;
        Ok(position.map(Position))
    }
}

/// Moves a cursor and does what goes with it, within a transaction of whoever calls.
///
/// # Errors
/// As [`ReaderTables::advance`].
async fn advance_with(
    connection: &mut Connection,
    step: &Advance,
    statements: Vec<Statements>,
) -> Result<(), StoreError> {
    advance(connection, step).await?;
    for statements in statements {
        statements(connection).await?;
    }
    // Last, so that whoever wants the lease waits for as short a time as can be.
    check_lease(connection, &step.lease).await
}

/// Moves a cursor within a transaction, from where it stands and no further than that.
///
/// # Errors
/// [`StoreError::CursorMoved`] when it stands elsewhere or is paused.
async fn advance(connection: &mut Connection, step: &Advance) -> Result<(), StoreError> {
    let update = query(match step.track {
        Track::Log => {
            "UPDATE readers SET position = $4, failures = 0, records = records + $5, updated_at = $6 \
             WHERE name = $1 AND shard = $2 AND position = $3 AND building IS NULL AND paused = 0"
        }
        Track::Stored => {
            "UPDATE readers SET building = $4, failures = 0, records = records + $5, updated_at = $6 \
             WHERE name = $1 AND shard = $2 AND building = $3 AND paused = 0"
        }
    });
    let update = update.bind(&*step.id.name).bind(i64::from(step.id.shard));
    let is_over = step.track == Track::Stored && step.to == ALL_STORED;
    let update = update.bind(step.from.0).bind((!is_over).then_some(step.to.0));
    let update = update
        .bind(i64::try_from(step.records).unwrap_or(i64::MAX))
        .bind(step.now);
    if step.to < step.from || update.execute(connection).await? == 0 {
        return Err(StoreError::CursorMoved(step.id.to_string()));
    }
    Ok(())
}

/// Pauses a reader within a transaction, if it stands where the step begins.
async fn pause_for(connection: &mut Connection, at: &Advance, why: String) -> Result<(), StoreError> {
    let update = query(match at.track {
        Track::Log => {
            "UPDATE readers SET paused = 1, last_error = $4, updated_at = $5 \
             WHERE name = $1 AND shard = $2 AND position = $3"
        }
        Track::Stored => {
            "UPDATE readers SET paused = 1, last_error = $4, updated_at = $5 \
             WHERE name = $1 AND shard = $2 AND building = $3"
        }
    });
    let update = update
        .bind(&*at.id.name)
        .bind(i64::from(at.id.shard))
        .bind(at.from.0);
    update.bind(why).bind(at.now).run(connection).await
}

fn read(row: &Row) -> Result<StoredReader, StoreError> {
    let shard = u32::try_from(row.get::<i64>(1)?).map_err(|error| StoreError::corrupt("readers", error))?;
    Ok(StoredReader {
        id: ReaderId {
            name: row.get::<String>(0)?.into(),
            shard,
        },
        position: Position(row.get(2)?),
        paused: row.get(3)?,
        failures: u32::try_from(row.get::<i64>(4)?).unwrap_or(u32::MAX),
        last_error: row.get(5)?,
        records: row.get::<i64>(6)?.unsigned_abs(),
        updated_at: row.get(7)?,
        set_aside: row.get::<i64>(8)?.unsigned_abs(),
        building: row.get::<Option<i64>>(9)?.map(EventNid),
    })
}
