//! Requests and answers: parts in order, refusals, back pressure, bounds.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use maru_federation::{
    limits,
    link::{IncomingStream, Link, OutgoingStream, Transport, frames::FrameReader},
    pool::{Answering, Held, RelayError, RequestError},
    quic::{BoundSocket, Quic},
};
use maru_protocol::{
    SecretKey,
    wire::{
        Datagram, RefusedCode, Request, Text,
        datagram::Typing,
        encode,
        request::{
            directory::{Alias, Profile},
            media::Media,
            records::Records,
        },
    },
};

use crate::support::{Two, eventually, part, quick};

fn media(parts: u8) -> Media {
    Media {
        media_id: Text::new(&parts.to_string()).unwrap(),
    }
}

fn profile() -> Profile {
    Profile {
        user_id: ruma::owned_user_id!("@ada:example.org"),
    }
}

#[tokio::test]
async fn a_request_connects_asks_and_is_answered() {
    let two = Two::start(quick());
    let answer = two
        .to_b
        .request(&two.b.name, profile())
        .await
        .unwrap()
        .done()
        .await
        .unwrap();
    assert_eq!(&*answer.profile, r#"{"displayname":"ada"}"#);
    // The other way over the same connection.
    let answer = two
        .to_a
        .request(&two.a.name, profile())
        .await
        .unwrap()
        .done()
        .await
        .unwrap();
    assert_eq!(&*answer.profile, r#"{"displayname":"ada"}"#);
    assert_eq!(two.to_b.peer(&two.b.name).unwrap().traffic.connections, 1);
    two.stop().await;
}

#[tokio::test]
async fn a_large_answer_comes_in_parts_and_in_order() {
    let two = Two::start(quick());
    let answer = two.to_b.request(&two.b.name, media(200)).await.unwrap();
    let (parts, _) = answer.collect(64 << 20).await.unwrap();
    assert_eq!(parts, (0..200).map(part).collect::<Vec<_>>());
    let answer = two.to_b.request(&two.b.name, media(200)).await.unwrap();
    let error = answer.collect(1 << 20).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLarge), "{error}");
    two.stop().await;
}

#[tokio::test]
async fn a_refusal_says_why() {
    let two = Two::start(quick());
    let alias = Alias {
        alias: ruma::owned_room_alias_id!("#a:example.org"),
    };
    let error = two
        .to_b
        .request(&two.b.name, alias)
        .await
        .unwrap()
        .done()
        .await
        .unwrap_err();
    let RequestError::Refused(refused) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (refused.code, &*refused.reason),
        (RefusedCode::Forbidden, "not for you")
    );
    assert_eq!(two.to_a.peer(&two.a.name).unwrap().traffic.refused, 1);
    two.stop().await;
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_up_neither_the_log_nor_other_requests() {
    let two = Two::start(quick());
    let mut unread = Vec::new();
    for _ in 0..limits::MAX_REQUESTS_OUT - 1 {
        unread.push(two.to_b.request(&two.b.name, media(30)).await.unwrap());
    }
    two.b.append(0..2000);
    two.to_a.wake(&two.a.name);
    two.a.until_received(&two.b, 2000).await;
    two.to_b
        .request(&two.b.name, profile())
        .await
        .unwrap()
        .done()
        .await
        .unwrap();
    // They are all there once somebody reads.
    for answer in unread {
        let (parts, _) = answer.collect(64 << 20).await.unwrap();
        assert_eq!(parts.len(), 30);
    }
    two.stop().await;
}

#[tokio::test]
async fn more_requests_than_fit_wait_for_their_turn() {
    let two = Two::start(quick());
    two.to_b.connect(&two.b.name).await.unwrap();
    let asking = (0..100).map(|_| async {
        two.to_b
            .request(&two.b.name, profile())
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
    });
    join_all(asking).await;
    assert_eq!(two.to_a.peer(&two.a.name).unwrap().traffic.requests_in, 100);
    two.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let two = Two::start(quick());
    let asked = Records { servers: vec![] };
    let answer = two.to_b.request(&two.b.name, asked).await.unwrap();
    let error = answer
        .with_patience(Duration::from_millis(50))
        .done()
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::TimedOut), "{error}");
    two.b.gate.notify_waiters();
    two.stop().await;
}

#[tokio::test]
async fn shutting_down_lets_a_running_answer_end() {
    let two = Two::start(quick());
    let asked = Records { servers: vec![] };
    let answer = two.to_b.request(&two.b.name, asked).await.unwrap();
    let asked = || {
        two.to_a
            .peer(&two.a.name)
            .is_some_and(|view| view.traffic.requests_in == 1)
    };
    eventually("b has the request", asked).await;
    let ending = tokio::spawn(answer.done());
    let stopping = {
        let pool = two.to_a.clone();
        tokio::spawn(async move { pool.shut_down().await })
    };
    // Opens the gate again and again, since nobody says when the answer stands before it.
    let opening = async {
        loop {
            two.b.gate.notify_one();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = ending => drop(ended.unwrap().unwrap()),
        () = opening => {}
    }
    stopping.await.unwrap();
    two.stop().await;
}

#[tokio::test]
async fn datagrams_arrive_and_a_flood_is_dropped() {
    let two = Two::start(quick());
    let typing = Datagram::Typing(Typing {
        room_id: ruma::owned_room_id!("!room:example.org"),
        user_id: ruma::owned_user_id!("@ada:example.org"),
        typing: true,
        lifetime_ms: 1000,
    });
    two.to_b.datagram(&two.b.name, &typing);
    assert!(two.to_b.peers().is_empty(), "a datagram dials nobody");
    two.to_b.connect(&two.b.name).await.unwrap();
    two.to_a.connect(&two.a.name).await.unwrap();
    two.to_b.datagram(&two.b.name, &typing);
    two.b.until("a datagram", |stored| stored.datagrams == 1).await;
    let dropped = || two.to_a.peer(&two.a.name).unwrap().traffic.datagrams_dropped;
    while dropped() == 0 {
        for _ in 0..100 {
            two.to_b.datagram(&two.b.name, &typing);
        }
        tokio::task::yield_now().await;
    }
    two.to_b
        .request(&two.b.name, profile())
        .await
        .unwrap()
        .done()
        .await
        .unwrap();
    two.stop().await;
}

/// Where a node passes an answer on to, and where the one that has asked it reads.
struct Passage {
    to: OutgoingStream,
    from: IncomingStream,
    _links: [Arc<dyn Link>; 2],
    _ends: [Quic; 2],
}

impl Passage {
    async fn open() -> Self {
        let key = SecretKey::from_seed(&[7; 32]);
        let node = || {
            let socket = BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            Quic::between_nodes(&key, socket).unwrap()
        };
        let (leader, asker) = (node(), node());
        let accepting = async { leader.accept().await.unwrap().await };
        let dialling = asker.dial(leader.local_address().unwrap(), None);
        let (accepted, dialled) = tokio::join!(accepting, dialling);
        let links = [accepted.unwrap(), dialled.unwrap()];
        links.iter().for_each(|link| link.admit());
        let asking = async {
            let (mut outgoing, incoming) = links[1].open_request().await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut outgoing).await.unwrap();
            incoming
        };
        let (from, taken) = tokio::join!(asking, links[0].accept_request());
        Self {
            to: taken.unwrap().0,
            from,
            _links: links,
            _ends: [leader, asker],
        }
    }
}

/// Holds nothing.
struct Nothing;

impl Held for Nothing {
    fn count(&self, _bytes: u64) {}
}

#[tokio::test]
async fn an_answer_is_passed_on_to_another_node_as_it_comes() {
    let two = Two::start(quick());
    let mut passage = Passage::open().await;
    let frame = encode(&Request::from(media(200))).unwrap();
    let reader = FrameReader::new(passage.from);
    let answer = Answering::<Media>::new(reader, two.b.name.clone(), Box::new(Nothing));
    let (passed, read) = tokio::join!(
        two.to_b.relay(&two.b.name, &frame, &mut passage.to),
        answer.collect(64 << 20)
    );
    passed.unwrap();
    assert_eq!(read.unwrap().0, (0..200).map(part).collect::<Vec<_>>());
    two.stop().await;
}

#[tokio::test]
async fn an_answer_that_no_node_reads_is_given_up_and_one_that_none_gives_is_told() {
    let two = Two::start(quick());
    let mut passage = Passage::open().await;
    drop(passage.from);
    let frame = encode(&Request::from(media(200))).unwrap();
    let passed = two.to_b.relay(&two.b.name, &frame, &mut passage.to).await;
    let given_up = matches!(passed, Err(RelayError::NobodyReads | RelayError::Broken(_)));
    assert!(given_up, "{passed:?}");
    let mut passage = Passage::open().await;
    let nobody = ruma::owned_server_name!("nobody.example.org");
    let passed = two.to_b.relay(&nobody, &frame, &mut passage.to).await;
    let not_reached = matches!(passed, Err(RelayError::NotAsked(RequestError::NotReached(_))));
    assert!(not_reached, "{passed:?}");
    two.stop().await;
}
