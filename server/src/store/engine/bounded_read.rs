//! Reads that may take only so long: what a person looks for decides how much there is to read.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Error};

use super::{Query, READING, Readers, Row, postgres_arguments, sqlite_arguments, sqlite_text};
use crate::store::StoreError;

/// Steps of SQLite's machine after which it looks at the clock.
const STEPS: i32 = 1_000;

/// SQLite's code for a statement that was interrupted.
const INTERRUPTED: &str = "9";

/// PostgreSQL's code for a statement that was cancelled.
const CANCELLED: &str = "57014";

impl Query {
    /// All rows, or none when the database needs longer than `patience`: it stops then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(in crate::store) async fn within(
        self,
        readers: &Readers,
        patience: Duration,
    ) -> Result<Option<Vec<Row>>, StoreError> {
        let rows = match readers {
            Readers::Sqlite(pool) => self.within_on_sqlite(pool, patience).await,
            Readers::Postgres(pool) => {
                let rows = tokio::time::timeout(READING, self.within_on_postgres(pool, patience)).await;
                rows.map_err(|_| StoreError::Unavailable("it does not answer in time".into()))?
            }
        };
        match rows {
            Ok(rows) => Ok(Some(rows)),
            Err(Failed::Store(error)) => Err(error),
            Err(Failed::Database(Error::Database(error)))
                if error
                    .code()
                    .is_some_and(|code| [INTERRUPTED, CANCELLED].contains(&&*code)) =>
            {
                Ok(None)
            }
            Err(Failed::Database(error)) => Err(error.into()),
        }
    }

    async fn within_on_sqlite(self, pool: &sqlx::SqlitePool, patience: Duration) -> Result<Vec<Row>, Failed> {
        let arguments = sqlite_arguments(self.values)?;
        let mut connection = pool.acquire().await?;
        // Who waits for this holds the deadline: when that one is gone, nobody else is interrupted by it.
        let deadline = Arc::new(Instant::now() + patience);
        let watched: Weak<Instant> = Arc::downgrade(&deadline);
        let may_go_on = move || {
            watched
                .upgrade()
                .is_none_or(|deadline| Instant::now() < *deadline)
        };
        connection
            .lock_handle()
            .await?
            .set_progress_handler(STEPS, may_go_on);
        let rows = sqlx::query_with(sqlite_text(self.sql), arguments);
        let rows = rows.fetch_all(&mut *connection).await;
        connection.lock_handle().await?.remove_progress_handler();
        drop(deadline);
        Ok(rows?.into_iter().map(Row::Sqlite).collect())
    }

    async fn within_on_postgres(self, pool: &sqlx::PgPool, patience: Duration) -> Result<Vec<Row>, Failed> {
        let arguments = postgres_arguments(self.values)?;
        let mut transaction = pool.begin().await?;
        let limit = format!("SET LOCAL statement_timeout = {}", patience.as_millis().max(1));
        sqlx::raw_sql(AssertSqlSafe(limit))
            .execute(&mut *transaction)
            .await?;
        let rows = sqlx::query_with(self.sql, arguments);
        let rows = rows.fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }
}

/// Why there are no rows.
enum Failed {
    Database(Error),
    Store(StoreError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
