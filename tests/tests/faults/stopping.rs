//! SIGTERM lets requests in progress finish; a second one cuts; a data folder has one user.

use std::process::Stdio;
use std::time::Duration;

use maru_tests::{Engine, TestProcess, process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than the server lets requests finish.
const END: Duration = Duration::from_secs(30);

/// The head of a request whose body is still to come, and the body.
async fn begin_request(process: &TestProcess) -> (TcpStream, String) {
    let alice = process.user("alice").await;
    let body = json!({ "name": "made while the server stops" }).to_string();
    let head = format!(
        "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nhost: maru\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        alice.token,
        body.len()
    );
    let address = process.base().strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    // An answer to another request on this server proves that the socket's turn has come too.
    process.user("bob").await;
    (socket, body)
}

#[tokio::test]
async fn a_request_in_progress_is_finished() {
    let mut process = TestProcess::start(Engine::Sqlite, &[]).await;
    let (mut socket, body) = begin_request(&process).await;
    process.terminate();
    process.logged("stopping").await;
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = tokio::time::timeout(END, process.ended()).await.unwrap();
    assert!(status.success(), "{status}: {}", process.log());
}

#[tokio::test]
async fn a_waiting_sync_does_not_hold_up_the_end() {
    let mut process = TestProcess::start(Engine::Sqlite, &[]).await;
    let alice = process.user("alice").await;
    let since = alice.sync(None).await.next();
    let waiting = tokio::spawn(async move { alice.get(&format!("sync?timeout=60000&since={since}")).await });
    process.user("bob").await;
    process.terminate();
    let status = tokio::time::timeout(END, process.ended())
        .await
        .expect("it ends before the poll would");
    assert!(status.success(), "{status}: {}", process.log());
    drop(waiting);
}

#[tokio::test]
async fn a_second_signal_cuts() {
    let mut process = TestProcess::start(Engine::Sqlite, &[]).await;
    let (socket, _) = begin_request(&process).await;
    process.terminate();
    process.logged("stopping").await;
    process.terminate();
    let status = tokio::time::timeout(END, process.ended()).await.unwrap();
    assert_eq!(status.code(), Some(130));
    drop(socket);
}

#[tokio::test]
async fn a_stopped_server_has_stored_everything() {
    let mut process = TestProcess::start(Engine::Sqlite, &[]).await;
    let alice = process.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "the last word").await;
    process.terminate();
    assert!(process.ended().await.success());
    let process = process.restart().await;
    let alice = alice.on(process.api());
    let history = alice.history(&room).await;
    assert_eq!(history.last().unwrap()["event_id"], *event);
}

#[tokio::test]
async fn a_second_process_is_refused_with_one_line() {
    let first = TestProcess::start(Engine::Sqlite, &[]).await;
    let mut second = process::maru(first.data().folder());
    second
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    let output = second.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert!(said.contains("in use"), "{said}");
}
