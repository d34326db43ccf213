//! One transaction of the log's writer: it takes its turn among the processes that share the database, stores records with
//! their positions, and commits.
//!
//! The counter row is the log's lock. On PostgreSQL several nodes write to one log, and a transaction begins by taking the row:
//! until it commits, no other node commits anything, so whoever has the turn and has read the log up to there knows all
//! there is (`spec/decisions/0007-the-counter-row-is-the-turn.md`). On SQLite the process is alone, and the beginning of the
//! transaction is the turn.

use std::future::Future;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use maru_protocol::cursor::Position;

use super::journal::{self, Commit};
use super::{Committed, apply};
use crate::observe::metrics;
use crate::store::StoreError;
use crate::store::engine::writer_connection::answered;
use crate::store::engine::{Connection, query};

/// A failed attempt to store a batch.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was stored, for sure.
    Refused(StoreError),
    /// The commit was asked for and not answered.
    Unknown(StoreError),
}

/// The right to be the next who commits, for as long as the transaction is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Where the log stands.
    pub(super) before: Position,
    /// Where the counter stands in this transaction.
    counter: Position,
    /// Since when this process has it.
    begun: Instant,
}

impl Turn {
    /// Begins a transaction and takes the turn. `known` is where the log stood when this process last looked, `positions`
    /// how many the transaction will probably take.
    ///
    /// # Errors
    /// When the database does not answer, or has lost what was committed.
    pub(super) async fn take(
        connection: &mut Connection,
        known: Position,
        positions: i64,
    ) -> Result<Self, StoreError> {
        let asked = Instant::now();
        connection.begin().await?;
        if connection.is_sqlite() {
            return Ok(Self {
                before: known,
                counter: known,
                begun: asked,
            });
        }
        let row = query("UPDATE log SET position = position + $1 WHERE one = 1 RETURNING position")
            .bind(positions)
            .optional(connection)
            .await?;
        let row = row.ok_or_else(|| StoreError::corrupt("log", "no row"))?;
        let counter = Position(row.get(0)?);
        let before = Position(counter.0 - positions);
        metrics::TURN_WAIT.observe(asked.elapsed());
        match before < known {
            true => Err(lost(before, known)),
            false => Ok(Self {
                before,
                counter,
                begun: Instant::now(),
            }),
        }
    }

    /// Stores records, which have their positions, and commits.
    pub(super) async fn finish(
        self,
        connection: &mut Connection,
        placed: &[Committed],
        commit: Commit,
    ) -> Result<(), Failure> {
        let storing = async {
            self.advance(connection, commit.last).await?;
            apply::apply(connection, placed).await?;
            journal::store(connection, commit, placed, now_ms()).await
        };
        storing.await.map_err(Failure::Refused)?;
        let (begun, is_embedded) = (Instant::now(), connection.is_sqlite());
        // A statement that SQLite refuses is none of COMMIT, whose failures are all of the disk.
        let refused = |error: &StoreError| is_embedded && !error.is_temporary();
        connection.commit().await.map_err(|error| match refused(&error) {
            true => Failure::Refused(error),
            false => Failure::Unknown(error),
        })?;
        metrics::COMMIT_TIME.observe(begun.elapsed());
        metrics::TURN_TIME.observe(self.begun.elapsed());
        Ok(())
    }

    /// Moves the counter to where the log stands after the transaction. One that stands elsewhere on SQLite, because another
    /// process has written to the file, has no number to move to, which the column refuses.
    async fn advance(self, connection: &mut Connection, last: Position) -> Result<(), StoreError> {
        if !connection.is_sqlite() && self.counter == last {
            return Ok(());
        }
        query("UPDATE log SET position = CASE WHEN position = $2 THEN $1 ELSE NULL END WHERE one = 1")
            .bind(last.0)
            .bind(self.counter.0)
            .run(connection)
            .await
    }
}

/// The database stands before what was committed: it is another one, or an older copy.
pub(super) fn lost(found: Position, known: Position) -> StoreError {
    let what = format!("the log stands at {} instead of {}", found.0, known.0);
    StoreError::corrupt("log", what)
}

/// Where the log stands after a batch. Every transaction takes at least one position, so that each has a row of the journal.
pub(super) fn last_position(placed: &[Committed], before: Position) -> Position {
    let last = placed.last().map_or(before, |committed| committed.position);
    if last == before {
        Position(before.0 + 1)
    } else {
        last
    }
}

/// Waits for a transaction. Whether one that is not answered in time was committed is not known.
pub(super) async fn finished(
    is_embedded: bool,
    transaction: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let known = answered(is_embedded, async { Ok(transaction.await) }).await;
    known.unwrap_or_else(|error| Err(Failure::Unknown(error)))
}

/// Where the log stands in the database.
pub(super) async fn position_on(connection: &mut Connection) -> Result<Position, StoreError> {
    let row = query("SELECT position FROM log").optional(connection).await?;
    Ok(Position(
        row.ok_or_else(|| StoreError::corrupt("log", "no row"))?.get(0)?,
    ))
}

/// Milliseconds since 1970. Says how old a row of the journal is, and nothing else.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
