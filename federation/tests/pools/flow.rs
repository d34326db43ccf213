//! The log flows, breaks, and goes on where it was.

use std::{net::SocketAddr, sync::Arc};

use maru_federation::pool::PeerState;
use tokio::runtime::Runtime;

use crate::support::{Book, MemoryServer, Two, eventually, quick, start, start_at, target};

#[tokio::test]
async fn logs_flow_both_ways_and_are_acknowledged() {
    let two = Two::start(quick());
    two.a.append(0..1000);
    two.b.append(0..300);
    two.to_b.wake(&two.b.name);
    two.b.until_received(&two.a, 1000).await;
    two.a.until_received(&two.b, 300).await;
    two.a
        .until("a's log acknowledged", |stored| {
            stored.acknowledged.values().any(|at| *at == 1000)
        })
        .await;
    // What comes later follows without a new connection.
    two.b.append(300..301);
    two.to_a.wake(&two.a.name);
    two.a.until_received(&two.b, 301).await;
    two.a
        .until("extremities heard", |stored| stored.extremities_heard > 0)
        .await;

    eventually("a sees b caught up", || {
        two.to_b.peer(&two.b.name).is_some_and(|view| view.caught_up)
    })
    .await;
    let view = two.to_b.peer(&two.b.name).unwrap();
    assert_eq!(view.state, PeerState::Connected);
    assert!(view.dialled && view.round_trip.is_some() && view.connected_for.is_some());
    assert_eq!(view.tls_key, Some(two.b.tls.public_key()));
    assert_eq!(view.traffic.connections, 1);
    assert!(
        view.traffic.frames_in > 0 && view.traffic.bytes_out > 1000,
        "{:?}",
        view.traffic
    );
    assert_eq!(two.to_a.peers().len(), 1);
    two.stop().await;
}

/// A pool in a runtime of its own, which can be killed as a process is: without a word.
struct Process {
    runtime: Runtime,
    address: SocketAddr,
}

impl Process {
    async fn start(
        server: &Arc<MemoryServer>,
        book: &Book,
        address: SocketAddr,
        wakes: &MemoryServer,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (server, book, peer) = (server.clone(), book.clone(), wakes.name.clone());
        let started = runtime.spawn(async move {
            let (pool, address) = start_at(&server, &book, quick(), address);
            book.list(&server, target(&server, address));
            pool.wake(&peer);
            // Lives as long as its runtime.
            tokio::spawn(async move {
                let _pool = pool;
                std::future::pending::<()>().await;
            });
            address
        });
        let address = started.await.unwrap();
        Self { runtime, address }
    }

    async fn kill(self) -> SocketAddr {
        let Self { runtime, address } = self;
        let killed = tokio::task::spawn_blocking(move || drop(runtime));
        killed.await.unwrap();
        address
    }
}

#[tokio::test]
async fn a_killed_receiver_gets_the_rest_once_and_in_order() {
    let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
    let (to_b, address) = start(&a, &book, quick());
    book.list(&a, target(&a, address));
    a.append(0..3000);
    let mut process = Process::start(&b, &book, SocketAddr::from(([127, 0, 0, 1], 0)), &a).await;
    let mut reads_before_a_kill = 0;
    for enough in [200, 900, 2000] {
        to_b.wake(&b.name);
        b.until("part of the log", |stored| {
            stored.inbox.get(&a.name).map_or(0, Vec::len) >= enough
        })
        .await;
        if reads_before_a_kill == 0 {
            reads_before_a_kill = a.stored().read_from.len();
        }
        let address = process.kill().await;
        process = Process::start(&b, &book, address, &a).await;
    }
    b.until_received(&a, 3000).await;
    let resumed = a.stored().read_from.split_off(reads_before_a_kill);
    assert!(
        resumed.iter().all(|(_, start)| *start > 0),
        "none begins at the beginning"
    );
    process.kill().await;
    to_b.shut_down().await;
}

#[tokio::test]
async fn a_killed_sender_goes_on_from_what_is_stored() {
    let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
    let (to_a, address) = start(&b, &book, quick());
    book.list(&b, target(&b, address));
    a.append(0..3000);
    let mut process = Process::start(&a, &book, SocketAddr::from(([127, 0, 0, 1], 0)), &b).await;
    for enough in [100, 1500] {
        b.until("part of the log", |stored| {
            stored.inbox.get(&a.name).map_or(0, Vec::len) >= enough
        })
        .await;
        let address = process.kill().await;
        process = Process::start(&a, &book, address, &b).await;
    }
    b.until_received(&a, 3000).await;
    process.kill().await;
    to_a.shut_down().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_that_is_not_stored() {
    let two = Two::start(quick());
    two.b.stored().broken = true;
    two.a.append(0..10);
    two.to_b.wake(&two.b.name);
    eventually("a connection ended by the failure", || {
        two.b.stored().connections.1 >= 2
    })
    .await;
    assert!(two.a.stored().acknowledged.is_empty());
    let error = two.to_b.peer(&two.b.name).unwrap().last_error.unwrap();
    assert!(error.contains("internal"), "{error}");
    two.b.stored().broken = false;
    two.b.until_received(&two.a, 10).await;
    two.stop().await;
}

#[tokio::test]
async fn a_newer_record_is_told_to_who_is_connected() {
    let two = Two::start(quick());
    two.to_b.connect(&two.b.name).await.unwrap();
    two.to_b.record_changed();
    two.b
        .until("the record heard", |stored| stored.records_heard == 1)
        .await;
    two.stop().await;
}
