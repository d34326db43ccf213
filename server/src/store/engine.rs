//! The two databases behind one face: connections, values, rows, and the few places where their SQL differs.
//!
//! SQL is written once, in PostgreSQL's spelling with `$1` placeholders. Two constructs differ and are translated
//! or generated here: sets of keys (`= ANY($1)`) and the insertion of many rows.
//!
//! Over 500 lines, because both engines' halves of every call stand side by side: a difference between them is seen here or
//! nowhere.

mod bounded_read;
pub(super) mod row_packing;
pub(super) mod schema;
pub(super) mod statement_batch;
pub(super) mod writer_connection;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection as _, Row as _};

use super::StoreError;
use row_packing::{Cell, unpack};
use statement_batch::Script;

/// Rows of one statement in a bulk insert. More rows are sent in several statements: each distinct count is one
/// prepared statement, so this also bounds the statement cache.
const ROWS_PER_STATEMENT: usize = 64;

/// How many prepared statements a connection keeps.
const STATEMENT_CACHE: usize = 512;

/// What a transaction that will write begins with on SQLite.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How long PostgreSQL may take for one answer: the link may be gone without anybody being told.
const READING: Duration = Duration::from_secs(20);

/// Rows that SQLite's thread may be ahead of who reads them: each stop costs a change of threads.
const ROWS_AHEAD: usize = 1024;

/// Where a database is.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// One file.
    Sqlite(Box<SqliteConnectOptions>),
    /// A database of a PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
}

impl Address {
    /// An embedded database in the file at `path`, made when missing, durable at every commit.
    pub(super) fn sqlite(path: &std::path::Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(STATEMENT_CACHE)
            .row_buffer_size(ROWS_AHEAD)
            // In KiB. Reads go by the map; this is for what the writer changes.
            .pragma("cache_size", "-16384")
            .pragma("mmap_size", "268435456")
            .pragma("temp_store", "memory")
            // What is redacted or deleted is overwritten, not only unlinked.
            .pragma("secure_delete", "on")
            .pragma("journal_size_limit", "67108864");
        Self::Sqlite(Box::new(options.disable_statement_logging()))
    }

    /// A PostgreSQL database.
    ///
    /// # Errors
    /// When `url` is not a PostgreSQL address.
    pub(super) fn postgres(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(StoreError::from)?;
        let options = options
            .statement_cache_capacity(STATEMENT_CACHE)
            .application_name("maru");
        Ok(Self::Postgres(Box::new(options.disable_statement_logging())))
    }

    /// One connection of its own, outside any pool.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        Ok(match self {
            Self::Sqlite(options) => Connection::Sqlite(options.connect().await?, Script::default()),
            Self::Postgres(options) => Connection::Postgres(options.connect().await?),
        })
    }

    /// A pool of connections that only read.
    pub(super) fn readers(&self, connections: u32) -> Readers {
        let wait = Duration::from_secs(5);
        match self {
            Self::Sqlite(options) => Readers::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(connections)
                    .acquire_timeout(wait)
                    .test_before_acquire(false)
                    .connect_lazy_with(
                        (**options)
                            .clone()
                            .create_if_missing(false)
                            .pragma("query_only", "on"),
                    ),
            ),
            Self::Postgres(options) => Readers::Postgres(
                PgPoolOptions::new()
                    .max_connections(connections)
                    .acquire_timeout(wait)
                    .connect_lazy_with((**options).clone()),
            ),
        }
    }
}

/// The pool of reading connections.
#[derive(Clone, Debug)]
pub(super) enum Readers {
    /// Connections to the file.
    Sqlite(SqlitePool),
    /// Connections to the server.
    Postgres(PgPool),
}

impl Readers {
    /// Whether these are of the embedded database.
    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// One connection, used by the writer and by set-up.
#[derive(Debug)]
pub(super) enum Connection {
    /// To the file, with the statements that are put off.
    Sqlite(SqliteConnection, Script),
    /// To the server.
    Postgres(PgConnection),
}

impl Connection {
    /// Whether this is the embedded database.
    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(..))
    }

    /// Runs SQL text without parameters, several statements if need be.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        self.catch_up().await?;
        match self {
            Self::Sqlite(c, _) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.map(drop)?,
            Self::Postgres(c) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.map(drop)?,
        }
        Ok(())
    }

    /// Puts a statement off, on SQLite.
    async fn put_off(&mut self, sql: &str, values: Vec<Value>) -> Result<(), StoreError> {
        check_all(&values)?;
        if let Self::Sqlite(_, script) = self {
            script.push(sql, values);
            if script.is_full() {
                self.catch_up().await?;
            }
        }
        Ok(())
    }

    /// Runs the statements that are put off.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        if let Self::Sqlite(c, script) = self
            && let Some((text, values)) = script.take()
        {
            let arguments = sqlite_arguments(values)?;
            sqlx::query_with(AssertSqlSafe(text), arguments)
                .execute(c)
                .await?;
        }
        Ok(())
    }

    /// Starts a transaction that will write.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_, script) => {
                script.push(BEGIN, []);
                Ok(())
            }
            Self::Postgres(_) => self.run("BEGIN").await,
        }
    }

    /// Makes the transaction durable. What was put off may fail here: nothing is stored then.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_, script) => {
                script.push("COMMIT", []);
                self.catch_up().await
            }
            Self::Postgres(_) => self.run("COMMIT").await,
        }
    }

    /// Gives the transaction up.
    pub(super) async fn rollback(&mut self) -> Result<(), StoreError> {
        if let Self::Sqlite(_, script) = self {
            let has_begun = !script.begins_with(BEGIN);
            script.take();
            if !has_begun {
                return Ok(());
            }
        }
        self.run("ROLLBACK").await
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(c, _) => c.close().await?,
            Self::Postgres(c) => c.close().await?,
        }
        Ok(())
    }
}

/// A value to bind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
    /// For `= ANY($n)`.
    Ints(Vec<i64>),
    /// For `= ANY($n)`.
    Texts(Vec<String>),
}

macro_rules! value_from {
    ($($from:ty => |$v:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($v: $from) -> Self { $to }
        }
    )*};
}
value_from! {
    i64 => |v| Self::Int(Some(v));
    Option<i64> => |v| Self::Int(v);
    bool => |v| Self::Int(Some(i64::from(v)));
    &str => |v| Self::Text(Some(v.to_owned()));
    String => |v| Self::Text(Some(v));
    &String => |v| Self::Text(Some(v.clone()));
    Option<&str> => |v| Self::Text(v.map(str::to_owned));
    Option<String> => |v| Self::Text(v);
    &[u8] => |v| Self::Blob(Some(v.to_vec()));
    Vec<u8> => |v| Self::Blob(Some(v));
    Option<Vec<u8>> => |v| Self::Blob(v);
    Vec<i64> => |v| Self::Ints(v);
    Vec<String> => |v| Self::Texts(v);
}

impl Value {
    /// Text from strangers is checked where it comes in; what slips through must not fail differently on each engine.
    fn check(&self) -> Result<(), StoreError> {
        let has_nul = match self {
            Self::Text(Some(text)) => text.contains('\0'),
            Self::Texts(texts) => texts.iter().any(|text| text.contains('\0')),
            _ => false,
        };
        if has_nul { Err(StoreError::Nul) } else { Ok(()) }
    }
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    Packed(Vec<Cell>),
}

/// A type that a column can be read as on both engines.
pub(super) trait Column: Sized {
    fn read(row: &Row, index: usize) -> Result<Self, sqlx::Error>;
}

macro_rules! column {
    ($($t:ty),*) => {$(
        impl Column for $t {
            fn read(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
                match row {
                    Row::Sqlite(r) => r.try_get(index),
                    Row::Postgres(r) => r.try_get(index),
                    Row::Packed(cells) => unpack(cells, index),
                }
            }
        }
    )*};
}
column!(i64, Option<i64>, String, Option<String>, Vec<u8>, Option<Vec<u8>>);

impl Column for bool {
    fn read(row: &Row, index: usize) -> Result<Self, sqlx::Error> {
        i64::read(row, index).map(|v| v != 0)
    }
}

impl Row {
    /// The column at `index`, counted from 0.
    pub(super) fn get<T: Column>(&self, index: usize) -> Result<T, StoreError> {
        Ok(T::read(self, index)?)
    }
}

/// What a query runs on: the readers' pool or one connection.
pub(super) enum On<'a> {
    Readers(&'a Readers),
    Connection(&'a mut Connection),
}

impl<'a> From<&'a Readers> for On<'a> {
    fn from(readers: &'a Readers) -> Self {
        Self::Readers(readers)
    }
}

impl<'a> From<&'a mut Connection> for On<'a> {
    fn from(connection: &'a mut Connection) -> Self {
        Self::Connection(connection)
    }
}

/// One statement with its values. `sql` is constant text, so statements stay prepared.
pub(super) struct Query {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

/// A statement in PostgreSQL's spelling; see the module's page for what is translated.
pub(super) fn query(sql: &'static str) -> Query {
    Query {
        sql,
        values: Vec::new(),
    }
}

impl Query {
    /// Binds the next value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// All rows.
    pub(super) async fn all<'a>(self, on: impl Into<On<'a>>) -> Result<Vec<Row>, StoreError> {
        Ok(match on.into() {
            On::Readers(Readers::Sqlite(pool)) => {
                let rows = sqlx::query_with(sqlite_text(self.sql), sqlite_arguments(self.values)?);
                rows.fetch_all(pool).await?.into_iter().map(Row::Sqlite).collect()
            }
            On::Connection(Connection::Sqlite(c, script)) => {
                check_all(&self.values)?;
                script.push(sqlite_text(self.sql), self.values);
                let (text, values) = script.take().unwrap_or_default();
                // Of all these, only the last answers rows.
                let rows = sqlx::query_with(AssertSqlSafe(text), sqlite_arguments(values)?);
                rows.fetch_all(c).await?.into_iter().map(Row::Sqlite).collect()
            }
            On::Readers(Readers::Postgres(pool)) => {
                let rows = sqlx::query_with(self.sql, postgres_arguments(self.values)?);
                let rows = tokio::time::timeout(READING, rows.fetch_all(pool)).await;
                let rows = rows.map_err(|_| StoreError::Unavailable("it does not answer in time".into()))?;
                rows?.into_iter().map(Row::Postgres).collect()
            }
            On::Connection(Connection::Postgres(c)) => {
                let rows = sqlx::query_with(self.sql, postgres_arguments(self.values)?);
                rows.fetch_all(c).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row, if any.
    pub(super) async fn optional<'a>(self, on: impl Into<On<'a>>) -> Result<Option<Row>, StoreError> {
        Ok(self.all(on).await?.into_iter().next())
    }

    /// Runs it in a transaction. On SQLite it may be put off, and fail with what comes after it.
    pub(super) async fn run(self, connection: &mut Connection) -> Result<(), StoreError> {
        match connection {
            Connection::Sqlite(..) => connection.put_off(sqlite_text(self.sql), self.values).await,
            Connection::Postgres(_) => self.execute(connection).await.map(drop),
        }
    }

    /// The number of rows that it changed.
    pub(super) async fn execute(self, connection: &mut Connection) -> Result<u64, StoreError> {
        connection.catch_up().await?;
        Ok(match connection {
            Connection::Sqlite(c, _) => {
                let statement = sqlx::query_with(sqlite_text(self.sql), sqlite_arguments(self.values)?);
                statement.execute(c).await?.rows_affected()
            }
            Connection::Postgres(c) => {
                let statement = sqlx::query_with(self.sql, postgres_arguments(self.values)?);
                statement.execute(c).await?.rows_affected()
            }
        })
    }
}

/// The type of a column in a bulk insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Blob,
}

/// The shape of a bulk insert: its table, its columns and what happens when a row is there already.
#[derive(Debug)]
pub(super) struct Insert {
    pub(super) table: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Empty, or an `ON CONFLICT …` clause. The rows of one call must not contain a key twice.
    pub(super) on_conflict: &'static str,
}

impl Insert {
    /// Stores the rows in a transaction, in as few statements as the engine likes. On SQLite this may be put off, and fail
    /// with what comes after it.
    pub(super) async fn rows(
        &self,
        connection: &mut Connection,
        mut rows: Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        if connection.is_sqlite() && rows.len() <= 1 {
            // Only single rows: the texts that are put together have to stay few.
            return match rows.pop() {
                Some(row) => connection.put_off(self.sqlite_sql(1), row).await,
                None => Ok(()),
            };
        }
        connection.catch_up().await?;
        match connection {
            Connection::Sqlite(c, _) => self.sqlite_rows(c, rows).await,
            Connection::Postgres(c) => self.postgres_rows(c, rows).await,
        }
    }

    async fn sqlite_rows(&self, c: &mut SqliteConnection, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<_> = rows.by_ref().take(ROWS_PER_STATEMENT).collect();
            let sql = self.sqlite_sql(chunk.len());
            let arguments = sqlite_arguments(chunk.into_iter().flatten())?;
            sqlx::query_with(sql, arguments).execute(&mut *c).await?;
        }
        Ok(())
    }

    fn sqlite_sql(&self, rows: usize) -> &'static str {
        constant_text((self.table, rows), || {
            let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
            let row = format!("({})", vec!["?"; names.len()].join(","));
            format!(
                "INSERT INTO {} ({}) VALUES {} {}",
                self.table,
                names.join(","),
                vec![row; rows].join(","),
                self.on_conflict
            )
        })
    }

    async fn postgres_rows(&self, c: &mut PgConnection, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let sql = constant_text((self.table, 0), || {
            let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
            let arrays = self.columns.iter().enumerate().map(|(i, (_, kind))| {
                let array = match kind {
                    Kind::Int => "bigint[]",
                    Kind::Text => "text[]",
                    Kind::Blob => "bytea[]",
                };
                format!("${}::{array}", i + 1)
            });
            format!(
                "INSERT INTO {} ({}) SELECT * FROM UNNEST({}) {}",
                self.table,
                names.join(","),
                arrays.collect::<Vec<_>>().join(","),
                self.on_conflict
            )
        });
        let mut columns: Vec<_> = self
            .columns
            .iter()
            .map(|(_, kind)| ColumnValues::new(*kind))
            .collect();
        for row in rows {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value)?;
            }
        }
        let mut arguments = PgArguments::default();
        for column in columns {
            column.add_to(&mut arguments)?;
        }
        sqlx::query_with(sql, arguments).execute(c).await?;
        Ok(())
    }
}

/// One column of a bulk insert, as the array that PostgreSQL takes.
enum ColumnValues {
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Blob(Vec<Option<Vec<u8>>>),
}

impl ColumnValues {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Int => Self::Int(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Blob => Self::Blob(Vec::new()),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), StoreError> {
        value.check()?;
        match (self, value) {
            (Self::Int(all), Value::Int(v)) => all.push(v),
            (Self::Text(all), Value::Text(v)) => all.push(v),
            (Self::Blob(all), Value::Blob(v)) => all.push(v),
            (_, value) => return Err(StoreError::Program(format!("{value:?} does not fit its column"))),
        }
        Ok(())
    }

    fn add_to(self, arguments: &mut PgArguments) -> Result<(), StoreError> {
        match self {
            Self::Int(all) => arguments.add(all),
            Self::Text(all) => arguments.add(all),
            Self::Blob(all) => arguments.add(all),
        }
        .map_err(StoreError::encoding)
    }
}

fn check_all(values: &[Value]) -> Result<(), StoreError> {
    values.iter().try_for_each(Value::check)
}

fn sqlite_arguments(values: impl IntoIterator<Item = Value>) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        value.check()?;
        match value {
            Value::Int(v) => arguments.add(v),
            Value::Text(v) => arguments.add(v),
            Value::Blob(v) => arguments.add(v),
            Value::Ints(v) => arguments.add(serde_json::to_string(&v).map_err(StoreError::encoding)?),
            Value::Texts(v) => arguments.add(serde_json::to_string(&v).map_err(StoreError::encoding)?),
        }
        .map_err(StoreError::encoding)?;
    }
    Ok(arguments)
}

fn postgres_arguments(values: Vec<Value>) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        value.check()?;
        match value {
            Value::Int(v) => arguments.add(v),
            Value::Text(v) => arguments.add(v),
            Value::Blob(v) => arguments.add(v),
            Value::Ints(v) => arguments.add(v),
            Value::Texts(v) => arguments.add(v),
        }
        .map_err(StoreError::encoding)?;
    }
    Ok(arguments)
}

/// SQLite has no arrays: a set of keys is a JSON array there.
fn sqlite_text(sql: &'static str) -> &'static str {
    if !sql.contains("= ANY($") {
        return sql;
    }
    constant_text((sql, 0), || {
        let mut text = String::with_capacity(sql.len() + 32);
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once("= ANY($") {
            let (number, after) = after.split_once(')').unwrap_or((after, ""));
            text.push_str(&format!("{before}IN (SELECT value FROM json_each(${number}))"));
            rest = after;
        }
        text + rest
    })
}

/// Statement texts made at run time are few (one per table and row count, one per statement rewritten) and live as long as the process, so that
/// the drivers can treat them as constants.
pub(super) fn constant_text(key: (&'static str, usize), make: impl FnOnce() -> String) -> &'static str {
    static TEXTS: LazyLock<Mutex<HashMap<(&'static str, usize), &'static str>>> =
        LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    texts
        .entry(key)
        .or_insert_with(|| Box::leak(make().into_boxed_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets_are_json_arrays_on_sqlite() {
        assert_eq!(
            sqlite_text("SELECT a FROM b WHERE c = ANY($2) AND d = ANY($1) LIMIT 3"),
            "SELECT a FROM b WHERE c IN (SELECT value FROM json_each($2)) \
             AND d IN (SELECT value FROM json_each($1)) LIMIT 3"
        );
    }
}
