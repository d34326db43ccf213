//! PostgreSQL for tests: the cluster of the test run, or one of our own that may be killed.
//!
//! The shared cluster is the one that `MARU_TEST_POSTGRES` names. Without that variable a throw-away cluster is
//! started once per test process from the installed binaries, by `tests/with-postgres`, which removes it when this
//! process ends, in whatever way: it waits for the end of a pipe that only this process holds open.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

/// What the keeper of a cluster prints, and that it then waits for the end of our pipe.
const KEEP: &str = r#"echo "$MARU_TEST_POSTGRES $MARU_TEST_PG_BIN $MARU_TEST_PG_USER"; read -r _"#;

/// Time for a start after a crash, recovery included.
const RESTART_TIME: Duration = Duration::from_secs(60);

/// A PostgreSQL server on loopback.
#[derive(Debug)]
pub struct Cluster {
    /// The address of its `postgres` database, for a superuser.
    url: String,
    /// Set for clusters that we started.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    keeper: Child,
    bin: PathBuf,
    /// The account that the server runs under; empty for ours.
    user: String,
    data: PathBuf,
}

impl Cluster {
    /// The cluster of this test run.
    ///
    /// # Panics
    /// When there is none and none can be started, with a sentence that says what to install.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("MARU_TEST_POSTGRES") {
            Ok(url) => Self { url, own: None },
            Err(_) => Self::start(),
        })
    }

    /// A cluster of one's own, removed when the value or this process goes.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("with-postgres");
        let mut keeper = Command::new(script)
            .args(["sh", "-c", KEEP])
            .env_remove("MARU_TEST_POSTGRES")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(keeper.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(url), Some(bin)) = (words.next(), words.next()) else {
            panic!(
                "no PostgreSQL: set MARU_TEST_POSTGRES to the URL of a superuser's database, or install the server \
                 (Debian and Ubuntu: apt install postgresql)"
            );
        };
        let data = PathBuf::from(ask(&url, "SHOW data_directory"));
        let own = Own {
            keeper,
            bin: bin.into(),
            user: words.next().unwrap_or_default(),
            data,
        };
        Self { url, own: Some(own) }
    }

    /// Ends the server without warning (SIGKILL), as a crash would.
    ///
    /// # Panics
    /// When it is not our own.
    pub fn kill(&self) {
        let own = self.own.as_ref().expect("only a cluster of our own is killed");
        let file = std::fs::read_to_string(own.data.join("postmaster.pid")).unwrap();
        let pid = file.lines().next().and_then(|line| line.trim().parse().ok());
        let pid = Pid::from_raw(pid.expect("a process id")).expect("a process id");
        kill_process(pid, Signal::KILL).unwrap();
        // The server's children end by themselves when it is gone; a new server refuses to start before.
    }

    /// Starts the server again after [`Cluster::kill`], with the address it had.
    ///
    /// # Panics
    /// When it does not start within a minute.
    pub fn restart(&self) {
        let own = self.own.as_ref().expect("only a cluster of our own is restarted");
        let options = std::fs::read_to_string(own.data.join("postmaster.opts")).unwrap();
        let (_, options) = options.trim().split_once(' ').unwrap();
        // The number in it may be that of a process which is gone and not yet forgotten.
        std::fs::remove_file(own.data.join("postmaster.pid")).unwrap();
        let pg_ctl = own.bin.join("pg_ctl");
        let started = Instant::now();
        // A server does not start before the last child of the killed one has noticed.
        loop {
            let mut command = match own.user.as_str() {
                "" => Command::new(&pg_ctl),
                user => {
                    let mut command = Command::new("runuser");
                    command.args(["-u", user, "--"]).arg(&pg_ctl);
                    command
                }
            };
            command
                .current_dir("/")
                .args(["start", "-w", "-t", "60", "-o", options, "-D"]);
            command.arg(&own.data).arg("-l").arg(own.data.join("server.log"));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if command.status().unwrap().success() {
                return;
            }
            let log = || std::fs::read_to_string(own.data.join("server.log")).unwrap_or_default();
            assert!(
                started.elapsed() < RESTART_TIME,
                "PostgreSQL does not start again: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own {
            drop(own.keeper.stdin.take());
            let _ = own.keeper.wait();
        }
    }
}

/// A database that nobody else uses, dropped with the value.
#[derive(Debug)]
pub struct OwnDatabase {
    cluster: String,
    name: String,
    url: String,
}

impl OwnDatabase {
    /// A new, empty database.
    ///
    /// # Panics
    /// When the cluster does not answer.
    #[must_use]
    pub fn create(cluster: &Cluster) -> Self {
        Self::like(&cluster.url, "template0")
    }

    /// A database with what this one holds, while nobody uses it.
    ///
    /// # Panics
    /// When somebody does.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::like(&self.cluster, &self.name)
    }

    fn like(cluster: &str, template: &str) -> Self {
        let name = format!("maru_test_{:016x}", rand::random::<u64>());
        run(cluster, &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        Self {
            cluster: cluster.to_owned(),
            url: url_of(cluster, &name),
            name,
        }
    }

    /// Where the PostgreSQL server listens.
    ///
    /// # Panics
    /// When its URL names no socket address.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        let (_, server) = self.cluster.rsplit_once('@').expect("a user");
        let (server, _) = server.split_once('/').expect("a database");
        let mut found = server.to_socket_addrs().expect("a host and a port");
        found.next().expect("an address")
    }

    /// Reached at another address from now on, by servers and by tests.
    pub fn go_through(&mut self, relay: SocketAddr) {
        let (user, server) = self.url.rsplit_once('@').expect("a user");
        let (_, database) = server.split_once('/').expect("a database");
        self.url = format!("{user}@{relay}/{database}");
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A cluster that is gone has taken the database with it.
        let _ = try_run(&self.cluster, &drop);
    }
}

/// The address of another database of the same cluster.
fn url_of(cluster: &str, database: &str) -> String {
    let (server, _) = cluster.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}")
}

/// Runs statements on a database.
///
/// # Panics
/// When the database refuses them.
pub fn run(url: &str, sql: &str) {
    try_run(url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn try_run(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    on_connection(url, |mut connection| async move {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        connection.close().await
    })
}

/// The first column of the first row of an answer, as the text that PostgreSQL writes.
///
/// # Panics
/// When the database refuses.
#[must_use]
pub fn ask(url: &str, sql: &str) -> String {
    let asked = on_connection(url, |mut connection| async move {
        let row = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await?;
        row.try_get_unchecked::<String, _>(0)
    });
    asked.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Works on a connection of its own, in a thread of its own: callers may be in the middle of an async test or of a
/// drop.
fn on_connection<T, F>(url: &str, work: impl FnOnce(PgConnection) -> F + Send) -> Result<T, sqlx::Error>
where
    T: Send,
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    let working = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(sqlx::Error::Io)?.block_on(async {
            let connection = options.connect().await?;
            work(connection).await
        })
    };
    std::thread::scope(|scope| scope.spawn(working).join().unwrap())
}
