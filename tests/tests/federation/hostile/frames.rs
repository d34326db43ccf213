//! Bytes that are no protocol, from a peer that was let in: the connection is closed with its code, and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maru_federation::link::{CloseReason, IncomingStream, Link, OutgoingStream, Transport};
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::LogId;
use maru_protocol::wire::datagram::Typing;
use maru_protocol::wire::message::{Hello, Log, Ready, Stored};
use maru_protocol::wire::{CloseCode, Datagram, Message, Octets, encode, encode_datagram};
use maru_tests::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::liar::{Liar, LiarKeys, PATIENCE, Victim, eventually};

/// A peer that has said hello and writes what it likes from then on.
pub(super) struct Raw {
    pub(super) link: Arc<dyn Link>,
    pub(super) log: OutgoingStream,
    /// Read all the while, as a peer that wants to live does.
    _reading: tokio::task::JoinHandle<()>,
    _transport: Quic,
}

impl Raw {
    /// Connects, and is let in.
    pub(super) async fn connect(seed: u8, victim: &Victim) -> Self {
        let keys = LiarKeys::of(seed);
        let socket = BoundSocket::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let transport = Quic::new(&keys.tls, socket).unwrap();
        let link = transport.dial(victim.address, None).await.unwrap();
        let mut incoming = link.accept_log().await.unwrap();
        let mut log = link.open_log().await.unwrap();
        let hello = Message::Hello(Hello {
            name: keys.name(),
            to: Some(victim.name.clone()),
            record: keys.signed_record(super::liar::now_ms()),
            log_id: LogId([9; 16]),
        });
        let ready = Message::Ready(Ready {
            received: None,
            items: 1024,
            bytes: 8 << 20,
        });
        for message in [hello, ready] {
            log.write_all(&encode(&message).unwrap()).await.unwrap();
        }
        // Once the other's `ready` is here, nothing before it is judged any more.
        for _ in 0..2 {
            skip_frame(&mut incoming).await;
        }
        Self {
            link,
            log,
            _reading: tokio::spawn(read_on(incoming)),
            _transport: transport,
        }
    }

    /// Writes bytes to the log stream; why the connection ends.
    async fn say(mut self, bytes: &[u8]) -> CloseReason {
        let _ = self.log.write_all(bytes).await;
        timeout(PATIENCE, self.link.closed()).await.unwrap()
    }
}

async fn skip_frame(stream: &mut IncomingStream) {
    let length = stream.read_u32().await.unwrap();
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
}

async fn read_on(mut stream: IncomingStream) {
    let mut sink = vec![0; 4096];
    while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn log(number: u64, items: usize) -> Vec<u8> {
    let item = maru_protocol::wire::LogItem::DeviceList(maru_protocol::wire::log::DeviceList {
        user_id: ruma::owned_user_id!("@nobody:example.org"),
    });
    let log = Message::Log(Log {
        number,
        items: vec![item; items],
        cursor: Octets::new(b"c").unwrap(),
    });
    encode(&log).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protocol_end_the_connection() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let deep = [&b"\x82\x66stored"[..], &[0x81; 40], b"\x01"].concat();
    let big = b"\x82\x66stored\xa1\x66number\x1b\xff\xff\xff\xff\xff\xff\xff\xff";
    let claims_much = b"\x82\x63log\xa3\x66number\x01\x65items\x9a\xff\xff\xff\xff";
    let cases: [(&str, Vec<u8>, CloseCode); 9] = [
        ("garbage", framed(b"what?"), CloseCode::ProtocolError),
        ("too long", vec![0xff; 100], CloseCode::LimitExceeded),
        ("too deep", framed(&deep), CloseCode::ProtocolError),
        ("too big a number", framed(big), CloseCode::ProtocolError),
        (
            "a list that claims to be long",
            framed(claims_much),
            CloseCode::ProtocolError,
        ),
        (
            "an unknown name",
            framed(b"\x82\x65greet\xa0"),
            CloseCode::UnknownMessage,
        ),
        (
            "frames out of number",
            [log(1, 1), log(3, 1)].concat(),
            CloseCode::ProtocolError,
        ),
        (
            "an acknowledgement of nothing",
            encode(&Message::Stored(Stored { number: 3 })).unwrap(),
            CloseCode::ProtocolError,
        ),
        ("too many items at once", log(1, 257), CloseCode::ProtocolError),
    ];
    for (case, bytes, code) in cases {
        let reason = Raw::connect(21, &victim).await.say(&bytes).await;
        assert_eq!(reason.code(), Some(code), "{case}: {reason}");
    }
    let refusals = server.parts().peers.pool().unwrap().refusals();
    assert_eq!(refusals["protocol_error"], 7, "{refusals:?}");
    assert_eq!(refusals["limit_exceeded"], 1, "{refusals:?}");
    assert_eq!(refusals["unknown_message"], 1, "{refusals:?}");
    let honest = Liar::start(22, &victim);
    honest.pool.connect(&victim.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_without_end_holds_up_nobody_else() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let mut endless = Raw::connect(23, &victim).await;
    // The largest frame there may be, a little at a time.
    endless.log.write_all(&(8_u32 << 20).to_be_bytes()).await.unwrap();
    let trickling = tokio::spawn(async move {
        while endless.log.write_all(&[0; 64]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for seed in 24..28 {
        let honest = Liar::start(seed, &victim);
        timeout(PATIENCE, honest.pool.connect(&victim.name))
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!trickling.is_finished(), "a slow frame is no offence");
    trickling.abort();
}

/// Datagrams and requests that are too many, too large or none: each is counted for the peer, which may go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_of_one_peer_is_counted() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let raw = Raw::connect(29, &victim).await;
    let pool = server.parts().peers.pool().unwrap();
    let name = LiarKeys::of(29).name();
    let traffic = || pool.peer(&name).unwrap().traffic;
    for _ in 0..3 {
        raw.link.send_datagram(Bytes::from_static(b"what?")).unwrap();
    }
    eventually("what is no datagram is counted", || {
        traffic().datagrams_dropped == 3
    })
    .await;
    let typing = Datagram::Typing(Typing {
        room_id: ruma::owned_room_id!("!room:example.org"),
        user_id: format!("@liar:{name}").try_into().unwrap(),
        typing: true,
        lifetime_ms: 10_000,
    });
    let typing = Bytes::from(encode_datagram(&typing).unwrap());
    eventually("a flood is cut, and counted", || {
        for _ in 0..500 {
            let _ = raw.link.send_datagram(typing.clone());
        }
        traffic().datagrams_dropped > 1_000
    })
    .await;
    assert!(traffic().datagrams_in > 0, "some of them are heard");

    // Thousands of requests, each of which announces more than a request may have.
    for _ in 0..2_000 {
        let (mut request, mut answer) = raw.link.open_request().await.unwrap();
        request.write_all(&(8_u32 << 20).to_be_bytes()).await.unwrap();
        skip_frame(&mut answer).await;
    }
    let counted = traffic();
    assert_eq!((counted.requests_in, counted.refused), (2_000, 2_000));
    assert!(pool.refusals().is_empty(), "{:?}", pool.refusals());
}
