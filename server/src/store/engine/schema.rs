//! The schema and its versions: forward only, one text for both engines.

use super::{Connection, query};
use crate::store::StoreError;

/// The migrations in order; the schema version is how many of them have run.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/0001_first.sql"),
    include_str!("../../../migrations/0002_federation.sql"),
    include_str!("../../../migrations/0003_who_may_see.sql"),
    include_str!("../../../migrations/0004_credentials.sql"),
    include_str!("../../../migrations/0005_joined_at.sql"),
    include_str!("../../../migrations/0006_known_plans.sql"),
    include_str!("../../../migrations/0007_threads.sql"),
    include_str!("../../../migrations/0008_by_position.sql"),
    include_str!("../../../migrations/0009_waiting.sql"),
    include_str!("../../../migrations/0010_usage.sql"),
    include_str!("../../../migrations/0011_unread.sql"),
    include_str!("../../../migrations/0012_nodes.sql"),
    include_str!("../../../migrations/0013_readers.sql"),
    include_str!("../../../migrations/0014_jobs.sql"),
    include_str!("../../../migrations/0015_commits.sql"),
    include_str!("../../../migrations/0016_media_arrivals.sql"),
    include_str!("../../../migrations/0017_node_links.sql"),
    include_str!("../../../migrations/0018_search.sql"),
    include_str!("../../../migrations/0019_key_backups.sql"),
    include_str!("../../../migrations/0020_sliding_sync.sql"),
    include_str!("../../../migrations/0021_oauth.sql"),
    include_str!("../../../migrations/0022_reports.sql"),
    include_str!("../../../migrations/0023_appservices.sql"),
];

/// The oldest program (by the schema version it was made for) that can use a database of the newest version.
const READABLE_BY: i64 = 17;

/// The index of full-text search on SQLite. Rows are numbered by the times of their events. The texts are not kept, and not
/// where in them a word stands; words come separated by spaces, and are not to be changed.
const SQLITE_SEARCH_INDEX: &str = "CREATE VIRTUAL TABLE search_index USING fts5 \
    (words, event UNINDEXED, room UNINDEXED, tokenize = 'ascii', detail = 'none', \
    content = '', contentless_delete = 1, contentless_unindexed = 1)";

/// The index of full-text search on PostgreSQL. What is new waits in a short list, which every search reads. What many events
/// have is found by walking them from the newest.
const POSTGRES_SEARCH_INDEX: &str = "CREATE TABLE search_index \
    (event BIGINT PRIMARY KEY, room BIGINT NOT NULL, sent_at BIGINT NOT NULL, words TSVECTOR NOT NULL); \
    CREATE INDEX search_index_by_word ON search_index USING GIN (words) WITH (gin_pending_list_limit = 512); \
    CREATE INDEX search_index_by_time ON search_index (sent_at, event)";

/// The schema version that this program makes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Whether the database is not of this program's version yet.
pub(in crate::store) async fn is_pending(connection: &mut Connection) -> Result<bool, StoreError> {
    let tables = "SELECT COUNT(*) FROM information_schema.tables \
                  WHERE table_name = 'schema' AND table_schema = current_schema()";
    let row = query(tables).optional(&mut *connection).await?;
    if row.map_or(Ok(0), |row| row.get::<i64>(0))? == 0 {
        return Ok(true);
    }
    let row = query("SELECT version FROM schema").optional(connection).await?;
    Ok(row.map_or(Ok(0), |row| row.get::<i64>(0))? < VERSION)
}

/// Brings the database up to this program's version, each migration in its own transaction.
///
/// # Errors
/// [`StoreError::Newer`] when a newer program has changed the database so that this one cannot read it.
pub(in crate::store) async fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let meta = "CREATE TABLE IF NOT EXISTS schema (one {int} PRIMARY KEY CHECK (one = 1), version {int} NOT NULL, \
                readable_by {int} NOT NULL){plain}";
    connection.run(&fill(meta, connection.is_sqlite())).await?;
    let row = query("SELECT version, readable_by FROM schema")
        .optional(&mut *connection)
        .await?;
    let (version, readable_by) = match &row {
        Some(row) => (row.get::<i64>(0)?, row.get::<i64>(1)?),
        None => (0, 0),
    };
    if readable_by > VERSION {
        return Err(StoreError::Newer {
            found: version,
            known: VERSION,
        });
    }
    for (done, migration) in (0_i64..)
        .zip(MIGRATIONS)
        .skip(usize::try_from(version).unwrap_or(usize::MAX))
    {
        connection.begin().await?;
        let applied = apply(connection, migration, done + 1).await;
        match applied {
            Ok(()) => connection.commit().await?,
            Err(error) => {
                connection.rollback().await?;
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn apply(connection: &mut Connection, migration: &str, version: i64) -> Result<(), StoreError> {
    let text = fill(migration, connection.is_sqlite());
    connection.run(&text).await?;
    query(
        "INSERT INTO schema (one, version, readable_by) VALUES (1, $1, $2) \
         ON CONFLICT (one) DO UPDATE SET version = excluded.version, readable_by = excluded.readable_by",
    )
    .bind(version)
    .bind(READABLE_BY)
    .execute(connection)
    .await?;
    Ok(())
}

/// Sortable text compares by bytes on both engines.
fn fill(text: &str, sqlite: bool) -> String {
    let names = if sqlite {
        [
            ("{int}", "INTEGER"),
            ("{text}", "TEXT"),
            ("{blob}", "BLOB"),
            ("{plain}", " STRICT"),
            ("{clustered}", " STRICT, WITHOUT ROWID"),
            ("{search_index}", SQLITE_SEARCH_INDEX),
        ]
    } else {
        [
            ("{int}", "BIGINT"),
            ("{text}", "TEXT COLLATE \"C\""),
            ("{blob}", "BYTEA"),
            ("{plain}", ""),
            ("{clustered}", ""),
            ("{search_index}", POSTGRES_SEARCH_INDEX),
        ]
    };
    names
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}
