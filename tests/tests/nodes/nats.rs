//! NATS as what carries news between nodes: faster while it is there, and only slower when it is not.

use std::time::{Duration, Instant};

use http::Method;
use maru_tests::nats::NatsServer;
use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::{Api, Engine, TestProcess, User};
use serde_json::json;

use super::next_texts;
use super::passing::{types, typing, until};

/// Messages by which the time to another node is measured.
const MEASURED: usize = 60;

/// Half of them take no longer than this to another node, on any machine.
const SLOWEST_HALF: Duration = Duration::from_millis(1_500);

/// Two nodes as processes, and a user of each in a room.
struct Pair {
    nodes: [TestProcess; 2],
    users: [User; 2],
    room: String,
}

impl Pair {
    async fn start(flags: &[&str]) -> Self {
        let flags_of =
            |name: &'static str| [flags, &["--metrics-listen", "127.0.0.1:0", "--node-name", name]].concat();
        let one = TestProcess::start(Engine::Postgres, &flags_of("one")).await;
        let two = TestProcess::start_on(one.data().beside(), &flags_of("two")).await;
        let [alice, bob] = [one.user("alice").await, two.user("bob").await];
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        Self {
            nodes: [one, two],
            users: [alice, bob],
            room,
        }
    }

    /// Sends at the first node and waits at the second; how long that took.
    async fn cross(&self, text: &str) -> Duration {
        let [alice, bob] = &self.users;
        let since = bob.sync(None).await.next();
        let waiting = {
            let (bob, room) = (bob.clone(), self.room.clone());
            tokio::spawn(async move { (next_texts(&bob, &room, since).await, Instant::now()) })
        };
        // It waits by then, mostly: what it misses of that is no part of the way.
        tokio::task::yield_now().await;
        let sent = Instant::now();
        alice.send(&self.room, text).await;
        let (texts, at) = waiting.await.unwrap();
        assert_eq!(texts, [text]);
        at - sent
    }

    /// The middle of many.
    async fn measure(&self, carrier: &str) {
        let mut took = Vec::new();
        for n in 0..MEASURED {
            took.push(self.cross(&format!("{carrier} {n}")).await);
        }
        took.sort_unstable();
        let half = took[MEASURED / 2];
        println!(
            "from the sender's request at one node to the answer of a sync at another, by {carrier}: half within {half:?}, \
             nine in ten within {:?}",
            took[MEASURED * 9 / 10]
        );
        assert!(half < SLOWEST_HALF, "{half:?} by {carrier}");
    }

    async fn typing_crosses(&self) {
        let [alice, bob] = &self.users;
        let mut since = bob.sync(None).await.next();
        for expected in [json!([alice.id]), json!([])] {
            types(alice, &self.room, (expected != json!([])).then_some(60_000)).await;
            since = until(bob, since, "who types", |synced| {
                typing(synced, &self.room) == Some(expected.clone())
            })
            .await;
        }
    }

    /// Waits until a metric of both nodes fits.
    async fn come_to(&self, metric: &str, fits: impl Fn(i64) -> bool) {
        for node in &self.nodes {
            look_for(metric, async || {
                let value = metric_of(node, metric).await;
                fits(value).then_some(()).ok_or(value.to_string())
            })
            .await;
        }
    }
}

async fn metric_of(node: &TestProcess, metric: &str) -> i64 {
    let log = node.log();
    let (_, after) = log.split_once("metrics listening on ").expect("metrics");
    let url = after.lines().next().unwrap().trim().trim_end_matches("/metrics");
    let reply = Api::http(url).request(Method::GET, "/metrics", None, None).await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(metric));
    let (_, value) = line.and_then(|line| line.split_once(' ')).expect(metric);
    value.parse().unwrap()
}

const CONNECTED: &str = "maru_nats_connected";

#[tokio::test(flavor = "multi_thread")]
async fn news_crosses_by_notification_and_by_nats() {
    let pair = Pair::start(&[]).await;
    pair.measure("NOTIFY").await;
    drop(pair);
    let nats = NatsServer::start().await;
    let pair = Pair::start(&["--nats", &nats.url()]).await;
    pair.come_to(CONNECTED, |connected| connected == 1).await;
    pair.measure("NATS").await;
    pair.typing_crosses().await;
    let heard = metric_of(&pair.nodes[1], "maru_node_messages_heard_total").await;
    assert!(heard >= 2, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_serve_whether_nats_is_there_or_not() {
    // Not there at the start.
    let mut nats = NatsServer::absent();
    let pair = Pair::start(&["--nats", &nats.url()]).await;
    pair.cross("before it is there").await;
    pair.typing_crosses().await;
    nats.restart().await;
    pair.come_to(CONNECTED, |connected| connected == 1).await;
    pair.cross("by it").await;
    // Gone, and back.
    nats.kill().await;
    pair.come_to(CONNECTED, |connected| connected == 0).await;
    pair.cross("while it is away").await;
    pair.typing_crosses().await;
    nats.restart().await;
    pair.come_to(CONNECTED, |connected| connected == 1).await;
    pair.typing_crosses().await;
    // It is there, and does nothing: what was said to it is lost, and found by the look at the log.
    nats.pause();
    pair.cross("while it stands still").await;
    nats.resume();
    pair.come_to(CONNECTED, |connected| connected == 1).await;
    pair.cross("at last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_say_by_nats_is_refused() {
    let nats = NatsServer::start().await;
    let pair = Pair::start(&["--nats", &nats.url()]).await;
    pair.come_to(CONNECTED, |connected| connected == 1).await;
    let since = pair.users[1].sync(None).await.next();
    let (log, _) = since.strip_prefix('s').unwrap().split_once('_').unwrap();
    let (commits, nodes) = (format!("maru.{log}.commits"), format!("maru.{log}.nodes"));
    let typing_of = |user: &str| {
        json!({ "v": 1, "from": 7, "items": [
            { "is": "typing", "room_id": pair.room, "user_id": user, "left_ms": 4_000_000_000_u32 },
        ] })
    };
    let nonsense: [&[u8]; 6] = [
        b"",
        b"\xff\xfe",
        b"{\"v\":1,\"from\":7,\"items\":[{\"is\":\"typing\"}]}",
        b"{\"v\":9,\"from\":7,\"items\":[]}",
        b"{\"v\":1,\"from\":7,\"items\":[{\"is\":\"presence\",\"user_id\":\"@a:b\",\"state\":\"x\",\"active_ago_ms\":0,\"heartbeat_ago_ms\":0}]}",
        &[b'['; 100_000],
    ];
    for payload in nonsense {
        nats.publish(&nodes, payload).await;
    }
    nats.publish(&commits, b"x").await;
    nats.publish(&commits, b"9223372036854775807").await;
    nats.publish(&commits, b"-1").await;
    // Who is not in the room types in nobody's eyes.
    nats.publish(&nodes, typing_of("@mallory:example.org").to_string().as_bytes())
        .await;
    pair.come_to("maru_node_messages_refused_total", |refused| refused >= 7)
        .await;
    // And everything goes on.
    pair.typing_crosses().await;
    pair.cross("undisturbed").await;
    let path = format!("sync?since={}", encode(&since));
    let told = pair.users[1].get(&path).await.ok();
    assert!(!told.to_string().contains("mallory"), "{told}");
}
