//! Too much of everything, from one hostile peer and from nobody in particular, while an honest server talks with the
//! victim: its messages arrive about as fast as without, and the victim's memory stays where it was.
//!
//! The victim is a process of its own, so that its memory is its own; attackers share the machine's cores with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maru_federation::link::Transport;
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::wire::datagram::Typing;
use maru_protocol::wire::log::Cursor;
use maru_protocol::wire::message::{Log, RoomExtremities};
use maru_protocol::wire::{Datagram, Message, encode, encode_datagram};
use maru_protocol::{SecretKey, SigningKey};
use maru_tests::{Engine, TestProcess, User, two_sites, user::encode as escaped};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::foothold::Foothold;
use super::frames::Raw;
use super::liar::{Liar, LiarKeys, Victim};

/// Messages of the honest server for each median.
const MESSAGES: usize = 31;

/// What a median may be beyond twice the quiet one: a build without optimisation takes milliseconds for what else are
/// microseconds, and the attackers share its cores.
const SLACK: Duration = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 0 });

/// How often a case is tried.
const ROUNDS: usize = 3;

/// How long an attacker waits to be heard before it goes on all the same: a full inbox holds it up, as it should.
const TURN: Duration = Duration::from_secs(5);

/// How much more memory the victim may hold during an attack, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;

struct Stage {
    victim: TestProcess,
    _honest: TestProcess,
    address: Victim,
    alice: User,
    bob: User,
    room: String,
    since: String,
    quiet: Duration,
    memory: u64,
}

impl Stage {
    async fn set() -> Self {
        let [victim, honest] = two_sites([Engine::Sqlite; 2], "").await;
        let (alice, bob) = (victim.user("alice").await, honest.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let (_, name) = alice.id.split_once(':').unwrap();
        let address = Victim {
            name: name.try_into().unwrap(),
            address: victim.federation_address(),
        };
        bob.post(&format!("join/{}?via={name}", escaped(&room)), json!({}))
            .await
            .ok();
        let mut stage = Self {
            since: alice.sync(None).await.next(),
            victim,
            _honest: honest,
            address,
            alice,
            bob,
            room,
            quiet: Duration::ZERO,
            memory: 0,
        };
        stage.median().await;
        stage.quiet = stage.median().await;
        stage.memory = stage.victim.resident_bytes();
        stage
    }

    /// The median time from a request to the honest server to the victim's user who waits for it.
    async fn median(&mut self) -> Duration {
        let mut all = Vec::new();
        for _ in 0..MESSAGES {
            let begun = Instant::now();
            let event = self.bob.send(&self.room, "honest").await;
            loop {
                let synced = self.alice.wait(&self.since).await;
                self.since = synced.next();
                if synced.timeline(&self.room).contains(&event) {
                    break;
                }
            }
            all.push(begun.elapsed());
        }
        all.sort();
        all[all.len() / 2]
    }

    /// Measures during an attack, which goes on until it is dropped. Other things may go on on the machine as well, and not
    /// all the time: one of several rounds has to do, each with the quiet around it.
    async fn endures<A: Future<Output = JoinSet<()>>>(&mut self, case: &str, attack: impl Fn() -> A) {
        for round in 1..=ROUNDS {
            // What it held for the passwords of the first users is given back after a while.
            self.memory = self.memory.min(self.victim.resident_bytes());
            let attack = attack().await;
            // Long enough to bite.
            sleep(Duration::from_secs(1)).await;
            let median = self.median().await;
            let memory = self.victim.resident_bytes();
            drop(attack);
            let (grown, quiet) = (memory.saturating_sub(self.memory), self.quiet);
            println!(
                "{case}: median {median:?} (quiet {quiet:?}), {} KiB more memory",
                grown / 1024
            );
            assert!(self.victim.is_running(), "{case}: {}", self.victim.log());
            assert!(grown <= MEMORY, "{case}: {} MiB more memory", grown >> 20);
            if median <= 2 * quiet + SLACK {
                return;
            }
            assert!(round < ROUNDS, "{case}: median {median:?}, quiet {quiet:?}");
            self.median().await;
            self.quiet = self.median().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_peer_hardly_notices() {
    let mut stage = Stage::set().await;
    let victim = &stage.address.clone();
    let liar = &Arc::new(Liar::start(80, victim));
    let foothold = &liar.join(victim, &stage.room).await;
    stage.endures("datagrams", || datagrams(victim, foothold)).await;
    stage.endures("requests", || requests(victim)).await;
    stage.endures("connections", || connections(victim)).await;
    stage.endures("frames without end", || endless(victim)).await;
    stage.endures("forged events", || forged(victim, foothold)).await;
    let nowhere = || nowhere(victim, liar, foothold);
    stage.endures("events that lead nowhere", nowhere).await;
    let extremities = || extremities(victim, foothold);
    stage.endures("extremities that are nowhere", extremities).await;
    liar.fall_silent();
    stage
        .endures("events that lead nowhere, and silence when asked", nowhere)
        .await;
}

/// Datagrams as fast as they can be sent.
async fn datagrams(victim: &Victim, foothold: &Foothold) -> JoinSet<()> {
    let raw = Raw::connect(81, victim).await;
    let typing = Datagram::Typing(Typing {
        room_id: foothold.room_id.clone(),
        user_id: format!("@liar:{}", LiarKeys::of(81).name()).try_into().unwrap(),
        typing: true,
        lifetime_ms: 10_000,
    });
    let bytes = Bytes::from(encode_datagram(&typing).unwrap());
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        loop {
            for _ in 0..50 {
                let _ = raw.link.send_datagram(bytes.clone());
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    attack
}

/// Thousands of requests at once: opened as fast as the victim lets, sent in part, never ended.
async fn requests(victim: &Victim) -> JoinSet<()> {
    let raw = Raw::connect(82, victim).await;
    let mut attack = JoinSet::new();
    for number in 0..2_000 {
        let link = Arc::clone(&raw.link);
        attack.spawn(async move {
            let Ok((mut request, _answer)) = link.open_request().await else {
                return;
            };
            // Some announce much, some are refused at once.
            let length: u32 = if number % 2 == 0 { 1 << 20 } else { 8 << 20 };
            let _ = request.write_all(&length.to_be_bytes()).await;
            let _ = request.write_all(&[0; 1_000]).await;
            sleep(Duration::from_secs(600)).await;
        });
    }
    attack.spawn(async move {
        let _open = raw;
        sleep(Duration::from_secs(600)).await;
    });
    attack
}

/// Connections that say nothing, some hundred a second, from keys that nobody knows. What they cost is the handshake, on
/// both sides and here on the same cores, so there is a pause between them.
async fn connections(victim: &Victim) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    for seed in 0..2 {
        let address = victim.address;
        attack.spawn(async move {
            let socket = BoundSocket::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let transport = Quic::new(&SecretKey::from_seed(&[100 + seed; 32]), socket).unwrap();
            let mut held = Vec::new();
            loop {
                if let Ok(link) = transport.dial(address, None).await {
                    held.push(link);
                }
                if held.len() > 100 {
                    held.clear();
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
    attack
}

/// Large frames that never end, from several peers.
async fn endless(victim: &Victim) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    for seed in 83..87 {
        let mut raw = Raw::connect(seed, victim).await;
        attack.spawn(async move {
            let _ = raw.log.write_all(&(8_u32 << 20).to_be_bytes()).await;
            let _ = raw.log.write_all(&vec![0; (8 << 20) - 1]).await;
            sleep(Duration::from_secs(600)).await;
        });
    }
    attack
}

/// Log frames with these items, as fast as the victim acknowledges them: a window of 1,024 items at a time.
async fn log_flood(seed: u8, victim: &Victim, items: Vec<maru_protocol::wire::LogItem>) -> JoinSet<()> {
    let liar = Liar::start(seed, victim);
    let victim = victim.clone();
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        loop {
            let _ = timeout(TURN, liar.say(&victim, items.iter().cloned())).await;
        }
    });
    attack
}

/// Events with wrong signatures, each of which costs a check.
async fn forged(victim: &Victim, foothold: &Foothold) -> JoinSet<()> {
    let keys = LiarKeys::of(87);
    let forger = Foothold {
        user: format!("@liar:{}", keys.name()).try_into().unwrap(),
        server: keys.name(),
        key: SigningKey {
            id: keys.signing.id.clone(),
            secret: SecretKey::from_seed(&[97; 32]),
        },
        ..foothold.clone()
    };
    let items = (0..500).map(|n| foothold.item(&forger.message(&format!("forged {n}")).json));
    log_flood(87, victim, items.collect()).await
}

/// Well-signed events of a member that name what nobody has: each asks for a search.
async fn nowhere(victim: &Victim, liar: &Arc<Liar>, foothold: &Foothold) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    let (victim, liar, foothold) = (victim.clone(), Arc::clone(liar), foothold.clone());
    attack.spawn(async move {
        let mut number = 0_u64;
        loop {
            let mut items = Vec::new();
            for _ in 0..100 {
                number += 1;
                let mut lost = foothold.clone();
                lost.prev_events = vec![format!("${number:043}").try_into().unwrap()];
                lost.depth += number;
                items.push(foothold.item(&lost.message("where am I?").json));
            }
            let _ = timeout(TURN, liar.say(&victim, items)).await;
        }
    });
    attack
}

/// Extremities that nobody has, as often as the protocol allows.
async fn extremities(victim: &Victim, foothold: &Foothold) -> JoinSet<()> {
    let mut raw = Raw::connect(88, victim).await;
    let room_id = foothold.room_id.clone();
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        for frame in 0..190_u64 {
            let rooms = (0..100).map(|room| RoomExtremities {
                room_id: room_id.clone(),
                extremities: (0..10)
                    .map(|n| {
                        format!("${:043}", frame * 10_000 + room * 100 + n)
                            .try_into()
                            .unwrap()
                    })
                    .collect(),
            });
            let message = Message::Extremities(maru_protocol::wire::message::Extremities {
                rooms: rooms.collect(),
            });
            if raw.log.write_all(&encode(&message).unwrap()).await.is_err() {
                return;
            }
        }
        let empty = Message::Log(Log {
            number: 1,
            items: Vec::new(),
            cursor: Cursor::default(),
        });
        let _ = raw.log.write_all(&encode(&empty).unwrap()).await;
        sleep(Duration::from_secs(600)).await;
    });
    attack
}
