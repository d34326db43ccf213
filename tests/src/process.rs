//! The real binary: started, killed, started again on the same data.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{Api, Data, Engine, User};

/// What the server prints once it is there; the address follows.
const LISTENING: &str = "client API listening on ";

/// What it prints before that where it speaks with other homeservers; the address follows.
const FEDERATION_LISTENING: &str = "federation listening on ";

/// What it prints where it takes links of other nodes; the address follows.
const NODES_LISTENING: &str = "node links listening on ";

/// Time for a start, also on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);

/// A running `maru serve`. It is killed when the value goes.
#[derive(Debug)]
pub struct TestProcess {
    child: Child,
    api: Api,
    base: String,
    log: watch::Receiver<String>,
    data: Data,
    flags: Vec<String>,
}

impl TestProcess {
    /// Starts the binary with empty data, open registration and no rate limits, on a free port; further flags as given.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub async fn start(engine: Engine, flags: &[&str]) -> Self {
        Self::start_on(Data::new(engine), flags).await
    }

    /// Starts the binary on data that may be there already.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub async fn start_on(data: Data, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::run(data, flags).await
    }

    async fn run(data: Data, flags: Vec<String>) -> Self {
        let mut command = maru(data.folder());
        command.args([
            "--database",
            data.database_flag(),
            "--registration",
            "open",
            "--rate-limits",
            "off",
        ]);
        command.args(["--listen", "127.0.0.1:0"]).args(&flags);
        let mut child = command
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (heard, log) = watch::channel(String::new());
        let heard = Arc::new(heard);
        tokio::spawn(keep_log(child.stderr.take().unwrap(), Arc::clone(&heard)));
        tokio::spawn(keep_log(child.stdout.take().unwrap(), heard));
        let waiting = log.clone();
        let base = match tokio::time::timeout(START_TIME, started(waiting)).await {
            Ok(Some(base)) => base,
            _ => panic!("the server did not start: {}", *log.borrow()),
        };
        Self {
            child,
            api: Api::http(&base),
            base,
            log,
            data,
            flags,
        }
    }

    /// Where requests go.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Scheme, host and port, for sockets of one's own.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where it listens for other homeservers.
    ///
    /// # Panics
    /// When it was started without.
    #[must_use]
    pub fn federation_address(&self) -> SocketAddr {
        self.printed(FEDERATION_LISTENING)
    }

    /// Where it takes links of other nodes.
    ///
    /// # Panics
    /// When it was started without.
    #[must_use]
    pub fn node_address(&self) -> SocketAddr {
        self.printed(NODES_LISTENING)
    }

    fn printed(&self, before: &str) -> SocketAddr {
        let log = self.log();
        let (_, after) = log.split_once(before).unwrap_or_else(|| panic!("no `{before}`"));
        after.lines().next().unwrap().trim().parse().unwrap()
    }

    /// What it keeps.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it has logged a text.
    ///
    /// # Panics
    /// When it ends, or a minute passes, before it has.
    pub async fn logged(&self, text: &str) {
        let mut log = self.log.clone();
        let waited = tokio::time::timeout(START_TIME, log.wait_for(|log| log.contains(text))).await;
        assert!(matches!(waited, Ok(Ok(_))), "no `{text}` in {}", self.log());
    }

    /// Registers a user.
    pub async fn user(&self, name: &str) -> User {
        self.api.register(name).await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn id(&self) -> Pid {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
            .unwrap_or_else(|| panic!("the server has ended: {}", self.log()))
    }

    /// Bytes of memory of its own that it occupies now, without the files that it maps.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.id().as_raw_nonzero());
        let pages = std::fs::read_to_string(path).unwrap();
        let mut pages = pages
            .split_whitespace()
            .skip(1)
            .map(|pages| pages.parse().unwrap());
        let (resident, shared): (u64, u64) = (pages.next().unwrap(), pages.next().unwrap());
        (resident - shared) * u64::try_from(rustix::param::page_size()).unwrap()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        kill_process(self.id(), Signal::TERM).unwrap();
    }

    /// Stops it where it is (SIGSTOP), until [`TestProcess::resume`].
    pub fn pause(&self) {
        kill_process(self.id(), Signal::STOP).unwrap();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        kill_process(self.id(), Signal::CONT).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Ends it without warning (SIGKILL).
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same data, at another port; users go on with [`User::on`]. It must have ended.
    pub async fn restart(self) -> Self {
        let Self { data, flags, .. } = self;
        Self::run(data, flags).await
    }
}

/// `maru serve` on a data folder, without anything from our own environment that would change its configuration.
#[must_use]
pub fn maru(data: &Path) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MARU_")) {
        command.env_remove(name);
    }
    command.args([OsStr::new("serve"), OsStr::new("--data"), data.as_os_str()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The binary: `MARU_BIN`, or the one beside this test, brought up to date first.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("MARU_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // The test is target/<profile>/deps/<name>.
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let release = folder.ends_with("release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    // With all tests, as they were built for this one: another choice of targets means other features, and everything
    // would be compiled once more.
    command.args(["build", "--quiet", "--workspace", "--bin", "maru", "--tests"]);
    command
        .args(release.then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.arg("--target-dir").arg(folder.parent().unwrap());
    assert!(command.status().unwrap().success(), "the binary cannot be built");
    folder.join("maru")
}

/// Keeps what the server prints.
async fn keep_log(output: impl AsyncRead + Unpin + Send + 'static, log: Arc<watch::Sender<String>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.send_modify(|log| {
            log.push_str(&line);
            log.push('\n');
        });
    }
}

/// Waits for the address that a server prints; `None` when it ends before.
async fn started(mut log: watch::Receiver<String>) -> Option<String> {
    let log = log.wait_for(|log| log.contains(LISTENING)).await.ok()?;
    let (_, after) = log.split_once(LISTENING)?;
    Some(after.lines().next()?.trim().to_owned())
}

/// Allows this process as many open files as the system does: thousands of connections come from here.
///
/// # Panics
/// When the system refuses what it said it allows.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}
