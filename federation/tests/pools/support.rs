//! A homeserver in memory, and pools between several of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use maru_federation::{
    AddressBook, Homeserver, Pool, Target,
    homeserver::{Claim, Failure, Finished, LogPage, Parts, Rejection},
    link::Transport,
    pool::Settings,
    quic::{BoundSocket, Quic},
};
use maru_protocol::{
    KeyId, LogId, SecretKey, ServerRecord, SignedRecord,
    record::EventKey,
    server_name::key_name,
    wire::{
        CloseCode, Cursor, Datagram, LogItem, Octets, Part, Refused, RefusedCode, Request,
        log::DeviceList,
        message::{Received, RoomExtremities},
        request::{
            Nothing,
            directory::{Profile, UserProfile},
            media::Media,
            records::Records,
        },
    },
};
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use tokio::{sync::Notify, time::timeout};

/// How long anything in a test may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server has stored: it outlives the pools that come and go.
#[derive(Default)]
pub(crate) struct Stored {
    /// The log of this server, the same for every peer.
    pub(crate) log: Vec<LogItem>,
    /// How far the log of each peer is stored.
    pub(crate) received: BTreeMap<OwnedServerName, Received>,
    /// What came from each peer, in order.
    pub(crate) inbox: BTreeMap<OwnedServerName, Vec<LogItem>>,
    /// How far each peer has our log.
    pub(crate) acknowledged: BTreeMap<OwnedServerName, u64>,
    /// Where each reading of our log began.
    pub(crate) read_from: Vec<(OwnedServerName, u64)>,
    pub(crate) extremities_heard: usize,
    pub(crate) datagrams: usize,
    /// Connections that became ready, and that are gone.
    pub(crate) connections: (usize, usize),
    pub(crate) denied: BTreeSet<OwnedServerName>,
    pub(crate) keeps: bool,
    /// Whether storing fails.
    pub(crate) broken: bool,
    pub(crate) records_heard: usize,
}

/// A homeserver in memory.
pub(crate) struct MemoryServer {
    pub(crate) name: OwnedServerName,
    pub(crate) tls: SecretKey,
    record: SignedRecord,
    log_id: LogId,
    stored: Mutex<Stored>,
    changed: Notify,
    /// Lets the requests for records go on that wait for it.
    pub(crate) gate: Notify,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// The record of the server of a seed, with this TLS key.
pub(crate) fn record(seed: u8, tls: &SecretKey, sequence: u64) -> SignedRecord {
    let root = key(seed);
    ServerRecord {
        name: key_name(&root.public_key()).unwrap(),
        issued: 1,
        relays: vec![],
        expires: 1_000_000,
        peer_id: None,
        tls_key: tls.public_key(),
        root_key: root.public_key(),
        sequence,
        addresses: vec![],
        signing_keys: vec![EventKey {
            id: KeyId::new("1").unwrap(),
            key: key(seed + 100).public_key(),
            valid_until: None,
        }],
    }
    .sign(&root)
    .unwrap()
}

impl MemoryServer {
    pub(crate) fn new(seed: u8) -> Arc<Self> {
        let tls = key(seed + 50);
        let record = record(seed, &tls, 1);
        Self::with(seed, tls, record)
    }

    /// A server that shows this record, whatever keys it holds.
    pub(crate) fn with(seed: u8, tls: SecretKey, record: SignedRecord) -> Arc<Self> {
        Arc::new(Self {
            name: record.verify().unwrap().name.clone(),
            tls,
            record,
            log_id: LogId([seed; 16]),
            stored: Mutex::new(Stored {
                keeps: true,
                ..Stored::default()
            }),
            changed: Notify::new(),
            gate: Notify::new(),
        })
    }

    pub(crate) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Stored) -> T) -> T {
        let out = change(&mut self.stored());
        self.changed.notify_waiters();
        out
    }

    /// Appends numbered items to the log.
    pub(crate) fn append(&self, numbers: std::ops::Range<usize>) {
        self.change(|stored| stored.log.extend(numbers.map(item)));
    }

    /// Waits until something holds of what is stored.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Stored) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.stored()) {
                    return;
                }
                changed.await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
    }

    /// Waits until everything up to a number has come from a peer, and checks that it came once, in order.
    pub(crate) async fn until_received(&self, peer: &MemoryServer, numbers: usize) {
        let has = |stored: &Stored| stored.inbox.get(&peer.name).map_or(0, Vec::len) >= numbers;
        self.until("the whole log received", has).await;
        let expected: Vec<LogItem> = (0..numbers).map(item).collect();
        assert!(
            self.stored().inbox[&peer.name] == expected,
            "lost, doubled or out of order"
        );
    }
}

/// The item of a number.
pub(crate) fn item(number: usize) -> LogItem {
    let user_id = OwnedUserId::try_from(format!("@{number}:example.org")).unwrap();
    LogItem::DeviceList(DeviceList { user_id })
}

fn cursor(position: u64) -> Cursor {
    Octets::new(&position.to_be_bytes()).unwrap()
}

fn position(cursor: &Cursor) -> u64 {
    u64::from_be_bytes((**cursor).try_into().unwrap())
}

impl Homeserver for MemoryServer {
    fn name(&self) -> &ServerName {
        &self.name
    }

    fn own_record(&self) -> SignedRecord {
        self.record.clone()
    }

    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn keeps_connected(&self, _peer: &ServerName) -> bool {
        self.stored().keeps
    }

    async fn judge(&self, claim: Claim) -> Result<(), Rejection> {
        let refuse = |code| Err(Rejection::new(code, "no"));
        let Ok(record) = claim.record.verify() else {
            return refuse(CloseCode::NotProven);
        };
        if record.name != claim.name || record.tls_key != claim.tls_key {
            return refuse(CloseCode::NotProven);
        }
        if self.stored().denied.contains(&claim.name) {
            return refuse(CloseCode::Denied);
        }
        Ok(())
    }

    async fn heard_record(&self, _peer: &ServerName, record: SignedRecord) -> Result<(), Rejection> {
        record
            .verify()
            .map_err(|_| Rejection::new(CloseCode::NotProven, "no record"))?;
        self.change(|stored| stored.records_heard += 1);
        Ok(())
    }

    async fn received(&self, peer: &ServerName) -> Result<Option<Received>, Failure> {
        Ok(self.stored().received.get(peer).cloned())
    }

    async fn store(
        &self,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Failure> {
        self.change(|stored| {
            if stored.broken {
                return Err(Failure("the disk is full".into()));
            }
            stored.inbox.entry(peer.to_owned()).or_default().extend(items);
            stored
                .received
                .insert(peer.to_owned(), Received { log_id, cursor });
            Ok(())
        })
    }

    async fn read_log(
        &self,
        peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Failure> {
        let start = after.map_or(0, |after| position(&after));
        let mut stored = self.stored();
        stored.read_from.push((peer.to_owned(), start));
        let mut bytes = 0;
        let items: Vec<LogItem> = stored.log[start as usize..]
            .iter()
            .take(max_items)
            .take_while(|item| {
                bytes += item.weight();
                bytes <= max_bytes
            })
            .cloned()
            .collect();
        let end = start + items.len() as u64;
        let more = (end as usize) < stored.log.len();
        Ok(LogPage {
            items,
            cursor: cursor(end),
            more,
        })
    }

    async fn acknowledged(&self, peer: &ServerName, cursor: Cursor) -> Result<(), Failure> {
        self.change(|stored| stored.acknowledged.insert(peer.to_owned(), position(&cursor)));
        Ok(())
    }

    async fn extremities(&self, _peer: &ServerName) -> Result<Vec<RoomExtremities>, Failure> {
        Ok(vec![RoomExtremities {
            room_id: ruma::owned_room_id!("!shared:example.org"),
            extremities: vec![],
        }])
    }

    async fn heard_extremities(&self, _peer: &ServerName, rooms: Vec<RoomExtremities>) {
        self.change(|stored| stored.extremities_heard += rooms.len());
    }

    /// Profiles are known, media come in as many parts as their id says, records wait for the gate.
    async fn answer(&self, _peer: &ServerName, request: Request, parts: Parts) -> Result<Finished, Refused> {
        match request {
            Request::Profile(asked) => {
                let profile = format!(r#"{{"displayname":"{}"}}"#, asked.user_id.localpart());
                Finished::done::<Profile>(UserProfile {
                    profile: profile.as_str().into(),
                })
            }
            Request::Media(asked) => {
                for number in 0..asked.media_id.parse().unwrap_or(0) {
                    parts.send(part(number)).await?;
                }
                Finished::done::<Media>(Nothing {})
            }
            Request::Records(_) => {
                self.gate.notified().await;
                Finished::done::<Records>(Nothing {})
            }
            _ => Err(Refused::new(RefusedCode::Forbidden, "not for you")),
        }
    }

    fn heard_datagram(&self, _peer: &ServerName, _datagram: Datagram) {
        self.change(|stored| stored.datagrams += 1);
    }

    fn connected(&self, _peer: &ServerName, connected: bool) {
        self.change(|stored| match connected {
            true => stored.connections.0 += 1,
            false => stored.connections.1 += 1,
        });
    }
}

/// A part of media: 64 KiB of one byte.
pub(crate) fn part(number: u8) -> Part {
    Part {
        data: Octets::new(&vec![number; 64 * 1024]).unwrap(),
        ..Part::default()
    }
}

/// Where everybody is.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<BTreeMap<OwnedServerName, Vec<Target>>>>);

impl Book {
    pub(crate) fn list(&self, server: &MemoryServer, targets: Vec<Target>) {
        self.0.lock().unwrap().insert(server.name.clone(), targets);
    }
}

impl AddressBook for Book {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        self.0.lock().unwrap().get(peer).cloned().unwrap_or_default()
    }
}

/// Settings that do not make a test wait.
pub(crate) fn quick() -> Settings {
    Settings {
        first_retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(200),
        ..Settings::default()
    }
}

/// A pool of a server on a free port, and its address.
pub(crate) fn start(server: &Arc<MemoryServer>, book: &Book, settings: Settings) -> (Pool, SocketAddr) {
    start_at(server, book, settings, SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A pool of a server at an address.
pub(crate) fn start_at(
    server: &Arc<MemoryServer>,
    book: &Book,
    settings: Settings,
    address: SocketAddr,
) -> (Pool, SocketAddr) {
    let quic = Quic::new(&server.tls, BoundSocket::bind(address).unwrap()).unwrap();
    let address = quic.local_address().unwrap();
    let transport: Arc<dyn Transport> = Arc::new(quic);
    let pool = Pool::start(server.clone(), Arc::new(book.clone()), transport, settings);
    (pool, address)
}

/// The address of a server, with its key expected there.
pub(crate) fn target(server: &MemoryServer, address: SocketAddr) -> Vec<Target> {
    vec![Target {
        address,
        key: Some(server.tls.public_key()),
    }]
}

/// Two servers that know each other's address.
pub(crate) struct Two {
    pub(crate) a: Arc<MemoryServer>,
    pub(crate) b: Arc<MemoryServer>,
    pub(crate) to_a: Pool,
    pub(crate) to_b: Pool,
    pub(crate) book: Book,
}

impl Two {
    /// `to_a` is the pool of `b`, through which it reaches `a`, and the other way round.
    pub(crate) fn start(settings: Settings) -> Self {
        let (a, b, book) = (MemoryServer::new(1), MemoryServer::new(2), Book::default());
        let (to_b, address_a) = start(&a, &book, settings);
        let (to_a, address_b) = start(&b, &book, settings);
        book.list(&a, target(&a, address_a));
        book.list(&b, target(&b, address_b));
        Self {
            a,
            b,
            to_a,
            to_b,
            book,
        }
    }

    pub(crate) async fn stop(self) {
        tokio::join!(self.to_a.shut_down(), self.to_b.shut_down());
        for server in [&self.a, &self.b] {
            let stored = server.stored();
            assert_eq!(
                stored.connections.0, stored.connections.1,
                "every connection is told gone once"
            );
        }
    }
}

/// Waits until something is to be seen that nobody tells us of.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "never: {what}");
}
