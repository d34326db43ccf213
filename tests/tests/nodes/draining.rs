//! A node that stops sends its clients to others, a few at a time, and they miss nothing.

use std::process::Output;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use maru::config::Setting;
use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::{Data, Engine, Socket, TestProcess, TestServer, process};
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;

/// The time over which clients leave.
const WINDOW: Duration = Duration::from_secs(2);

/// What a busy machine adds to that.
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test]
async fn who_waits_leaves_at_a_moment_of_its_own_and_misses_nothing() {
    let one = TestServer::start_on(Engine::Postgres).await;
    let address = Setting::read("https://two.example").unwrap();
    let two = one
        .start_node_with("two", |config| config.node_address = address)
        .await;
    let (alice, bob) = (one.user("alice").await, two.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let later = bob.sync(None).await.next();
    let since = alice.sync(Some(&later)).await.next();
    let listening = one.listen().await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(Socket::open(&listening.base, &alice, Some(&since)).await);
    }
    let there = alice.on(&listening.api);
    // One that polls again and again, until an answer tells it nothing but that it is to leave.
    let polling = tokio::spawn({
        let (there, mut since, node) = (there.clone(), since.clone(), one.parts().clone());
        async move {
            while !node.notifier.is_leaving() {
                since = there.wait(&since).await.next();
            }
        }
    });
    look_for("they know each other, and all wait", async || {
        let (sees, sessions) = (one.parts().nodes.others_serve(), one.parts().notifier.sessions());
        (sees && sessions == 21)
            .then_some(())
            .ok_or(format!("{sees} {sessions}"))
    })
    .await;

    let began = Instant::now();
    let draining = tokio::spawn({
        let server = one.parts().clone();
        async move { server.drain().await }
    });
    look_for("it drains", async || {
        let ready = one.request(Method::GET, "/ready", None).await;
        (ready.status == 503)
            .then_some(())
            .ok_or(ready.status.to_string())
    })
    .await;
    assert_eq!(two.request(Method::GET, "/ready", None).await.status, 200);
    // It still serves.
    alice.get("account/whoami").await.ok();
    let said = alice.send(&room, "said while it drains").await;
    let closing = sockets
        .iter_mut()
        .map(async |socket| (socket.closed().await, began.elapsed()));
    let closed = join_all(closing).await;
    draining.await.unwrap();
    assert!(began.elapsed() >= WINDOW);
    for (closed, after) in &closed {
        assert_eq!(closed.code, Some(1012), "{closed:?}");
        assert!(*after < WINDOW + SLOW, "{after:?}");
    }
    for socket in &sockets {
        assert_eq!(socket.moved_to.as_deref(), Some("https://two.example"));
    }
    let times = closed.iter().map(|(_, after)| *after);
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    assert!(last - first > WINDOW / 4, "all at once: {first:?} to {last:?}");
    polling.await.unwrap();

    // A cursor of the node that stops is good where they go.
    let synced = alice.on(two.api()).sync(Some(&since)).await;
    assert_eq!(synced.timeline(&room), [said]);
    // Whoever comes back to it nevertheless waits for nothing.
    let began = Instant::now();
    let now = synced.next();
    there
        .get(&format!("sync?timeout=90000&since={}", encode(&now)))
        .await
        .ok();
    assert!(began.elapsed() < SLOW, "{:?}", began.elapsed());
}

/// Runs a subcommand of `maru node`.
async fn node(data: &Data, action: &str) -> Output {
    let mut command = Command::new(process::binary());
    command.args(["node", action, "--data"]).arg(data.folder());
    command.args(["--database", data.database_flag()]);
    command.output().await.unwrap()
}

#[tokio::test]
async fn the_admin_lists_nodes_and_has_one_drain() {
    let one = TestProcess::start(Engine::Postgres, &["--node-name", "one"]).await;
    let mut two = TestProcess::start_on(one.data().beside(), &["--node-name", "two"]).await;
    let alice = two.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = alice.sync(None).await.next();
    look_for("both are listed", async || {
        let listed = node(two.data(), "list").await;
        let lines = String::from_utf8(listed.stdout).unwrap();
        let names = lines.lines().filter(|line| !line.starts_with(' '));
        let are_both = listed.status.success() && names.eq(["one", "two"]);
        (are_both && lines.matches("alive").count() == 2)
            .then_some(())
            .ok_or(lines)
    })
    .await;
    let waiting = tokio::spawn({
        let (alice, since) = (alice.clone(), since.clone());
        async move {
            alice
                .get(&format!("sync?timeout=90000&since={}", encode(&since)))
                .await
        }
    });
    let drained = node(two.data(), "drain").await;
    assert!(drained.status.success(), "{drained:?}");
    waiting.await.unwrap().ok();
    assert!(two.ended().await.success(), "{}", two.log());
    let here = alice.on(one.api());
    let said = here.send(&room, "it goes on").await;
    assert_eq!(here.sync(Some(&since)).await.timeline(&room), [said]);
    // Nobody is there any more to be asked.
    let refused = node(two.data(), "drain").await;
    assert!(!refused.status.success());
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("no server runs"), "{why}");
}
