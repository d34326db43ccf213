//! A peer that was away gets everything, in order within each room, from the log or by fetching.

use maru_protocol::cursor::Place;
use maru_tests::user::texts;
use maru_tests::{Engine, TestServer, User, federate};
use serde_json::json;

/// Rooms and events of these tests. `MARU_CATCH_UP=50x200` runs them at full size.
fn size() -> (usize, usize) {
    let full = std::env::var("MARU_CATCH_UP").ok();
    let parts = full.as_deref().and_then(|size| size.split_once('x'));
    parts.map_or((8, 30), |(rooms, events)| {
        (rooms.parse().unwrap(), events.parse().unwrap())
    })
}

async fn shared_rooms(count: usize, alice: &User, bob: &User, a: &TestServer) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..count {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join_via(&room, a.name()).await.ok();
        rooms.push(room);
    }
    rooms
}

/// Bob's server is away while Alice talks in all rooms; then it comes back.
async fn away_for_a_while(backlog_events: u32) {
    let a = TestServer::start_with(Engine::Sqlite, |config| {
        config.federation.backlog_events = backlog_events
    })
    .await;
    let b = TestServer::start().await;
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let (rooms, events) = size();
    let rooms = shared_rooms(rooms, &alice, &bob, &a).await;
    let data = b.shut_down().await;
    for at in 0..events {
        let text = at.to_string();
        futures_util::future::join_all(rooms.iter().map(|room| alice.send(room, &text))).await;
    }
    let started = std::time::Instant::now();
    let b = data.start().await;
    federate(&[&a, &b]).await;
    let bob = bob.on(b.api());
    let expected: Vec<String> = (0..events).map(|at| at.to_string()).collect();
    for room in &rooms {
        bob.hears_last(room, expected.last().unwrap()).await;
    }
    println!(
        "{} events in {} rooms after {:?}, backlog_events {backlog_events}",
        rooms.len() * events,
        rooms.len(),
        started.elapsed()
    );
    for room in &rooms {
        assert_eq!(texts(&bob.history(room).await), expected);
    }
    bob.send(&rooms[0], "back").await;
    alice.hears(&rooms[0], "back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_backlog_comes_by_the_log() {
    Box::pin(away_for_a_while(1_000_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_is_skipped_and_fetched() {
    Box::pin(away_for_a_while(10)).await;
}

/// More than is fetched at once to fill a gap: what lies behind stays a gap in the timeline until it is read, or fetched
/// in the background.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_middle_is_read_over_and_closes() {
    let a = TestServer::start_with(Engine::Sqlite, |config| config.federation.backlog_events = 10).await;
    let b = TestServer::start().await;
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = shared_rooms(1, &alice, &bob, &a).await.remove(0);
    alice.send(&room, "before").await;
    bob.hears(&room, "before").await;
    let seen = bob.sync(None).await.next();
    let data = b.shut_down().await;
    let missed = maru_protocol::gap::LARGEST_GAP + 300;
    for chunk in (0..missed).collect::<Vec<_>>().chunks(100) {
        let said = chunk.iter().map(usize::to_string);
        futures_util::future::join_all(said.map(|text| {
            let (alice, room) = (&alice, &room);
            async move { alice.send(room, &text).await }
        }))
        .await;
    }
    alice.send(&room, "after").await;
    let b = data.start().await;
    federate(&[&a, &b]).await;
    let bob = bob.on(b.api());
    bob.hears_last(&room, "after").await;
    let synced = bob.sync(Some(&seen)).await;
    let timeline = &synced.0["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    let expected = texts(&alice.history(&room).await);
    assert_eq!(expected.len(), missed + 2);
    assert_eq!(texts(&bob.history(&room).await), expected);
    let replica = b.replica(&room).await;
    assert!(
        replica.head().last_place > Place::FIRST_LIVE.next_stretch(),
        "there was no gap"
    );
    assert_eq!(b.parts().store.rooms.gaps(replica.nid).await.unwrap(), []);
}
