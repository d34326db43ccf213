//! A server is killed (SIGKILL) while it fetches what it does not have of a room, and readers who made it fetch hang up: while
//! it comes into the room, at each page of the past, and while it catches up with what it missed. In the end it has what
//! the other server has, in the same order, and nothing twice.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use maru_tests::{Engine, TestProcess, User, for_both_engines, two_sites, user::encode, waiting::look_for};
use serde_json::{Value, json};
use tokio::time::timeout;

for_both_engines!(what_is_cut_off_while_it_is_fetched_comes_whole_in_the_end);

/// Messages before the other server comes, more than two pages of the past hold; and while it is away.
const BEFORE: usize = 1_100;
const MEANWHILE: usize = 400;

/// What a returning server missed is beyond the threshold, so it is fetched.
const SKIPPED: &str = "[federation]\nbacklog_events = 100";

/// Events that were said before this server was in the room, and those that stand in its timeline.
const PAST: &str = "SELECT COUNT(*) FROM events WHERE place < 1";
const PLACED: &str = "SELECT COUNT(*) FROM events WHERE place IS NOT NULL";

async fn what_is_cut_off_while_it_is_fetched_comes_whole_in_the_end(engine: Engine) {
    let [a, b] = two_sites([Engine::Sqlite, engine], SKIPPED).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    say(&alice, &room, BEFORE).await;
    let (_, via) = alice.id.split_once(':').unwrap();

    // While the room comes in: its events are there, and it is not.
    let joining = bob.join_via(&room, via);
    let coming = reached(&b, "SELECT COUNT(*) FROM events", 1);
    tokio::select! {
        biased;
        () = coming => {}
        _ = joining => {}
    }
    let (b, bob) = kill(b, &bob).await;
    bob.join_via(&room, via).await.ok();

    // At the pages of the past, each with readers who do not wait for it.
    let (mut b, mut bob) = (b, bob);
    for past in [1, 501, 1_001] {
        let reading = async {
            for patience in (1..).map(Duration::from_millis) {
                let page = format!("rooms/{}/messages?dir=b&limit=100", encode(&room));
                let _ = timeout(patience, bob.get(&page)).await;
            }
        };
        tokio::select! {
            () = reached(&b, PAST, past) => {}
            () = reading => {}
        }
        (b, bob) = kill(b, &bob).await;
    }
    same(&alice, &bob, &room).await;

    // While it catches up.
    b.kill().await;
    say(&alice, &room, MEANWHILE).await;
    (b, bob) = start(b, &bob).await;
    let placed = b.data().number(PLACED).await;
    for more in [1, 100, 300] {
        reached(&b, PLACED, placed + more).await;
        (b, bob) = kill(b, &bob).await;
    }
    same(&alice, &bob, &room).await;
    assert!(!b.log().contains("panicked"), "{}", b.log());
}

/// Says numbered things, many at a time.
async fn say(user: &User, room: &str, count: usize) {
    let saying = stream::iter(0..count).map(|number| async move {
        user.send(room, &format!("message {number}")).await;
    });
    saying.buffer_unordered(32).collect::<Vec<()>>().await;
}

/// Waits until the database counts so many.
async fn reached(server: &TestProcess, sql: &str, least: i64) {
    look_for(sql, async || {
        let number = server.data().number(sql).await;
        (number >= least).then_some(()).ok_or(number.to_string())
    })
    .await;
}

async fn kill(mut server: TestProcess, user: &User) -> (TestProcess, User) {
    server.kill().await;
    start(server, user).await
}

async fn start(server: TestProcess, user: &User) -> (TestProcess, User) {
    let server = server.restart().await;
    let user = user.on(server.api());
    (server, user)
}

/// Waits until two users read the same history of a room.
async fn same(one: &User, other: &User, room: &str) {
    let ids = |events: Vec<Value>| -> Vec<String> {
        let ids = events
            .iter()
            .map(|event| event["event_id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let expected = ids(one.history(room).await);
    look_for("the whole history", async || {
        let here = ids(other.history(room).await);
        let first = expected
            .iter()
            .zip(&here)
            .position(|(expected, here)| expected != here);
        let seen = || {
            format!(
                "{} of {} events, other from {first:?}",
                here.len(),
                expected.len()
            )
        };
        (here == expected).then_some(()).ok_or_else(seen)
    })
    .await;
}
