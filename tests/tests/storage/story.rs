//! Rooms to store: real signed events, in chains.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use maru::store::log::{HeadTicket, Record};
use maru::store::rooms::events::{NewTransaction, StoredEvent};
use maru::store::rooms::state::NewState;
use maru::store::rooms::{Membership, NewRoom, RoomHead};
use maru_protocol::Content;
use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{Place, Position};
use maru_protocol::event::{Draft, Links, build};
use maru_protocol::ingest::Extremity;
use maru_protocol::key::{KeyId, SecretKey, SigningKey};
use maru_protocol::limits::LARGE_MAX_EVENT_BYTES;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::version::RoomVersion;
use maru_tests::model::NewChange;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, server_name};
use serde_json::{Value, json};

/// Local numbers, unique in this process.
static NUMBERS: AtomicI64 = AtomicI64::new(1);

/// A user of the server that all stories happen on.
pub(super) fn user(name: &str) -> OwnedUserId {
    format!("@{name}:story.example").try_into().unwrap()
}

/// A room that grows event by event.
pub(super) struct Room {
    pub(super) nid: i64,
    pub(super) id: OwnedRoomId,
    generation: Arc<AtomicU64>,
    key: SigningKey,
    last: Vec<OwnedEventId>,
    places: i64,
    pub(super) state: State,
}

/// A change that stores one event.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) change: NewChange,
    pub(super) stored: Arc<StoredEvent>,
}

impl Told {
    pub(super) fn id(&self) -> &OwnedEventId {
        &self.stored.event.id
    }
}

impl Room {
    /// A room and the change that makes it.
    pub(super) fn new() -> (Self, NewChange) {
        let nid = next();
        let id: OwnedRoomId = format!("!room{nid}:story.example").try_into().unwrap();
        let mut room = Self {
            nid,
            id: id.clone(),
            generation: Arc::default(),
            key: SigningKey {
                id: KeyId::new("story").unwrap(),
                secret: SecretKey::from_seed(&[7; 32]),
            },
            last: Vec::new(),
            places: 0,
            state: State::default(),
        };
        let mut told = room
            .state_event("m.room.create", "", json!({ "room_version": "11" }))
            .change;
        let new_room = NewRoom {
            nid,
            room_id: id,
            version: "11".into(),
            published: false,
            created_at: 0,
        };
        told.records.insert(0, Record::Room(new_room));
        told.tickets.clear();
        (room, told)
    }

    pub(super) fn message(&mut self, text: &str) -> Told {
        self.event(
            "m.room.message",
            None,
            json!({ "body": text, "msgtype": "m.text" }),
        )
    }

    /// A message under a client's transaction id.
    pub(super) fn message_as(&mut self, text: &str, device: &str, transaction: &str) -> Told {
        let mut told = self.message(text);
        told.change.records.push(Record::Transaction(NewTransaction {
            user_id: user("alice"),
            device_id: device.to_owned(),
            scope: "send".to_owned(),
            used_at: 0,
            transaction_id: transaction.to_owned(),
            event_id: told.id().clone(),
        }));
        told
    }

    pub(super) fn membership(&mut self, name: &str, membership: &str) -> Told {
        let user_id = user(name);
        let mut told = self.state_event(
            "m.room.member",
            user_id.as_str(),
            json!({ "membership": membership }),
        );
        told.change.records.push(Record::Membership(Membership {
            room: self.nid,
            user_id,
            membership: membership.to_owned(),
            event: told.stored.nid,
            stripped_state: None,
        }));
        told
    }

    fn state_event(&mut self, event_type: &str, state_key: &str, content: Value) -> Told {
        self.event(event_type, Some(state_key), content)
    }

    /// An event on the newest one, tied to the head it stands on.
    fn event(&mut self, event_type: &str, state_key: Option<&str>, content: Value) -> Told {
        self.places += 1;
        let nid = EventNid(next());
        let draft = Draft {
            room_id: Some(self.id.clone()),
            sender: user("alice"),
            event_type: event_type.into(),
            state_key: state_key.map(Into::into),
            content: Content::of(&content).unwrap(),
            redacts: None,
            origin_server_ts: 1_700_000_000_000,
        };
        let links = Links {
            prev_events: std::mem::take(&mut self.last),
            auth_events: Vec::new(),
            depth: self.places.unsigned_abs(),
        };
        let server = server_name!("story.example");
        let event = build(
            draft,
            links,
            RoomVersion::V11,
            LARGE_MAX_EVENT_BYTES,
            server,
            &self.key,
        )
        .unwrap();
        self.last = vec![event.id.clone()];
        let mut records = Vec::new();
        if let Some(slot) = StateSlot::of(&event) {
            self.state = self.state.with(StateNid(nid.0), [(slot.hash(), Some(nid))]);
            records.push(Record::State(NewState::of(self.nid, self.state.top().unwrap())));
        }
        let place = Place(self.places);
        let stored = Arc::new(StoredEvent::new(
            Arc::new(event),
            nid,
            self.nid,
            Some(place),
            self.state.nid(),
        ));
        records.push(Record::Event(Arc::clone(&stored)));
        let extremities = self.last.iter().map(|id| Extremity {
            id: id.clone(),
            state: self.state.clone(),
        });
        records.push(Record::Head(RoomHead {
            room: self.nid,
            extremities: extremities.collect(),
            state: self.state.clone(),
            servers: Arc::default(),
            first_place: Place(1),
            last_place: place,
            depth: self.places.unsigned_abs(),
            joined: 0,
            invited: 0,
            position: Position::START,
        }));
        let change = NewChange {
            records,
            tickets: vec![self.ticket()],
        };
        Told { change, stored }
    }

    /// The head that the next change is built on.
    fn ticket(&self) -> HeadTicket {
        HeadTicket {
            built_on: self.generation.load(Ordering::SeqCst),
            current: Arc::clone(&self.generation),
        }
    }
}

fn next() -> i64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
