//! The program as its admin meets it: a process with a command line, signals and files.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Time for anything at all. Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn maru() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maru"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A server that runs.
struct Running {
    child: Child,
    lines: Vec<String>,
    /// Host and port of the client API.
    address: String,
}

impl Running {
    fn start(data: &Path, flags: &[&str]) -> Self {
        Self::start_as(maru().stderr(Stdio::null()), data, flags)
    }

    /// Starts a server that logs everything, as JSON, to a file.
    fn start_logging(data: &Path, flags: &[&str], log: &Path) -> Self {
        let mut command = maru();
        command
            .env("MARU_LOG_LEVEL", "trace")
            .env("MARU_LOG_FORMAT", "json");
        Self::start_as(command.stderr(std::fs::File::create(log).unwrap()), data, flags)
    }

    fn start_as(command: &mut Command, data: &Path, flags: &[&str]) -> Self {
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(flags);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut server = Self {
            child,
            lines: Vec::new(),
            address: String::new(),
        };
        for line in BufReader::new(server.child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let address = line
                .strip_prefix("client API listening on http://")
                .map(str::to_owned);
            server.lines.push(line);
            if let Some(address) = address {
                server.address = address;
                return server;
            }
        }
        panic!("the server did not start: {:?}", server.lines);
    }

    /// What stands behind a phrase in the lines of the start.
    fn said(&self, phrase: &str) -> Option<&str> {
        self.lines
            .iter()
            .find_map(|line| Some(line.split_once(phrase)?.1))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The status with which the process ends.
    fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::yield_now();
        }
        panic!("the server does not end");
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended(), Some(0));
    }

    /// Status and body of the answer to a request.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn log_in(&self, name: &str, password: &str) -> u16 {
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        self.ask("POST", "/_matrix/client/v3/login", &body).0
    }
}

/// A server that a failed test leaves behind must not stay.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a subcommand on a data folder, with a line on its standard input.
fn run(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = maru();
    command.args(arguments).arg("--data").arg(data);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails at once does not read its input.
    let _ = writeln!(child.stdin.take().unwrap(), "{input}");
    child.wait_with_output().unwrap()
}

fn run_well(data: &Path, arguments: &[&str], input: &str) -> String {
    let output = run(data, arguments, input);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The one line with which a command fails, and its status.
fn failure(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("maru: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    (lines[0].to_owned(), output.status.code())
}

#[test]
fn a_server_starts_answers_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Running::start(&data, &[]);
    assert_eq!(server.ask("GET", "/health", &Value::Null).0, 200);
    assert_eq!(server.ask("GET", "/ready", &Value::Null).0, 200);
    assert!(data.join("admin.sock").exists());
    server.signal(Signal::HUP);
    assert_eq!(server.ask("GET", "/health", &Value::Null).0, 200);
    let name = server.said("server name: ").unwrap().to_owned();
    assert!(run_well(&data, &["key", "show"], "").contains(&name));
    server.stop();
    assert!(!data.join("admin.sock").exists());
}

#[test]
fn the_metrics_have_their_own_listener() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&folder.path().join("data"), &["--metrics-listen", "127.0.0.1:0"]);
    assert_eq!(server.ask("GET", "/metrics", &Value::Null).0, 404);
    let address = server
        .said("metrics listening on http://")
        .unwrap()
        .strip_suffix("/metrics")
        .unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("\nmaru_http_requests_total{method=\"GET\",endpoint=\"\",status=\"4xx\"} 1\n"),
        "{answer}"
    );
}

#[test]
fn a_second_server_on_the_folder_or_the_port_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let server = Running::start(&data, &[]);
    let (line, status) = failure(&run(&data, &["serve", "--listen", "127.0.0.1:0"], ""));
    assert!(
        line.contains("in use by another process") && status == Some(1),
        "{line}"
    );
    let (line, status) = failure(&run(&other, &["serve", "--listen", &server.address], ""));
    assert!(line.contains(&server.address) && status == Some(1), "{line}");
}

#[test]
fn a_wrong_configuration_is_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maru.toml");
    std::fs::write(&file, "[limits]\nuplod_bytes = 1").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, expected) in [
        (["serve", "--config", file], "unknown key `limits.uplod_bytes`"),
        (["serve", "--listen", "here"], "from --listen"),
        (["serve", "--registration", "perhaps"], "open, token, closed"),
        (["serve", "--database", "mysql://a"], "from --database"),
    ] {
        let (line, status) = failure(&run(folder.path(), &arguments, ""));
        assert!(line.contains(expected) && status == Some(2), "{line}");
    }
    let shown = run_well(
        folder.path(),
        &[
            "config",
            "show",
            "--database",
            "postgres://maru:hush-hush@db/maru",
        ],
        "",
    );
    assert!(
        shown.contains("postgres://maru:***@db/maru") && !shown.contains("hush-hush"),
        "{shown}"
    );
}

/// Registers somebody, and gives the access token and the cursor of a first sync.
fn listener_of(server: &Running) -> (String, String) {
    let body = json!({ "username": "alice", "password": "a password", "auth": { "type": "m.login.dummy" } });
    let (_, registered) = server.ask("POST", "/_matrix/client/v3/register", &body);
    let token = registered["access_token"].as_str().unwrap().to_owned();
    let path = format!("/_matrix/client/v3/sync?access_token={token}");
    let (_, synced) = server.ask("GET", &path, &Value::Null);
    (token, synced["next_batch"].as_str().unwrap().to_owned())
}

#[test]
fn waiting_clients_are_answered_when_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Running::start(&folder.path().join("data"), &["--registration", "open"]);
    let (token, since) = listener_of(&server);

    let mut socket = TcpStream::connect(&server.address).unwrap();
    write!(
        socket,
        "GET /_matrix/client/unstable/maru/sync?since={since} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: maru.v1\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut socket = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(socket.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");

    // The poll and the one before it go over one connection: when the first is answered, the second begins.
    let mut poll = TcpStream::connect(&server.address).unwrap();
    poll.set_read_timeout(Some(PATIENCE)).unwrap();
    for timeout in [0, 30_000] {
        let path = format!("/_matrix/client/v3/sync?access_token={token}&since={since}&timeout={timeout}");
        write!(poll, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    poll.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(server.ask("GET", "/health", &Value::Null).0, 200);

    server.signal(Signal::TERM);
    let mut answers = String::new();
    poll.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("next_batch").count(), 2, "{answers}");
    let mut frames = Vec::new();
    socket.read_to_end(&mut frames).unwrap();
    let going_away = 1001_u16.to_be_bytes();
    assert!(frames.windows(2).any(|bytes| bytes == going_away), "{frames:?}");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn the_log_has_requests_and_their_ids_but_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let server = Running::start_logging(&data, &["--registration", "open"], &log);
    let (token, since) = listener_of(&server);
    let path = format!("/_matrix/client/v3/sync?access_token={token}&since={since}");
    assert_eq!(server.ask("GET", &path, &Value::Null).0, 200);
    assert_eq!(server.log_in("alice", "a wrong password"), 403);
    server.stop();
    let log = std::fs::read_to_string(log).unwrap();
    for secret in [token.as_str(), "a password", "a wrong password"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_sync = |line: &&Value| line["route"] == "/_matrix/client/v3/sync" && line["status"] == 200;
    let line = lines.iter().find(of_sync).unwrap();
    assert!(line["span"]["id"].is_string(), "{line}");
}

#[test]
fn a_second_signal_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Running::start(&folder.path().join("data"), &[]);
    // The server asks for the body when it has begun with the request, and then waits for it.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 12];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100");
    server.signal(Signal::TERM);
    let begun = Instant::now();
    while TcpStream::connect(&server.address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the server still accepts connections");
    }
    assert!(
        server.child.try_wait().unwrap().is_none(),
        "the request in progress was not waited for"
    );
    server.signal(Signal::INT);
    assert_eq!(server.ended(), Some(130));
}

#[test]
fn the_admin_makes_and_changes_accounts_of_a_server_that_runs_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert!(run_well(&data, &["user", "create", "alice", "--admin"], "first password").contains("@alice:"));
    let server = Running::start(&data, &[]);
    assert!(server.said("first start").is_none(), "there is an admin already");
    assert_eq!(server.log_in("alice", "first password"), 200);
    run_well(&data, &["user", "create", "bob"], "other password");
    run_well(&data, &["user", "password", "alice"], "second password");
    assert_eq!(server.log_in("alice", "first password"), 403);
    assert_eq!(server.log_in("alice", "second password"), 200);
    run_well(&data, &["user", "deactivate", "bob"], "");
    assert_eq!(server.log_in("bob", "other password"), 403);
    let (line, status) = failure(&run(&data, &["user", "create", "alice"], "third password"));
    assert!(line.contains("taken") && status == Some(1), "{line}");
    let listed = run_well(&data, &["user", "list"], "");
    server.stop();
    assert_eq!(listed, run_well(&data, &["user", "list"], ""));
    let listed: Vec<_> = listed
        .lines()
        .map(|line| line.split_once(' ').map(|(_, marks)| marks))
        .collect();
    assert_eq!(listed, [Some("admin"), Some("deactivated")]);
}

#[test]
fn a_server_keeps_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    run_well(
        &data,
        &["user", "create", "alice", "--server-name", "one.example"],
        "a password",
    );
    let (line, status) = failure(&run(&data, &["serve", "--server-name", "other.example"], ""));
    assert!(
        line.contains("belongs to the server one.example") && status == Some(1),
        "{line}"
    );
}

#[test]
fn the_token_of_the_first_start_makes_one_admin() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Running::start(&data, &[]);
    let said = server.said("first start: ").unwrap();
    assert!(said.contains(&server.address), "{said}");
    let token = said.rsplit(' ').next().unwrap();
    let register = |name: &str, auth: Value| {
        let body = json!({ "username": name, "password": "a password", "auth": auth });
        server.ask("POST", "/_matrix/client/v3/register", &body)
    };
    assert_eq!(
        register("eve", json!({ "type": "m.login.dummy" })).0,
        403,
        "registration is closed to strangers"
    );
    let (status, _) = register(
        "alice",
        json!({ "type": "m.login.registration_token", "token": "admin_guess" }),
    );
    assert!(status == 401 || status == 403, "{status}");
    let auth = json!({ "type": "m.login.registration_token", "token": token });
    let (status, answer) = register("alice", auth.clone());
    assert_eq!(status, 200, "{answer}");
    let (status, _) = register("mallory", auth);
    assert!(status == 401 || status == 403, "{status}");
    let listed = run_well(&data, &["user", "list"], "");
    assert!(
        listed.lines().count() == 1 && listed.contains("@alice:") && listed.contains(" admin"),
        "{listed}"
    );
}

#[test]
fn a_backup_of_a_running_server_comes_back_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let [data, backup, back] = ["data", "backup", "back"].map(|name| folder.path().join(name));
    run_well(&data, &["user", "create", "alice"], "a password");
    let server = Running::start(&data, &[]);
    run_well(&data, &["backup", backup.to_str().unwrap()], "");
    let name = server.said("server name: ").unwrap().to_owned();
    server.stop();
    run_well(&back, &["restore", backup.to_str().unwrap()], "");
    let server = Running::start(&back, &[]);
    assert_eq!(server.said("server name: "), Some(name.as_str()));
    assert_eq!(server.log_in("alice", "a password"), 200);
}

#[test]
fn the_doctor_finds_a_sound_server_sound_and_an_open_folder_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = Running::start(&data, &[]);
    let found = run_well(&data, &["doctor"], "");
    assert!(
        found.contains("ok     server: runs") && found.contains("schema version"),
        "{found}"
    );
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&data, &["doctor"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("WRONG  data folder"));
}

#[test]
fn the_demo_relays_messages_both_ways_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let told = run_well(folder.path(), &["demo", "--once"], "");
        for names in ["alice → bob", "bob → alice"] {
            assert_eq!(told.matches(names).count(), 3, "{told}");
        }
    }
}

#[test]
fn the_demo_can_be_visited_until_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = maru()
        .args(["demo", "--data"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown = lines.map_while(Result::ok);
    let visits: Vec<String> = shown
        .filter(|line| line.contains("  password "))
        .take(2)
        .collect();
    let mut server = Running {
        child,
        lines: Vec::new(),
        address: String::new(),
    };
    for visit in &visits {
        let words: Vec<_> = visit.split_whitespace().collect();
        let ["user", name, "password", password] = words[1..] else {
            panic!("{visit}");
        };
        server.address = words[0].trim_start_matches("http://").to_owned();
        assert_eq!(server.log_in(name, password), 200);
    }
    assert_eq!(visits.len(), 2);
    server.stop();
}

#[test]
fn the_admin_adds_and_removes_peers_of_a_running_server() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let federating = ["--federation-listen", "127.0.0.1:0"];
    let [one, two] = folders
        .each_ref()
        .map(|folder| Running::start(folder.path(), &federating));
    let [here, there] = folders.each_ref().map(tempfile::TempDir::path);
    let name = two.said("server name: ").unwrap().to_owned();
    let address = two.said("federation listening on ").unwrap().to_owned();
    let list = || run_well(here, &["peer", "list"], "");
    assert_eq!(list(), "");
    run_well(here, &["peer", "add", &name, "localhost:1", &address], "");
    let answered = run_well(here, &["peer", "ping", &name], "");
    assert!(answered.contains("answers in "), "{answered}");
    let (_, place) = list()
        .split_once("at ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(
        place.starts_with(&address) && place.contains("named by the admin"),
        "{place}"
    );
    let own = one.said("server name: ").unwrap().to_owned();
    assert!(run_well(there, &["peer", "list"], "").contains(&own));

    one.stop();
    let one = Running::start(here, &federating);
    run_well(here, &["peer", "ping", &name], "");
    run_well(here, &["peer", "remove", &name], "");
    let (why, status) = failure(&run(here, &["peer", "remove", &name], ""));
    assert!(why.contains("was not added") && status == Some(1), "{why}");
    one.stop();

    // What the configuration says wins.
    let mut command = maru();
    command.env(
        "MARU_FEDERATION_PEERS",
        format!("[{{name = \"{name}\", addresses = [\"{address}\"]}}]"),
    );
    let _one = Running::start_as(command.stderr(Stdio::null()), here, &federating);
    run_well(here, &["peer", "ping", &name], "");
    assert!(list().contains("named by the configuration"));
    let (why, _) = failure(&run(here, &["peer", "add", &name, "127.0.0.1:1"], ""));
    assert!(why.contains("stands in the configuration"), "{why}");
    let (why, _) = failure(&run(here, &["peer", "trust", &name, "AAAA"], ""));
    assert!(why.contains("is no key"), "{why}");
}
