//! What only a real database can break: its schema, its lock, its rows, its readers.

use maru::store::{SCHEMA_VERSION, StoreError};
use maru_protocol::auth::SlotHash;
use maru_protocol::cursor::Position;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_tests::Engine;

use super::logs::{Log, Real};
use super::story::Room;

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use maru_tests::Engine;

            #[tokio::test]
            async fn sqlite() {
                Box::pin(super::$test(super::Real::start(Engine::Sqlite).await)).await;
            }

            #[tokio::test]
            async fn postgres() {
                Box::pin(super::$test(super::Real::start(Engine::Postgres).await)).await;
            }
        }
    )+};
}

on_both_stores!(
    readers_hear_of_every_event_once_and_in_order,
    a_newer_schema_is_refused,
    text_of_any_script_comes_back,
    joins_cost_few_rows,
);

async fn readers_hear_of_every_event_once_and_in_order(log: Real) {
    let (mut room, made) = Room::new();
    let (_, other) = Room::new();
    log.append(vec![made.clone(), other]).await;
    // A repeated room in the middle makes the batch be halved, and halves must not be heard twice.
    let mut batch: Vec<_> = (0..200).map(|n| room.message(&n.to_string()).change).collect();
    let mut repeated = made;
    repeated.tickets.clear();
    batch.insert(77, repeated);
    let outcome = log.append(batch).await;
    assert_eq!(outcome.iter().filter(|stored| stored.is_err()).count(), 1);
    let expected: Vec<_> = (1..=202).map(Position).collect();
    assert_eq!(log.heard.positions(), expected);
}

async fn a_newer_schema_is_refused(log: Real) {
    log.store.close().await;
    let newer = SCHEMA_VERSION + 7;
    let sql = format!("UPDATE schema SET version = {newer}, readable_by = {newer}");
    log.data.run(&sql).await;
    let refused = Real::open(log.data).await.unwrap_err();
    let StoreError::Newer { found, known } = refused else {
        panic!("{refused}");
    };
    assert_eq!((found, known), (newer, SCHEMA_VERSION));
}

/// What looks like an end of text, a quote or a comment to somebody is a character to us.
async fn text_of_any_script_comes_back(log: Real) {
    let (mut room, made) = Room::new();
    log.append(vec![made]).await;
    let told = room.message("한국어 العربية 🦊 \u{10FFFF} \\u0000 ' \" ; --");
    assert!(log.append(vec![told.change.clone()]).await[0].is_ok());
    assert_eq!(log.event(told.id()).await.unwrap().2, *told.stored.event.json);
}

/// Rows and entries that joins cost, against what full copies would.
async fn joins_cost_few_rows(log: Real) {
    let joins = 2_000;
    let (mut room, made) = Room::new();
    log.append(vec![made]).await;
    let told: Vec<_> = (0..joins)
        .map(|n| room.membership(&format!("user{n}"), "join").change)
        .collect();
    assert!(log.append(told).await.iter().all(Result::is_ok));
    let rows = log.data.number("SELECT COUNT(*) FROM states").await;
    let entries = log
        .data
        .number("SELECT CAST(SUM(LENGTH(entries)) / 24 AS BIGINT) FROM states")
        .await;
    println!("{joins} joins, stored: {rows} rows of state, {entries} entries");
    assert_eq!(rows, joins + 1);
    assert!(entries < joins * 7, "{entries}");
}

#[test]
fn a_hundred_thousand_joins_cost_few_rows() {
    let joins: i64 = 100_000;
    let (mut state, mut entries, mut largest) = (State::default(), 0, 0);
    for n in 1..=joins {
        let mut slot = [0; 16];
        slot[..8].copy_from_slice(
            &n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed())
                .to_be_bytes(),
        );
        state = state.with(StateNid(n), [(SlotHash(slot), Some(EventNid(n)))]);
        let bytes = state.top().unwrap().to_bytes().len();
        entries += bytes / 24;
        largest = largest.max(bytes / 24);
    }
    println!(
        "{joins} joins: {joins} rows of state with {entries} entries, at most {largest} in one; \
         full copies would be {} entries",
        joins * (joins + 1) / 2
    );
    assert!(entries < 1_000_000, "{entries}");
}

#[tokio::test]
async fn a_second_process_is_refused_on_postgres() {
    let first = Real::start(Engine::Postgres).await;
    let database = first.data.database();
    let again = maru::store::Store::open(
        &database,
        maru::store::Access::Alone,
        maru_protocol::LogId([1; 16]),
        maru::store::CommitLimits::default(),
        first.heard.clone(),
    );
    assert!(matches!(again.await, Err(StoreError::InUse)));
    let (_, made) = Room::new();
    assert!(first.append(vec![made]).await[0].is_ok(), "the first goes on");
}
