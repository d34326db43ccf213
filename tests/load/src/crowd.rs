//! A homeserver with many users, inside the driver: all of them join a room of the homeserver under load.
//!
//! Ten thousand accounts of the homeserver itself would cost as many password hashes, minutes of them; and most members
//! of a large room are on other homeservers anyway. Every join is signed, sent by the log and judged like any other.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maru_federation::homeserver::{Claim, Failure, Finished, LogPage, Parts, Rejection};
use maru_federation::link::Transport;
use maru_federation::pool::Settings;
use maru_federation::quic::{BoundSocket, Quic};
use maru_federation::{AddressBook, Homeserver, Pool, Target};
use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::limits::{LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH};
use maru_protocol::record::EventKey;
use maru_protocol::server_name::key_name;
use maru_protocol::wire::log::{Cursor, Event as EventItem};
use maru_protocol::wire::message::{Received, RoomExtremities};
use maru_protocol::wire::request::membership::{MakeMembership, Membership, SendMembership};
use maru_protocol::wire::{Datagram, LogItem, Octets, Refused, RefusedCode, Request, Text};
use maru_protocol::{KeyId, LogId, RoomVersion, SecretKey, ServerRecord, SignedRecord, SigningKey};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde_json::json;
use tokio::sync::watch;

use crate::error::LoadError;

/// How long a server record is good for, in milliseconds: a day.
const LIFETIME_MS: u64 = 86_400_000;

/// How long the homeserver may take for all joins.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connected homeserver whose users are in a room. It goes when the value does.
pub(crate) struct Crowd {
    pool: Pool,
}

fn broken(what: impl std::fmt::Display) -> LoadError {
    LoadError::Protocol(format!("crowd: {what}"))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn new_key() -> SecretKey {
    let mut seed = [0; 32];
    rand::fill(&mut seed);
    SecretKey::from_seed(&seed)
}

impl Crowd {
    /// Has `members` users join a public room of the homeserver `at` that address. Returns once their joins are durable
    /// there; they may not have been judged yet.
    pub(crate) async fn joined(
        at: &str,
        address: SocketAddr,
        room_id: &str,
        members: usize,
    ) -> Result<Self, LoadError> {
        let at = OwnedServerName::try_from(at).map_err(broken)?;
        let room_id = OwnedRoomId::try_from(room_id).map_err(broken)?;
        let (root, tls) = (new_key(), new_key());
        let signing = SigningKey {
            id: KeyId::new("1").map_err(broken)?,
            secret: new_key(),
        };
        let record = record(&root, &tls, &signing)?;
        let (acknowledged, mut heard) = watch::channel(0);
        let inside = Arc::new(Inside {
            name: record.verify().map_err(broken)?.name.clone(),
            record,
            log: Mutex::default(),
            acknowledged,
        });
        let socket = BoundSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(broken)?;
        let transport: Arc<dyn Transport> = Arc::new(Quic::new(&tls, socket).map_err(broken)?);
        let book = Arc::new(Book(at.clone(), address));
        let pool = Pool::start(Arc::clone(&inside), book, transport, Settings::default());
        let crowd = Self { pool };
        let first = crowd.first_joins(&at, &room_id, &inside.name, &signing).await?;
        inside.say(first.followed_by(members.saturating_sub(1))?);
        crowd.pool.wake(&at);
        let all = heard.wait_for(|count| *count + 1 >= members);
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.map_err(|_| LoadError::Timeout("the crowd's joins".into()))?
            .map_err(broken)?;
        Ok(crowd)
    }

    /// Lets the first user in, by request.
    async fn first_joins(
        &self,
        at: &ServerName,
        room_id: &OwnedRoomId,
        own_name: &OwnedServerName,
        signing: &SigningKey,
    ) -> Result<Joins, LoadError> {
        let user_id = user(own_name, 0)?;
        let call = MakeMembership {
            room_id: room_id.clone(),
            user_id: user_id.clone(),
            membership: Membership::Join,
            versions: RoomVersion::ALL
                .iter()
                .filter_map(|version| Text::new(version.as_str()))
                .collect(),
        };
        let answer = self.pool.request(at, call).await.map_err(broken)?;
        let template = answer.done().await.map_err(broken)?;
        let version = RoomVersion::from_id(&template.version);
        let version = version.ok_or_else(|| broken("a room of an unknown version"))?;
        let allowing = template
            .auth_events
            .iter()
            .map(|json| Event::parse(json, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH));
        let allowing: Vec<Event> = allowing.collect::<Result<_, _>>().map_err(broken)?;
        let mut joins = Joins {
            room_id: room_id.clone(),
            version,
            own_name: own_name.clone(),
            signing: signing.clone(),
            links: Links {
                prev_events: template.prev_events.clone(),
                auth_events: allowing.into_iter().map(|event| event.id).collect(),
                depth: template.depth,
            },
        };
        let call = SendMembership {
            room_id: room_id.clone(),
            event: joins.next(&user_id)?.json.into(),
        };
        let answer = self.pool.request(at, call).await.map_err(broken)?;
        answer.done().await.map_err(broken)?;
        Ok(joins)
    }

    /// Ends the connection in order.
    pub(crate) async fn leave(self) {
        self.pool.shut_down().await;
    }
}

fn user(server_name: &ServerName, number: usize) -> Result<OwnedUserId, LoadError> {
    OwnedUserId::try_from(format!("@crowd-{number}:{server_name}")).map_err(broken)
}

/// What a made-up homeserver says of itself.
pub(crate) fn record(
    root: &SecretKey,
    tls: &SecretKey,
    signing: &SigningKey,
) -> Result<SignedRecord, LoadError> {
    let record = ServerRecord {
        name: key_name(&root.public_key()).map_err(broken)?,
        issued: now_ms(),
        relays: Vec::new(),
        expires: now_ms() + LIFETIME_MS,
        peer_id: None,
        tls_key: tls.public_key(),
        root_key: root.public_key(),
        sequence: 1,
        addresses: Vec::new(),
        signing_keys: vec![EventKey {
            id: signing.id.clone(),
            key: signing.public_key(),
            valid_until: None,
        }],
    };
    record.sign(root).map_err(broken)
}

/// Joins that are built one on the other.
struct Joins {
    room_id: OwnedRoomId,
    version: RoomVersion,
    own_name: OwnedServerName,
    signing: SigningKey,
    /// Those of the next one.
    links: Links,
}

impl Joins {
    fn next(&mut self, user_id: &OwnedUserId) -> Result<Event, LoadError> {
        let draft = Draft {
            room_id: Some(self.room_id.clone()),
            sender: user_id.clone(),
            event_type: "m.room.member".into(),
            state_key: Some(user_id.as_str().into()),
            content: Content::of(&json!({ "membership": "join", "displayname": user_id.localpart() }))
                .map_err(broken)?,
            redacts: None,
            origin_server_ts: now_ms(),
        };
        let event = build(
            draft,
            self.links.clone(),
            self.version,
            LARGE_MAX_EVENT_BYTES,
            &self.own_name,
            &self.signing,
        )
        .map_err(broken)?;
        self.links.prev_events = vec![event.id.clone()];
        self.links.depth += 1;
        Ok(event)
    }

    fn followed_by(mut self, count: usize) -> Result<Vec<LogItem>, LoadError> {
        let all = (1..=count).map(|number| {
            let user_id = user(&self.own_name, number)?;
            Ok(LogItem::Event(EventItem {
                json: self.next(&user_id)?.json.into(),
                room_id: self.room_id.clone(),
            }))
        });
        all.collect()
    }
}

/// The homeserver as its pool sees it: it has a log, and nothing to answer.
struct Inside {
    name: OwnedServerName,
    record: SignedRecord,
    log: Mutex<Vec<LogItem>>,
    /// How far the other has the log.
    acknowledged: watch::Sender<usize>,
}

impl Inside {
    fn say(&self, items: Vec<LogItem>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = items;
    }
}

fn place(cursor: &Cursor) -> usize {
    let number = <[u8; 8]>::try_from(&**cursor).map_or(0, u64::from_be_bytes);
    usize::try_from(number).unwrap_or(0)
}

struct Book(OwnedServerName, SocketAddr);

impl AddressBook for Book {
    async fn targets(&self, peer: &ServerName) -> Vec<Target> {
        let target = Target {
            address: self.1,
            key: None,
        };
        if *self.0 == *peer {
            vec![target]
        } else {
            Vec::new()
        }
    }
}

impl Homeserver for Inside {
    fn name(&self) -> &ServerName {
        &self.name
    }

    fn own_record(&self) -> SignedRecord {
        self.record.clone()
    }

    fn log_id(&self) -> LogId {
        LogId([1; 16])
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
        Ok(None)
    }

    async fn store(
        &self,
        _peer: &ServerName,
        _log_id: LogId,
        _items: Vec<LogItem>,
        _cursor: Cursor,
    ) -> Result<(), Failure> {
        Ok(())
    }

    async fn read_log(
        &self,
        _peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Failure> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let start = after.map_or(0, |after| place(&after));
        let mut bytes = 0;
        let fits = |item: &&LogItem| {
            bytes += item.weight();
            bytes <= max_bytes
        };
        let rest = log.get(start..).unwrap_or_default().iter();
        let items: Vec<_> = rest.take(max_items).take_while(fits).cloned().collect();
        let end = start + items.len();
        Ok(LogPage {
            cursor: Octets::new(&(end as u64).to_be_bytes())
                .ok_or_else(|| Failure("a cursor that is too long".into()))?,
            more: end < log.len(),
            items,
        })
    }

    async fn acknowledged(&self, _peer: &ServerName, cursor: Cursor) -> Result<(), Failure> {
        self.acknowledged.send_replace(place(&cursor));
        Ok(())
    }

    async fn extremities(&self, _peer: &ServerName) -> Result<Vec<RoomExtremities>, Failure> {
        Ok(Vec::new())
    }

    async fn heard_extremities(&self, _peer: &ServerName, _rooms: Vec<RoomExtremities>) {}

    async fn answer(
        &self,
        _peer: &ServerName,
        _request: Request,
        _parts: Parts,
    ) -> Result<Finished, Refused> {
        Err(Refused::new(
            RefusedCode::NotFound,
            "nothing is told by this server",
        ))
    }

    fn heard_datagram(&self, _peer: &ServerName, _datagram: Datagram) {}
}
