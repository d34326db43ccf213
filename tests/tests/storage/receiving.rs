//! What a peer sent is stored with the first of its events that is dealt with, or by itself; never after it, and not at
//! all where nobody waits for it any more.

use std::time::Duration;

use maru::store::federation::inbox::{Arrived, ReceivedLog};
use maru::store::log::inbound_commit::Receiving;
use maru::store::log::{Change, Record};
use maru::store::{Store, StoreError};
use maru_protocol::cursor::LogId;
use maru_tests::{TestServer, on_both_engines};
use ruma::{RoomId, ServerName, room_id, server_name};

on_both_engines!(
    it_goes_in_front_of_what_deals_with_an_event,
    it_goes_by_itself_when_nobody_does,
    without_events_it_waits_for_nothing,
    what_nobody_waits_for_is_not_stored,
);

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(3_600);

fn peer() -> &'static ServerName {
    server_name!("peer.example")
}

fn room() -> &'static RoomId {
    room_id!("!room:peer.example")
}

/// So many events and the cursor after them.
fn receive(store: &Store, events: usize, cursor: u8) -> Receiving<'_> {
    let log = ReceivedLog {
        log_id: LogId([1; 16]),
        cursor: vec![cursor],
    };
    let arrived = |number| Arrived {
        room_id: room().to_owned(),
        json: format!("{{\"number\":{number}}}").into(),
    };
    store
        .log
        .receive(peer(), log, (0..events).map(arrived).collect(), Vec::new(), 1)
}

async fn dealt_with(store: &Store, row: i64) {
    store
        .log
        .append(Change::from(Record::Ingested(row)))
        .await
        .unwrap();
}

async fn cursor(store: &Store) -> Option<Vec<u8>> {
    store
        .federation
        .received_of(peer())
        .await
        .unwrap()
        .map(|log| log.cursor)
}

async fn waiting(store: &Store) -> Vec<i64> {
    let rows = store
        .federation
        .inbox_of(room(), Vec::new(), 100, 1_000_000)
        .await
        .unwrap();
    rows.iter().map(|row| row.nid).collect()
}

async fn it_goes_in_front_of_what_deals_with_an_event(server: TestServer) {
    let store = &server.parts().store;
    let receiving = receive(store, 3, 1);
    let rows: Vec<i64> = receiving.rows().iter().map(|row| row.nid).collect();
    assert_eq!(cursor(store).await, None, "nobody has asked for it yet");
    // Any of them does, not only the first.
    dealt_with(store, rows[1]).await;
    assert_eq!(cursor(store).await, Some(vec![1]));
    assert_eq!(waiting(store).await, [rows[0], rows[2]]);
    receiving.stored(FOR_EVER).await.unwrap();
    dealt_with(store, rows[0]).await;
    dealt_with(store, rows[2]).await;
    assert!(waiting(store).await.is_empty());
}

async fn it_goes_by_itself_when_nobody_does(server: TestServer) {
    let store = &server.parts().store;
    for (n, patience) in [Duration::ZERO, Duration::from_millis(1)].into_iter().enumerate() {
        let receiving = receive(store, 1, n as u8);
        let row = receiving.rows()[0].nid;
        receiving.stored(patience).await.unwrap();
        assert_eq!(cursor(store).await, Some(vec![n as u8]));
        assert_eq!(waiting(store).await, [row]);
        dealt_with(store, row).await;
        assert!(waiting(store).await.is_empty());
    }
    let receiving = receive(store, 1, 9);
    store.log.store_received(receiving.rows()[0].nid);
    receiving.stored(FOR_EVER).await.unwrap();
    assert_eq!(cursor(store).await, Some(vec![9]));
}

async fn without_events_it_waits_for_nothing(server: TestServer) {
    let store = &server.parts().store;
    receive(store, 0, 1).stored(FOR_EVER).await.unwrap();
    assert_eq!(cursor(store).await, Some(vec![1]));
}

async fn what_nobody_waits_for_is_not_stored(server: TestServer) {
    let store = &server.parts().store;
    let receiving = receive(store, 1, 1);
    let row = receiving.rows()[0].nid;
    drop(receiving);
    // Its event may be under way all the same, and does not bring it back.
    dealt_with(store, row).await;
    assert_eq!(cursor(store).await, None);
    assert!(waiting(store).await.is_empty());
    // On its way already, it is stored whoever waits.
    let receiving = receive(store, 1, 2);
    let row = receiving.rows()[0].nid;
    store.log.store_received(row);
    drop(receiving);
    dealt_with(store, row).await;
    assert_eq!(cursor(store).await, Some(vec![2]));

    // A closed store says so to whoever waits.
    let receiving = receive(store, 1, 3);
    store.close().await;
    let refused = receiving.stored(Duration::ZERO).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
