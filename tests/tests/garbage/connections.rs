//! Clients that are slow on purpose: heads and bodies that never end, answers that nobody takes.

use std::time::{Duration, Instant};

use maru::config::Config;
use maru_tests::user::encode;
use maru_tests::websocket::Shown;
use maru_tests::{Engine, Listening, Socket, TestProcess, TestServer, User};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Longer than any limit set here. Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that waits for nobody longer than a second.
async fn impatient(engine: Engine) -> TestServer {
    TestServer::start_with(engine, |config: &mut Config| {
        config.limits.request_head_seconds = 1;
        config.limits.request_body_seconds = 1;
        config.limits.stalled_seconds = 1;
    })
    .await
}

async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.strip_prefix("http://").unwrap())
        .await
        .unwrap()
}

/// A connection into which little fits before somebody reads.
async fn narrow(base: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = base.strip_prefix("http://").unwrap().parse().unwrap();
    socket.connect(address).await.unwrap()
}

/// Writes a byte from time to time until the server has ended the connection; all that it said.
async fn dripping(mut stream: TcpStream, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut said = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let drip = async {
        loop {
            pace.tick().await;
            if writer.write_all(b"x").await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        _ = reader.read_to_end(&mut said) => {}
        () = drip => {}
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn heads_and_bodies_that_never_end_are_cut_and_others_served_meanwhile() {
    let server = impatient(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    let listening = server.listen().await;
    let through = alice.on(&listening.api);
    let head = "GET /_matrix/client/versions HTTP/1.1\r\nhost: maru\r\nx-slow: ";
    let body = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nhost: maru\r\nauthorization: Bearer {}\r\n\
         content-length: 1000000\r\n\r\n{{",
        alice.token
    );
    let mut slow = tokio::task::JoinSet::new();
    for n in 0..50 {
        let stream = connect(&listening.base).await;
        let begun = if n % 2 == 0 { head.to_owned() } else { body.clone() };
        slow.spawn(async move { (n % 2 == 0, dripping(stream, &begun).await) });
    }
    // Those who say nothing at all.
    for _ in 0..10 {
        let stream = connect(&listening.base).await;
        slow.spawn(async move {
            let mut stream = stream;
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said).await;
            (true, said)
        });
    }
    let started = Instant::now();
    let mut ended = 0;
    while !slow.is_empty() {
        tokio::select! {
            done = slow.join_next() => {
                let (is_head, said) = done.unwrap().unwrap();
                ended += 1;
                if !is_head && !said.is_empty() {
                    assert!(said.starts_with("HTTP/1.1 408") && said.contains("M_UNKNOWN"), "{said}");
                }
            }
            reply = through.get("account/whoami") => drop(reply.ok()),
        }
        assert!(started.elapsed() < PATIENCE, "only {ended} of 60 were cut");
    }
}

#[tokio::test]
async fn the_body_of_who_is_not_logged_in_has_little_time() {
    let server = TestServer::start_with(Engine::Sqlite, |config: &mut Config| {
        config.limits.stranger_body_seconds = 1;
        config.limits.request_head_seconds = 600;
        config.limits.request_body_seconds = 600;
    })
    .await;
    let listening = server.listen().await;
    for path in ["login", "register", "refresh"] {
        let head = format!(
            "POST /_matrix/client/v3/{path} HTTP/1.1\r\nhost: maru\r\ncontent-length: 100000\r\n\r\n{{"
        );
        let said = dripping(connect(&listening.base).await, &head);
        let said = tokio::time::timeout(PATIENCE, said).await.unwrap();
        // The answer may be lost to what is still dripping.
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{path}: {said}"
        );
    }
}

/// Waits until a client that reads nothing finds its connection gone.
async fn is_cut(stream: &mut TcpStream) {
    let waited = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if stream.write_all(b"\r\n").await.is_err() {
                return;
            }
        }
    });
    waited.await.expect("the server ends the connection");
}

/// A room with so much in its last messages that an answer fits into no buffer.
async fn large_room(alice: &User) -> String {
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let text = "각".repeat(100_000);
    for _ in 0..20 {
        alice.send(&room, &text).await;
    }
    room
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = impatient(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    let room = large_room(&alice).await;
    let listening = server.listen().await;
    let mut stream = narrow(&listening.base).await;
    let path = format!(
        "/_matrix/client/v3/rooms/{}/messages?dir=b&limit=20",
        encode(&room)
    );
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: maru\r\nauthorization: Bearer {}\r\n\r\n",
        alice.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    is_cut(&mut stream).await;
    let read = alice.on(&listening.api).get(&path).await.ok();
    assert_eq!(read["chunk"].as_array().unwrap().len(), 20, "others get it whole");
}

/// A client of the WebSocket sync that reads nothing after the upgrade, until its connection is gone.
async fn reads_nothing(listening: &Listening, user: &User, since: &str) -> Socket {
    let authority = listening.base.strip_prefix("http://").unwrap();
    let stream = narrow(&listening.base).await;
    let query = format!("since={}", encode(since));
    Socket::upgrade(stream, authority, &user.token, Shown::Header, &query)
        .await
        .unwrap()
}

async fn a_deaf_listener_is_cut_off_and_heals_by_its_cursor(engine: Engine) {
    let server = impatient(engine).await;
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = alice.sync(None).await.next();
    let listening = server.listen().await;
    let mut deaf = reads_nothing(&listening, &alice, &since).await;
    let text = "각".repeat(50_000);
    let mut sent = Vec::new();
    for _ in 0..80 {
        sent.push(bob.send(&room, &text).await);
    }
    let cut = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if deaf.say(Message::Ping(bytes::Bytes::new())).await.is_err() {
                return;
            }
        }
    });
    cut.await.expect("the server ends the connection");

    let query = format!(
        "since={}&filter={}",
        encode(&since),
        encode(r#"{"room":{"timeline":{"limit":100}}}"#)
    );
    let mut healed = Socket::connect(&listening.base, &alice.token, Shown::Header, &query)
        .await
        .unwrap();
    let read = healed
        .sync_until(|synced| synced.timeline(&room).contains(&sent[79]))
        .await;
    let heard: Vec<_> = read.iter().flat_map(|synced| synced.timeline(&room)).collect();
    assert_eq!(heard, sent);
}

#[tokio::test]
async fn a_deaf_listener_is_cut_off_and_heals_by_its_cursor_on_sqlite() {
    Box::pin(a_deaf_listener_is_cut_off_and_heals_by_its_cursor(Engine::Sqlite)).await;
}

#[tokio::test]
async fn a_deaf_listener_is_cut_off_and_heals_by_its_cursor_on_postgres() {
    Box::pin(a_deaf_listener_is_cut_off_and_heals_by_its_cursor(
        Engine::Postgres,
    ))
    .await;
}

#[tokio::test]
async fn deaf_listeners_cost_bounded_memory() {
    const LISTENERS: u64 = 40;
    const MESSAGES: u64 = 60;
    let process = TestProcess::start(Engine::Sqlite, &[]).await;
    let [alice, bob] = [process.user("alice").await, process.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = alice.sync(None).await.next();
    let authority = process.base().strip_prefix("http://").unwrap();
    let mut deaf = Vec::new();
    for _ in 0..LISTENERS {
        let stream = narrow(process.base()).await;
        let query = format!("since={}", encode(&since));
        let opened = Socket::upgrade(stream, authority, &alice.token, Shown::Header, &query);
        deaf.push(opened.await.unwrap());
    }
    let text = "각".repeat(100_000);
    let bytes = u64::try_from(text.len()).unwrap();
    bob.send(&room, &text).await;
    let before = process.resident_bytes();
    for _ in 0..MESSAGES {
        bob.send(&room, &text).await;
    }
    let grown = process.resident_bytes().saturating_sub(before);
    // Every listener may hold the frame that it does not take, and all share the events that came since.
    let everything = LISTENERS * MESSAGES * bytes;
    assert!(grown < everything / 4, "{grown} bytes for messages of {bytes}");
    alice.get("account/whoami").await.ok();
}
