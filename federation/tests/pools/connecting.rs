//! Dialling, back-off, one connection of two, and connections that nobody needs any more.

use std::{net::SocketAddr, time::Duration};

use maru_federation::AddressBook;
use maru_federation::pool::{PeerState, RequestError, Settings};
use maru_protocol::wire::CloseCode;

use crate::support::{Book, MemoryServer, Two, eventually, quick, start, start_at, target};

#[tokio::test]
async fn of_two_connections_dialled_at_once_both_sides_keep_the_same() {
    for _ in 0..10 {
        let two = Two::start(quick());
        two.a.append(0..50);
        two.b.append(0..50);
        let (one, other) = tokio::join!(two.to_b.connect(&two.b.name), two.to_a.connect(&two.a.name));
        // A caller may meet the one that goes; the pools settle all the same.
        drop((one, other));
        two.to_b.wake(&two.b.name);
        two.to_a.wake(&two.a.name);
        two.b.until_received(&two.a, 50).await;
        two.a.until_received(&two.b, 50).await;
        eventually("one connection that both call the same", || {
            let (Some(a), Some(b)) = (two.to_b.peer(&two.b.name), two.to_a.peer(&two.a.name)) else {
                return false;
            };
            a.state == PeerState::Connected && b.state == PeerState::Connected && a.dialled != b.dialled
        })
        .await;
        two.stop().await;
    }
}

#[tokio::test]
async fn waiting_ends_as_soon_as_the_peer_contacts_us() {
    let patient = Settings {
        first_retry: Duration::from_secs(3600),
        longest_retry: Duration::from_secs(3600),
        ..Settings::default()
    };
    let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
    let (to_b, address) = start(&a, &book, patient);
    book.list(&a, target(&a, address));
    a.append(0..5);
    to_b.wake(&b.name);
    eventually("a waits", || {
        to_b.peer(&b.name)
            .is_some_and(|view| matches!(view.state, PeerState::Waiting(_)))
    })
    .await;
    let view = to_b.peer(&b.name).unwrap();
    assert_eq!(view.last_error.as_deref(), Some("no address is known"));

    let (to_a, _) = start(&b, &book, quick());
    to_a.connect(&a.name).await.unwrap();
    b.until_received(&a, 5).await;
    eventually("a knows", || {
        to_b.peer(&b.name)
            .is_some_and(|view| view.state == PeerState::Connected)
    })
    .await;
    tokio::join!(to_a.shut_down(), to_b.shut_down());
}

#[tokio::test]
async fn a_peer_that_comes_up_later_is_reached_at_its_address() {
    let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
    let (to_b, _) = start(&a, &book, quick());
    // A socket that nobody answers at, then the peer itself in its place.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    book.list(&b, target(&b, address));
    a.append(0..5);
    to_b.wake(&b.name);
    eventually("a dials", || {
        to_b.peer(&b.name)
            .is_some_and(|view| view.state == PeerState::Dialling)
    })
    .await;
    drop(silent);
    let (to_a, _) = start_at(&b, &book, quick(), address);
    b.until_received(&a, 5).await;
    tokio::join!(to_a.shut_down(), to_b.shut_down());
}

#[tokio::test]
async fn an_address_of_somebody_else_is_passed_over_for_the_right_one() {
    let two = Two::start(quick());
    let c = MemoryServer::new(3);
    let (to_others, elsewhere) = start(&c, &two.book, quick());
    let right = two.to_b.connect(&two.b.name).await.unwrap();
    two.to_b.disconnect(&two.b.name, CloseCode::Done, "again");
    let maru_federation::link::Path::Direct(address) = right.path.unwrap() else {
        panic!("over QUIC");
    };
    let mut targets = target(&c, elsewhere);
    // Without an expected key, with the wrong one, and the right one last.
    targets[0].key = None;
    targets.extend(target(&two.b, elsewhere));
    targets.extend(target(&two.b, address));
    two.book.list(&two.b, targets);
    two.a.append(0..5);
    two.to_b.wake(&two.b.name);
    two.b.until_received(&two.a, 5).await;
    assert!(c.stored().inbox.is_empty());
    to_others.shut_down().await;
    two.stop().await;
}

#[tokio::test]
async fn a_server_does_not_talk_to_itself() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    let b = MemoryServer::new(2);
    let mut targets = target(&a, address);
    targets[0].key = None;
    book.list(&b, targets);
    let error = pool.connect(&b.name).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::NotReached(why) if why.contains("ourselves")),
        "{error}"
    );
    pool.shut_down().await;
}

#[tokio::test]
async fn an_idle_connection_closes_and_is_dialled_when_there_is_something_to_send() {
    let settings = Settings {
        idle_after: Duration::from_millis(100),
        ..quick()
    };
    let two = Two::start(settings);
    two.a.stored().keeps = false;
    two.b.stored().keeps = false;
    two.a.append(0..3);
    two.to_b.wake(&two.b.name);
    two.b.until_received(&two.a, 3).await;
    eventually("closed and forgotten", || {
        two.to_b.peers().is_empty() && two.to_a.peers().is_empty()
    })
    .await;
    two.a.append(3..6);
    two.to_b.wake(&two.b.name);
    two.b.until_received(&two.a, 6).await;
    two.a.append(6..9);
    two.to_b.wake(&two.b.name);
    two.b.until_received(&two.a, 9).await;
    let made = two.a.stored().connections.0;
    eventually("closed and forgotten again", || {
        two.to_b.peers().is_empty() && two.to_a.peers().is_empty()
    })
    .await;
    assert!(
        two.a.stored().connections.0 <= made + 1,
        "not dialled for what was sent already"
    );
    two.stop().await;
}

#[tokio::test]
async fn a_connection_that_shares_a_room_is_kept_and_made_again() {
    let settings = Settings {
        idle_after: Duration::from_millis(50),
        ..quick()
    };
    let two = Two::start(settings);
    two.to_b.connect(&two.b.name).await.unwrap();
    // One that nobody keeps, idle for less long, has gone.
    let unkept = Two::start(settings);
    unkept.a.stored().keeps = false;
    unkept.b.stored().keeps = false;
    unkept.to_b.connect(&unkept.b.name).await.unwrap();
    eventually("closed for being idle", || unkept.to_b.peers().is_empty()).await;
    unkept.stop().await;
    assert_eq!(two.a.stored().connections, (1, 0), "not closed for being idle");
    two.to_b.disconnect(&two.b.name, CloseCode::Done, "again");
    eventually("made again", || two.a.stored().connections.0 == 2).await;
    two.stop().await;
}

#[tokio::test]
async fn nothing_is_begun_while_shutting_down() {
    let two = Two::start(quick());
    two.to_b.connect(&two.b.name).await.unwrap();
    two.to_b.shut_down().await;
    let error = two.to_b.connect(&two.b.name).await.unwrap_err();
    assert!(matches!(error, RequestError::ShuttingDown));
    eventually("b is told", || {
        let view = two.to_a.peer(&two.a.name);
        view.and_then(|view| view.last_error)
            .is_some_and(|why| why.contains("shutting down"))
            || two.b.stored().connections.1 == 1
    })
    .await;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    two.book.list(&two.a, target(&two.a, nowhere));
    two.stop().await;
}

#[tokio::test]
async fn an_address_where_nobody_answers_does_not_hold_up_the_next() {
    let two = Two::start(quick());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let right = two.book.targets(&two.b.name).await;
    let mut targets = target(&two.b, silent.local_addr().unwrap());
    targets.extend(right);
    two.book.list(&two.b, targets);
    two.a.append(0..5);
    two.to_b.wake(&two.b.name);
    let begun = std::time::Instant::now();
    two.b.until_received(&two.a, 5).await;
    assert!(begun.elapsed() < maru_federation::limits::DIAL_TIMEOUT);
    two.stop().await;
}
