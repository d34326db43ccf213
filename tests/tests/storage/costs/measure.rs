//! What a statement costs on each engine, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maru_tests::{Data, Engine};
use serde_json::Value as Json;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::super::logs::Real;
use super::values::Value;

/// The rows of the tables.
const FILL: &str = include_str!("fill.sql");

/// After how many steps SQLite tells of them.
const STEPS_AT_ONCE: i32 = 10;

/// Whose the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// All belong to the first room, user, device, server.
    OfOne,
    /// Each has twenty: what is asked about does not grow.
    OfMany,
}

/// What a statement did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// SQLite: instructions of its machine. PostgreSQL: rows that its plan touched, and pages that it looked at.
    pub(super) steps: u64,
    /// Rows that it answered or changed.
    pub(super) rows: u64,
}

/// A database with so many rows in each table that grows, and what holds it until it is no longer needed.
pub(super) enum Filled {
    Sqlite {
        connection: Box<SqliteConnection>,
        steps: Arc<AtomicU64>,
        _data: Data,
    },
    Postgres {
        connection: Box<PgConnection>,
        _data: Data,
    },
}

impl Filled {
    pub(super) async fn new(engine: Engine, shape: Shape, rows: u32) -> Self {
        let log = Real::start(engine).await;
        log.store.close().await;
        let data = log.data;
        let (group, first) = match shape {
            Shape::OfOne => ("1", "1"),
            Shape::OfMany => ("(1 + n / 20)", "(CASE WHEN n < 20 THEN 1 ELSE n - n % 20 END)"),
        };
        let types = match engine {
            Engine::Sqlite => ["INTEGER", "BLOB"],
            Engine::Postgres => ["BIGINT", "BYTEA"],
        };
        let numbers = format!(
            "CREATE TABLE numbers (n {}); INSERT INTO numbers WITH RECURSIVE counted (n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {rows}) SELECT n FROM counted;",
            types[0]
        );
        let fill = FILL
            .replace("{group}", group)
            .replace("{first}", first)
            .replace("{blob}", types[1]);
        data.run(&format!("BEGIN; {numbers} {fill} COMMIT;")).await;
        match data.database() {
            maru::store::Database::Sqlite(file) => {
                let options = SqliteConnectOptions::new().filename(file);
                let mut connection = options.disable_statement_logging().connect().await.unwrap();
                let steps = Arc::new(AtomicU64::new(0));
                let count = Arc::clone(&steps);
                connection
                    .lock_handle()
                    .await
                    .unwrap()
                    .set_progress_handler(STEPS_AT_ONCE, move || {
                        count.fetch_add(STEPS_AT_ONCE.unsigned_abs().into(), Ordering::Relaxed);
                        true
                    });
                Self::Sqlite {
                    connection: Box::new(connection),
                    steps,
                    _data: data,
                }
            }
            maru::store::Database::Postgres(url) => {
                data.run("ANALYZE").await;
                let mut connection = PgConnection::connect(&url).await.unwrap();
                // Small tables are read whole because that is cheapest, which says nothing of large ones.
                let by_index = sqlx::raw_sql("SET enable_seqscan = off; SET enable_hashjoin = off");
                by_index.execute(&mut connection).await.unwrap();
                Self::Postgres {
                    connection: Box::new(connection),
                    _data: data,
                }
            }
        }
    }

    /// Runs a statement and takes back what it changed.
    ///
    /// # Errors
    /// When the database refuses it.
    pub(super) async fn cost(&mut self, sql: &str, values: &[Value]) -> Result<Cost, sqlx::Error> {
        match self {
            Self::Sqlite {
                connection, steps, ..
            } => sqlite(connection, steps, sql, values).await,
            Self::Postgres { connection, .. } => postgres(connection, sql, values).await,
        }
    }
}

async fn sqlite(
    connection: &mut SqliteConnection,
    steps: &AtomicU64,
    sql: &str,
    values: &[Value],
) -> Result<Cost, sqlx::Error> {
    let text = on_sqlite(sql);
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => arguments.add(None::<String>),
            Value::Int(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(*value),
            Value::Bytes(value) => arguments.add(*value),
            Value::Ints(values) => arguments.add(serde_json::to_string(values).unwrap()),
            Value::Texts(values) => arguments.add(serde_json::to_string(values).unwrap()),
        };
        added.unwrap();
    }
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let before = steps.load(Ordering::Relaxed);
    let query = sqlx::query_with(AssertSqlSafe(text.clone()), arguments);
    let answers = ["SELECT", "WITH"].iter().any(|verb| text.starts_with(verb)) || text.contains("RETURNING");
    let rows = if answers {
        let rows = query.fetch_all(&mut *connection).await;
        rows.map(|rows| rows.len() as u64)
    } else {
        let done = query.execute(&mut *connection).await;
        done.map(|done| done.rows_affected())
    };
    let steps = steps.load(Ordering::Relaxed) - before;
    sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    Ok(Cost { steps, rows: rows? })
}

/// A set of keys, as the store spells it for SQLite.
fn on_sqlite(sql: &str) -> String {
    let mut parts = sql.split("= ANY(");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (placeholder, rest) = part.split_once(')').unwrap();
        text += &format!("IN (SELECT value FROM json_each({placeholder})){rest}");
    }
    text
}

/// Prepared as the server prepares it, with the types of its values.
async fn postgres(connection: &mut PgConnection, sql: &str, values: &[Value]) -> Result<Cost, sqlx::Error> {
    let types = values.iter().map(|value| match value {
        Value::Null | Value::Text(_) => "text",
        Value::Int(_) => "bigint",
        Value::Bytes(_) => "bytea",
        Value::Ints(_) => "bigint[]",
        Value::Texts(_) => "text[]",
    });
    let written = values.iter().map(|value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Bytes(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
        Value::Ints(numbers) => format!(
            "'{{{}}}'",
            numbers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        ),
        Value::Texts(texts) => format!("ARRAY['{}']", texts.join("','")),
    });
    let (types, written): (Vec<_>, Vec<_>) = (types.collect(), written.collect());
    let listed = |list: String| {
        if list.is_empty() {
            list
        } else {
            format!("({list})")
        }
    };
    let prepare = format!("PREPARE asked {} AS {sql}", listed(types.join(", ")));
    let explain = format!(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE asked {}",
        listed(written.join(", "))
    );
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let prepared = sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await;
    let explained = match prepared {
        Ok(_) => {
            sqlx::raw_sql(AssertSqlSafe(explain))
                .fetch_one(&mut *connection)
                .await
        }
        Err(error) => Err(error),
    };
    sqlx::raw_sql("ROLLBACK; DEALLOCATE ALL")
        .execute(connection)
        .await?;
    let plan: Json = serde_json::from_str(&explained?.try_get_unchecked::<String, _>(0)?).unwrap();
    let top = &plan[0]["Plan"];
    let pages = number(top, "Shared Hit Blocks") + number(top, "Shared Read Blocks");
    // What changes rows says how many below itself.
    let answers = if top["Node Type"] == "ModifyTable" {
        &top["Plans"][0]
    } else {
        top
    };
    Ok(Cost {
        steps: pages + touched(top),
        rows: number(answers, "Actual Rows"),
    })
}

fn number(node: &Json, name: &str) -> u64 {
    node[name].as_f64().unwrap_or(0.0).round() as u64
}

/// Rows that the nodes of a plan answered or threw away.
fn touched(node: &Json) -> u64 {
    let names = [
        "Actual Rows",
        "Rows Removed by Filter",
        "Rows Removed by Join Filter",
        "Rows Removed by Index Recheck",
    ];
    let each: u64 = names.iter().map(|name| number(node, name)).sum();
    let below = node["Plans"].as_array().into_iter().flatten();
    each * number(node, "Actual Loops") + below.map(touched).sum::<u64>()
}
