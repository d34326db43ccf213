//! Peers that claim what they are not, or do not keep to the protocol.

use std::sync::Arc;

use maru_federation::{
    Pool, limits,
    link::{CloseReason, Link, Transport, frames::FrameReader},
    pool::RequestError,
    quic::{BoundSocket, Quic},
};
use maru_protocol::{
    LogId, SecretKey,
    wire::{
        Answer, CloseCode, Message, RefusedCode, Request, Text, encode,
        message::{Hello, Log, Ready, Stored},
        request::{Nothing, directory::Profile, media::Media},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Book, MemoryServer, quick, record, start, target};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

#[tokio::test]
async fn a_stolen_record_does_not_open_the_door() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    book.list(&a, target(&a, address));
    // Mallory shows the record of server 2, whose TLS key she does not hold.
    let victim_record = record(2, &key(52), 1);
    let mallory = MemoryServer::with(2, key(99), victim_record);
    let (hers, her_address) = start(&mallory, &book, quick());
    let error = hers.connect(&a.name).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::NotReached(why) if why.contains("not_proven")),
        "{error}"
    );
    assert!(a.stored().received.is_empty() && pool.peers().is_empty());

    // Nor when we dial her: by the expected key at the handshake, without one by her hello.
    let victim = MemoryServer::new(2);
    let mut targets = target(&victim, her_address);
    book.list(&victim, targets.clone());
    let error = pool.connect(&victim.name).await.unwrap_err();
    assert!(matches!(&error, RequestError::NotReached(_)), "{error}");
    targets[0].key = None;
    book.list(&victim, targets);
    // A round that began with the old entry may still end first.
    let mut why = String::new();
    for _ in 0..20 {
        why = pool.connect(&victim.name).await.unwrap_err().to_string();
        if why.contains("not_proven") {
            break;
        }
    }
    assert!(why.contains("not_proven"), "{why}");
    tokio::join!(pool.shut_down(), hers.shut_down());
}

#[tokio::test]
async fn a_denied_peer_is_told_so() {
    let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
    let (to_b, address) = start(&a, &book, quick());
    book.list(&a, target(&a, address));
    let (to_a, _) = start(&b, &book, quick());
    a.stored().denied.insert(b.name.clone());
    let error = to_a.connect(&a.name).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::NotReached(why) if why.contains("denied: no")),
        "{error}"
    );
    tokio::join!(to_a.shut_down(), to_b.shut_down());
}

/// A peer that writes what it likes: server 2, whom server 1 lets in.
struct Liar {
    link: Arc<dyn Link>,
    _transport: Quic,
}

impl Liar {
    async fn dial(a: &MemoryServer, pool_address: std::net::SocketAddr) -> Self {
        let socket = BoundSocket::bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let transport = Quic::new(&key(52), socket).unwrap();
        let link = transport
            .dial(pool_address, Some(a.tls.public_key()))
            .await
            .unwrap();
        Self {
            link,
            _transport: transport,
        }
    }

    /// Writes frames and gives what the connection is then closed with. Reads all the while, as a peer
    /// that wants to live does.
    async fn say(&self, frames: Vec<Vec<u8>>) -> CloseReason {
        let mut log = self.link.open_log().await.unwrap();
        let reading = async {
            let Ok(mut stream) = self.link.accept_log().await else {
                return;
            };
            let mut sink = vec![0; 4096];
            while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        };
        let writing = async {
            for frame in frames {
                if log.write_all(&frame).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(writing, reading);
        self.link.closed().await
    }
}

impl Liar {
    /// Writes a request and gives what it is refused with.
    async fn ask(&self, bytes: &[u8]) -> RefusedCode {
        let (mut request, answer) = self.link.open_request().await.unwrap();
        request.write_all(bytes).await.unwrap();
        request.shutdown().await.unwrap();
        match FrameReader::new(answer).next::<Answer<Nothing>>(10_000).await {
            Ok(Some(Answer::Refused(refused))) => refused.code,
            other => panic!("{other:?}"),
        }
    }
}

fn hello(to: &MemoryServer) -> Vec<u8> {
    let record = record(2, &key(52), 1);
    let hello = Hello {
        name: record.verify().unwrap().name.clone(),
        to: Some(to.name.clone()),
        record,
        log_id: LogId([2; 16]),
    };
    encode(&Message::Hello(hello)).unwrap()
}

fn ready() -> Vec<u8> {
    encode(&Message::Ready(Ready {
        received: None,
        items: 100,
        bytes: 4 << 20,
    }))
    .unwrap()
}

fn log(number: u64) -> Vec<u8> {
    let cursor = maru_protocol::wire::Octets::new(b"c").unwrap();
    encode(&Message::Log(Log {
        number,
        items: vec![crate::support::item(0)],
        cursor,
    }))
    .unwrap()
}

#[tokio::test]
async fn lies_are_answered_with_their_code() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    let another = MemoryServer::new(3);
    let unknown = {
        let mut frame = vec![0, 0, 0, 0];
        frame.extend(b"\x82\x65greet\xa0");
        frame[3] = 8;
        frame
    };
    let early = encode(&Message::Stored(Stored { number: 1 })).unwrap();
    let never_sent = encode(&Message::Stored(Stored { number: 7 })).unwrap();
    let huge = [u32::MAX.to_be_bytes().to_vec(), vec![0; 100_000]].concat();
    let cases = [
        (
            "garbage",
            vec![b"\0\0\0\x04abcd".to_vec()],
            CloseCode::ProtocolError,
        ),
        (
            "a length of four gibibytes",
            vec![huge.clone()],
            CloseCode::LimitExceeded,
        ),
        (
            "a large frame before hello",
            vec![[20_000u32.to_be_bytes().to_vec(), vec![0; 20_000]].concat()],
            CloseCode::LimitExceeded,
        ),
        ("an unknown frame", vec![unknown], CloseCode::UnknownMessage),
        ("stored before hello", vec![early], CloseCode::ProtocolError),
        ("a log before hello", vec![log(1)], CloseCode::ProtocolError),
        (
            "a hello to another server",
            vec![hello(&another)],
            CloseCode::WrongServer,
        ),
        (
            "a second hello",
            vec![hello(&a), hello(&a)],
            CloseCode::ProtocolError,
        ),
        (
            "a length of four gibibytes when ready",
            vec![hello(&a), ready(), huge],
            CloseCode::LimitExceeded,
        ),
        (
            "a log out of number",
            vec![hello(&a), ready(), log(2)],
            CloseCode::ProtocolError,
        ),
        (
            "an acknowledgement of nothing",
            vec![hello(&a), ready(), never_sent],
            CloseCode::ProtocolError,
        ),
    ];
    for (case, frames, code) in cases {
        let reason = Liar::dial(&a, address).await.say(frames).await;
        assert_eq!(reason.code(), Some(code), "{case}: {reason}");
    }
    let refusals = pool.refusals();
    assert_eq!(refusals.get("protocol_error"), Some(&6), "{refusals:?}");
    assert_eq!(refusals.get("wrong_server"), Some(&1), "{refusals:?}");
    eventually_served(&a, &book, &pool, address).await;
}

#[tokio::test]
async fn for_a_peer_that_does_not_read_nothing_piles_up() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    a.append(0..100_000);
    let liar = Liar::dial(&a, address).await;
    let mut log = liar.link.open_log().await.unwrap();
    let wide = Message::Ready(Ready {
        received: None,
        items: u32::MAX,
        bytes: u32::MAX,
    });
    for frame in [hello(&a), encode(&wide).unwrap()] {
        log.write_all(&frame).await.unwrap();
    }
    // She asks for large answers besides, and reads none of them either.
    let mut unread = Vec::new();
    for _ in 0..limits::MAX_REQUESTS_IN {
        let (mut request, answer) = liar.link.open_request().await.unwrap();
        let asked = Request::from(Media {
            media_id: Text::new("250").unwrap(),
        });
        request.write_all(&encode(&asked).unwrap()).await.unwrap();
        request.shutdown().await.unwrap();
        unread.push((request, answer));
    }
    // Nor does one more wait with a: it is the peer that has to wait.
    let mut one_more = Box::pin(liar.link.open_request());
    a.until("a has read what it may", |stored| stored.read_from.len() > 5)
        .await;
    let honest = served(&a, &book, address).await;
    assert!(futures_util::poll!(&mut one_more).is_pending());
    let read = a
        .stored()
        .read_from
        .iter()
        .map(|(_, start)| *start)
        .max()
        .unwrap();
    assert!(read < 100_000, "all of it is held for a peer that does not read");
    tokio::join!(pool.shut_down(), honest.shut_down());
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_many_large_ones_wait() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    let liar = Liar::dial(&a, address).await;
    let mut log = liar.link.open_log().await.unwrap();
    for frame in [hello(&a), ready()] {
        log.write_all(&frame).await.unwrap();
    }
    let announced = |length: u32| length.to_be_bytes().to_vec();
    let profile = encode(&Request::from(Profile {
        user_id: ruma::owned_user_id!("@ada:example.org"),
    }))
    .unwrap();
    let cases = [
        (Vec::new(), RefusedCode::Invalid),
        (announced(10), RefusedCode::Invalid),
        (announced(3 << 20), RefusedCode::TooLarge),
        (
            b"\0\0\0\x08\x82\x65greet\xa0".to_vec(),
            RefusedCode::UnknownRequest,
        ),
        ([&profile[..], b"x"].concat(), RefusedCode::Invalid),
    ];
    for (bytes, code) in cases {
        let refused = liar.ask(&bytes).await;
        assert_eq!(refused, code, "{bytes:?}");
    }
    // Large ones that never end hold a few places; the small ones go on.
    let mut large = Vec::new();
    // QUIC gives back the places of ended streams a few at a time.
    for _ in 0..limits::MAX_REQUESTS_IN / 2 {
        let (mut request, answer) = liar.link.open_request().await.unwrap();
        request.write_all(&announced(1 << 20)).await.unwrap();
        large.push((request, answer));
    }
    assert_eq!(liar.ask(b"\0\0\0\x01\x80").await, RefusedCode::Invalid);
    eventually_served(&a, &book, &pool, address).await;
}

#[tokio::test]
async fn who_says_nothing_takes_the_places_of_one_host_and_no_more() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    let mut silent = Vec::new();
    for _ in 0..limits::MAX_STRANGERS_OF_ONE_PLACE {
        let liar = Liar::dial(&a, address).await;
        liar.link
            .accept_log()
            .await
            .unwrap()
            .read_exact(&mut [0; 4])
            .await
            .unwrap();
        silent.push(liar);
    }
    let one_more = Liar::dial(&a, address).await;
    let reason = one_more.link.closed().await;
    assert_eq!(reason.code(), Some(CloseCode::Overloaded), "{reason}");
    assert_eq!(pool.refusals().get("turned_away"), Some(&1));
    drop(silent.pop());
    eventually_served(&a, &book, &pool, address).await;
}

#[tokio::test]
async fn streams_before_hello_are_not_to_be_had_and_silence_costs_nothing() {
    let (a, book) = (MemoryServer::new(1), Book::default());
    let (pool, address) = start(&a, &book, quick());
    let liar = Liar::dial(&a, address).await;
    let mut opening = Box::pin(liar.link.open_request());
    let mut hers = liar.link.accept_log().await.unwrap();
    hers.read_exact(&mut [0; 4]).await.unwrap();
    assert!(futures_util::poll!(&mut opening).is_pending());
    eventually_served(&a, &book, &pool, address).await;
}

async fn eventually_served(a: &Arc<MemoryServer>, book: &Book, pool: &Pool, address: std::net::SocketAddr) {
    let honest = served(a, book, address).await;
    tokio::join!(pool.shut_down(), honest.shut_down());
}

/// An honest peer gets through; gives its pool.
async fn served(a: &Arc<MemoryServer>, book: &Book, address: std::net::SocketAddr) -> Pool {
    let honest = MemoryServer::new(4);
    book.list(a, target(a, address));
    let (to_a, _) = start(&honest, book, quick());
    honest.append(0..10);
    to_a.wake(&a.name);
    a.until_received(&honest, 10).await;
    to_a
}
