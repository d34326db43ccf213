//! The driver's verdict, against a homeserver that lies: what was acknowledged must be in the history exactly once.

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the homeserver does to the message with number 7.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Lost,
    Doubled,
    UnderAnotherId,
    ListedTwice,
    Refused,
}

/// Just enough of a homeserver for the `send` scenario, with one room.
#[derive(Debug)]
struct Liar {
    fault: Fault,
    /// Event id and content of what it admits to have.
    history: Mutex<Vec<(String, String)>>,
}

impl Liar {
    /// Serves on a free port for as long as the test runs; the base URL.
    fn start(fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let liar = Arc::new(Self {
            fault,
            history: Mutex::default(),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let liar = liar.clone();
                thread::spawn(move || liar.serve(stream));
            }
        });
        url
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((request, body)) = read_request(&mut reader) {
            let (status, answer) = self.answer(&request, body);
            let length = answer.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + &answer).as_bytes()).unwrap();
        }
    }

    fn answer(&self, request: &str, body: String) -> (u16, String) {
        let ok = |json: &str| (200, json.to_owned());
        match request {
            _ if request.contains("/register") => ok(r#"{"user_id":"@u:liar","access_token":"t"}"#),
            _ if request.contains("/createRoom") => ok(r#"{"room_id":"!r:liar"}"#),
            _ if request.contains("/send/") => self.store(body),
            _ if request.contains("/messages") => (200, self.page()),
            _ => ok("{}"),
        }
    }

    fn store(&self, content: String) -> (u16, String) {
        let mut history = self.history.lock().unwrap();
        let id = format!("$event{}", history.len());
        let fault = if content.contains("-00000007") {
            self.fault
        } else {
            Fault::None
        };
        match fault {
            Fault::Refused => return (500, r#"{"errcode":"M_UNKNOWN"}"#.into()),
            Fault::Lost => {}
            Fault::UnderAnotherId => history.push((format!("{id}x"), content)),
            Fault::Doubled => history.extend([(id.clone(), content.clone()), (format!("{id}x"), content)]),
            Fault::ListedTwice => history.extend([(id.clone(), content.clone()), (id.clone(), content)]),
            Fault::None => history.push((id.clone(), content)),
        }
        (200, format!(r#"{{"event_id":"{id}"}}"#))
    }

    fn page(&self) -> String {
        let mut chunk = String::new();
        for (id, content) in self.history.lock().unwrap().iter().rev() {
            let comma = if chunk.is_empty() { "" } else { "," };
            write!(
                chunk,
                r#"{comma}{{"type":"m.room.message","event_id":"{id}","content":{content}}}"#
            )
            .unwrap();
        }
        format!(r#"{{"chunk":[{chunk}],"start":"s"}}"#)
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut request = String::new();
    reader.read_line(&mut request).ok().filter(|length| *length > 0)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request, String::from_utf8(body).unwrap()))
}

fn drive(fault: Fault) -> Output {
    let url = Liar::start(fault);
    let folder = env!("CARGO_TARGET_TMPDIR");
    Command::new(env!("CARGO_BIN_EXE_maru-load"))
        .args(["send", "--senders", "3", "--members", "4", "--messages", "20"])
        .args(["--target", &url, "--fsync-dir", folder, "--deadline", "60"])
        .output()
        .unwrap()
}

fn assert_fails(fault: Fault, with: &str) {
    let output = drive(fault);
    let json = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{fault:?}: {json}");
    assert!(json.contains(with), "{fault:?}: {json}");
}

#[test]
fn an_honest_homeserver_passes() {
    let output = drive(Fault::None);
    let json = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert!(
        json.contains("\"error\": null") && json.contains("messages_per_second"),
        "{json}"
    );
}

#[test]
fn an_acknowledged_message_that_is_lost_is_found_out() {
    assert_fails(Fault::Lost, "1 messages missing, 0 doubled");
}

#[test]
fn a_doubled_message_is_found_out() {
    assert_fails(Fault::Doubled, "acknowledged with another id");
    assert_fails(Fault::ListedTwice, "stands in the history twice");
}

#[test]
fn another_id_than_the_acknowledged_one_is_found_out() {
    assert_fails(Fault::UnderAnotherId, "acknowledged with another id");
}

#[test]
fn a_refused_message_ends_the_scenario() {
    assert_fails(Fault::Refused, "answered 500");
}

#[test]
fn other_machines_are_never_loaded() {
    let driver = Command::new(env!("CARGO_BIN_EXE_maru-load"))
        .args(["--target", "http://192.0.2.1:8008", "send"])
        .output()
        .unwrap();
    assert_eq!(driver.status.code(), Some(2));
    assert!(
        String::from_utf8(driver.stderr)
            .unwrap()
            .contains("only loopback")
    );
}
