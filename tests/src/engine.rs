//! The two database engines, and the data that a server under test leaves behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use tempfile::TempDir;

use crate::postgres::{self, Cluster, OwnDatabase};
use crate::tcp_relay::TcpRelay;

/// Where a server keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The embedded database.
    Sqlite,
    /// A database of its own on the test run's PostgreSQL.
    Postgres,
}

/// A data folder and a database that go when the value does, and stay over restarts before.
#[derive(Debug)]
pub struct Data {
    pub(crate) folder: TempDir,
    pub(crate) postgres: Option<Arc<OwnDatabase>>,
}

impl Data {
    /// Empty data.
    ///
    /// # Panics
    /// When there is no place for it, or no PostgreSQL.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self {
                folder: tempfile::tempdir().unwrap(),
                postgres: None,
            },
            Engine::Postgres => Self::on_cluster(Cluster::shared()),
        }
    }

    /// Empty data in a new database of that cluster.
    ///
    /// # Panics
    /// When the cluster does not answer.
    #[must_use]
    pub fn on_cluster(cluster: &Cluster) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            postgres: Some(Arc::new(OwnDatabase::create(cluster))),
        }
    }

    /// Empty data on the test run's PostgreSQL, reached over a relay.
    ///
    /// # Panics
    /// When there is no PostgreSQL.
    pub async fn over_relay() -> (Self, TcpRelay) {
        let mut database = OwnDatabase::create(Cluster::shared());
        let relay = TcpRelay::to(database.server()).await;
        database.go_through(relay.address());
        let data = Self {
            folder: tempfile::tempdir().unwrap(),
            postgres: Some(Arc::new(database)),
        };
        (data, relay)
    }

    /// The data of another node on the same database: a folder of its own, with the same keys.
    ///
    /// # Panics
    /// When the keys cannot be copied.
    #[must_use]
    pub fn beside(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for key in ["root.key", "signing.key", "tls.key"] {
            std::fs::copy(self.folder().join(key), folder.path().join(key)).unwrap();
        }
        Self {
            folder,
            postgres: self.postgres.clone(),
        }
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.postgres {
            None => Engine::Sqlite,
            Some(_) => Engine::Postgres,
        }
    }

    /// What to open.
    #[must_use]
    pub fn database(&self) -> maru::store::Database {
        match &self.postgres {
            None => maru::store::Database::Sqlite(self.sqlite_file()),
            Some(database) => maru::store::Database::Postgres(database.url().to_owned()),
        }
    }

    /// The value of `--database`.
    #[must_use]
    pub fn database_flag(&self) -> &str {
        self.postgres.as_ref().map_or("sqlite", |database| database.url())
    }

    /// Asks the database itself, past the server, for one number.
    ///
    /// # Panics
    /// When it does not answer with one.
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.postgres {
            None => {
                let asked = sqlx::raw_sql(AssertSqlSafe(sql))
                    .fetch_one(&mut self.sqlite().await)
                    .await;
                asked.unwrap().get(0)
            }
            Some(database) => postgres::ask(database.url(), sql).parse().unwrap(),
        }
    }

    /// Runs statements on the database itself, past the server.
    ///
    /// # Panics
    /// When it refuses them.
    pub async fn run(&self, sql: &str) {
        match &self.postgres {
            None => drop(
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&mut self.sqlite().await)
                    .await
                    .unwrap(),
            ),
            Some(database) => postgres::run(database.url(), sql),
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.sqlite_file());
        options.disable_statement_logging().connect().await.unwrap()
    }

    /// The file of the embedded database.
    #[must_use]
    pub fn sqlite_file(&self) -> PathBuf {
        maru::data_folder::DataFolder::database_in(self.folder())
    }
}

/// Runs `async fn(TestServer)` tests on SQLite and on PostgreSQL.
///
/// `on_both_engines!(a, b);` makes the tests `a::sqlite`, `a::postgres`, `b::sqlite` and `b::postgres`.
#[macro_export]
macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                let server = $crate::TestServer::start_on($crate::Engine::Sqlite).await;
                Box::pin(super::$test(server)).await;
            }

            #[tokio::test]
            async fn postgres() {
                let server = $crate::TestServer::start_on($crate::Engine::Postgres).await;
                Box::pin(super::$test(server)).await;
            }
        }
    )+};
}

/// Runs `async fn(Engine)` tests, which start several servers, for SQLite and for PostgreSQL, named like those of
/// [`on_both_engines`].
#[macro_export]
macro_rules! for_both_engines {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                Box::pin(super::$test($crate::Engine::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                Box::pin(super::$test($crate::Engine::Postgres)).await;
            }
        }
    )+};
}
