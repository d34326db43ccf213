//! A peer of whom everything can be made up: its keys, its record, its log, where it claims to be in ours, and what it
//! answers. What it does not lie about it does by the book.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maru_federation::homeserver::{Claim, Failure, Finished, LogPage, Parts, Rejection};
use maru_federation::link::Transport;
use maru_federation::pool::Settings;
use maru_federation::quic::{BoundSocket, Quic};
use maru_federation::{AddressBook, Homeserver, Pool, Target};
use maru_protocol::record::EventKey;
use maru_protocol::server_name::key_name;
use maru_protocol::wire::log::Cursor;
use maru_protocol::wire::message::{Received, RoomExtremities};
use maru_protocol::wire::request::records::Records;
use maru_protocol::wire::{Datagram, LogItem, Octets, Part, Refused, RefusedCode, Request};
use maru_protocol::{KeyId, LogId, SecretKey, ServerRecord, SignedRecord, SigningKey};
use maru_tests::TestServer;
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use tokio::time::{Instant, sleep};

/// How long anything may take before it counts as never, also on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a liar answers to a request.
type Answer = Box<dyn Fn(Request) -> Reply + Send + Sync>;

/// The parts and the end of an answer.
pub(super) type Reply = Result<(Vec<Part>, Finished), Refused>;

/// A peer that lies.
pub(super) struct Liar {
    pub(super) name: OwnedServerName,
    pub(super) keys: LiarKeys,
    pub(super) pool: Pool,
    pub(super) address: SocketAddr,
    lies: Arc<Lies>,
}

/// The keys of a made-up server, all from one seed.
#[derive(Clone)]
pub(super) struct LiarKeys {
    pub(super) root: SecretKey,
    pub(super) tls: SecretKey,
    pub(super) signing: SigningKey,
}

impl LiarKeys {
    pub(super) fn of(seed: u8) -> Self {
        let key = |purpose: u8| {
            let mut bytes = [seed; 32];
            bytes[0] = purpose;
            SecretKey::from_seed(&bytes)
        };
        Self {
            root: key(1),
            tls: key(2),
            signing: SigningKey {
                id: KeyId::new("1").unwrap(),
                secret: key(3),
            },
        }
    }

    pub(super) fn name(&self) -> OwnedServerName {
        key_name(&self.root.public_key()).unwrap()
    }

    /// A record with these keys, good for a day.
    pub(super) fn record(&self, sequence: u64) -> ServerRecord {
        ServerRecord {
            name: self.name(),
            issued: now_ms(),
            relays: Vec::new(),
            expires: now_ms() + 86_400_000,
            peer_id: None,
            tls_key: self.tls.public_key(),
            root_key: self.root.public_key(),
            sequence,
            addresses: Vec::new(),
            signing_keys: vec![EventKey {
                id: self.signing.id.clone(),
                key: self.signing.public_key(),
                valid_until: None,
            }],
        }
    }

    pub(super) fn signed_record(&self, sequence: u64) -> SignedRecord {
        self.record(sequence).sign(&self.root).unwrap()
    }
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// What the liar says when it is asked by its pool.
struct Lies {
    name: OwnedServerName,
    record: SignedRecord,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// Its log.
    log: Vec<LogItem>,
    /// How far it has the other's log.
    received: Option<Received>,
    /// What it heard of the other's log.
    heard: Vec<LogItem>,
    /// Where it says that its rooms end.
    ends: Vec<RoomExtremities>,
    /// Extremities that it was told.
    told: Vec<RoomExtremities>,
    /// How far the other has its log.
    acknowledged: usize,
    answer: Option<Answer>,
    /// Which requests it takes and never answers.
    silent_about: Option<fn(&Request) -> bool>,
}

/// Where a server is that a liar speaks with, and by which name.
#[derive(Clone)]
pub(super) struct Victim {
    pub(super) name: OwnedServerName,
    pub(super) address: SocketAddr,
}

impl Victim {
    /// A server in this process, with its federation socket open.
    pub(super) async fn of(server: &TestServer) -> Self {
        Self {
            name: server.parts().identity.server_name.clone(),
            address: server.open_federation().await,
        }
    }
}

struct Book(Victim);

impl AddressBook for Book {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let known = *peer == *self.0.name;
        let target = Target {
            address: self.0.address,
            key: None,
        };
        if known { vec![target] } else { Vec::new() }
    }
}

impl Liar {
    /// A liar that knows where one server is.
    pub(super) fn start(seed: u8, victim: &Victim) -> Self {
        let keys = LiarKeys::of(seed);
        let record = keys.signed_record(now_ms());
        Self::with(keys, record, victim)
    }

    /// A liar that shows this record, whatever keys it holds.
    pub(super) fn with(keys: LiarKeys, record: SignedRecord, victim: &Victim) -> Self {
        Self::claiming(keys.name(), keys, record, victim)
    }

    /// A liar that claims this name and shows this record.
    pub(super) fn claiming(
        name: OwnedServerName,
        keys: LiarKeys,
        record: SignedRecord,
        victim: &Victim,
    ) -> Self {
        let lies = Arc::new(Lies {
            name,
            record,
            said: Mutex::default(),
        });
        let socket = BoundSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let quic = Quic::new(&keys.tls, socket).unwrap();
        let address = quic.local_address().unwrap();
        let transport: Arc<dyn Transport> = Arc::new(quic);
        let settings = Settings {
            first_retry: Duration::from_millis(20),
            longest_retry: Duration::from_millis(500),
            ..Settings::default()
        };
        let pool = Pool::start(
            Arc::clone(&lies),
            Arc::new(Book(victim.clone())),
            transport,
            settings,
        );
        Self {
            name: lies.name.clone(),
            keys,
            pool,
            address,
            lies,
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.lies.said.lock().unwrap()
    }

    /// Puts something into its log and waits until the victim has stored it.
    pub(super) async fn say(&self, victim: &Victim, items: impl IntoIterator<Item = LogItem>) {
        let end = {
            let mut said = self.said();
            said.log.extend(items);
            said.log.len()
        };
        self.pool.wake(&victim.name);
        eventually("the victim stores what the liar says", || {
            self.said().acknowledged >= end
        })
        .await;
    }

    /// Asks the victim for anything, so that they are connected.
    pub(super) async fn greet(&self, victim: &Victim) {
        let call = Records { servers: Vec::new() };
        let asked = self.pool.request(&victim.name, call).await.unwrap();
        asked.done().await.unwrap();
    }

    /// What it claims to have of the victim's log when it connects next.
    pub(super) fn claim_received(&self, received: Option<Received>) {
        self.said().received = received;
    }

    /// What it has heard of the victim's log.
    pub(super) fn heard(&self) -> Vec<LogItem> {
        self.said().heard.clone()
    }

    /// Says where a room of it ends.
    pub(super) fn tell(&self, victim: &Victim, room_id: &RoomId, extremities: Vec<OwnedEventId>) {
        self.said().ends = vec![RoomExtremities {
            room_id: room_id.to_owned(),
            extremities,
        }];
        self.pool.owe_extremities(&victim.name);
    }

    /// The extremities that it was told so far.
    pub(super) fn told(&self) -> Vec<RoomExtremities> {
        self.said().told.clone()
    }

    /// From now on it answers nothing: who asks waits until he has had enough.
    pub(super) fn fall_silent(&self) {
        self.keep_silent_about(|_| true);
    }

    /// From now on it answers none of these requests.
    pub(super) fn keep_silent_about(&self, is_it: fn(&Request) -> bool) {
        self.said().silent_about = Some(is_it);
    }

    /// What it answers from now on.
    pub(super) fn answer_with(&self, answer: impl Fn(Request) -> Reply + Send + Sync + 'static) {
        self.said().answer = Some(Box::new(answer));
    }
}

fn place(cursor: &Cursor) -> usize {
    usize::try_from(u64::from_be_bytes((**cursor).try_into().unwrap())).unwrap()
}

impl Homeserver for Lies {
    fn name(&self) -> &ServerName {
        &self.name
    }

    fn own_record(&self) -> SignedRecord {
        self.record.clone()
    }

    fn log_id(&self) -> LogId {
        LogId([7; 16])
    }

    fn keeps_connected(&self, _peer: &ServerName) -> bool {
        true
    }

    async fn judge(&self, _claim: Claim) -> Result<(), Rejection> {
        Ok(())
    }

    async fn heard_record(&self, _peer: &ServerName, _record: SignedRecord) -> Result<(), Rejection> {
        Ok(())
    }

    async fn received(&self, _peer: &ServerName) -> Result<Option<Received>, Failure> {
        Ok(self.said.lock().unwrap().received.clone())
    }

    async fn store(
        &self,
        _peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Failure> {
        let mut said = self.said.lock().unwrap();
        said.heard.extend(items);
        said.received = Some(Received { log_id, cursor });
        Ok(())
    }

    async fn read_log(
        &self,
        _peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Failure> {
        let said = self.said.lock().unwrap();
        let start = after.map_or(0, |after| place(&after));
        let mut bytes = 0;
        let fits = |item: &&LogItem| {
            bytes += item.weight();
            bytes <= max_bytes
        };
        let items: Vec<_> = said.log[start..]
            .iter()
            .take(max_items)
            .take_while(fits)
            .cloned()
            .collect();
        let end = start + items.len();
        Ok(LogPage {
            items,
            cursor: Octets::new(&u64::try_from(end).unwrap().to_be_bytes()).unwrap(),
            more: end < said.log.len(),
        })
    }

    async fn acknowledged(&self, _peer: &ServerName, cursor: Cursor) -> Result<(), Failure> {
        self.said.lock().unwrap().acknowledged = place(&cursor);
        Ok(())
    }

    async fn extremities(&self, _peer: &ServerName) -> Result<Vec<RoomExtremities>, Failure> {
        Ok(self.said.lock().unwrap().ends.clone())
    }

    async fn heard_extremities(&self, _peer: &ServerName, rooms: Vec<RoomExtremities>) {
        self.said.lock().unwrap().told.extend(rooms);
    }

    async fn answer(&self, _peer: &ServerName, request: Request, parts: Parts) -> Result<Finished, Refused> {
        let silent_about = self.said.lock().unwrap().silent_about;
        if silent_about.is_some_and(|is_it| is_it(&request)) {
            sleep(10 * PATIENCE).await;
        }
        let answer = match &self.said.lock().unwrap().answer {
            Some(answer) => answer(request),
            None => Err(Refused::new(RefusedCode::NotFound, "no")),
        };
        let (all, finished) = answer?;
        for part in all {
            parts.send(part).await?;
        }
        Ok(finished)
    }

    fn heard_datagram(&self, _peer: &ServerName, _datagram: Datagram) {}
}

/// Waits for something that nobody tells of.
///
/// # Panics
/// When it does not come.
#[track_caller]
pub(super) fn eventually<'a>(what: &'a str, holds: impl Fn() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what} ({caller})");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
