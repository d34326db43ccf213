//! The three logs behind one trait.

use std::sync::{Arc, Mutex};

use maru::store::accounts::account_data::AccountData;
use maru::store::log::{Change, CommitReader, Committed};
use maru::store::rooms::events::{Direction, StoredEvent};
use maru::store::rooms::receipts::Receipt;
use maru::store::{Access, CommitLimits, Store, StoreError};
use maru_protocol::cursor::{LogId, Place, Position};
use maru_protocol::state::{State, StateNid};
use maru_tests::model::{Model, NewChange, NotStored};
use maru_tests::{Data, Engine};
use ruma::{EventId, UserId};

/// What became of a change.
pub(super) type Stored = Result<Position, NotStored>;

/// An event as it is read back: its position, its place, its JSON.
pub(super) type Read = (Position, Option<Place>, String);

/// What the contract asks of a log.
pub(super) trait Log: Sized {
    /// Appends all at once, so that they share commits where they can.
    async fn append(&self, changes: Vec<NewChange>) -> Vec<Stored>;
    /// Ends and begins again, on what was made durable.
    async fn restart(self) -> Self;
    fn position(&self) -> Position;
    async fn event(&self, event_id: &EventId) -> Option<Read>;
    async fn timeline(&self, room: i64, from: Place, direction: Direction, limit: usize) -> Vec<String>;
    async fn state(&self, nid: StateNid) -> State;
    async fn transaction(&self, user: &UserId, device: &str, scope: &str, id: &str) -> Option<String>;
    /// Room, membership, position.
    async fn memberships_of(&self, user: &UserId) -> Vec<(i64, String, Position)>;
    async fn receipts(&self, room: i64) -> Vec<Receipt>;
    async fn account_data(&self, user: &UserId) -> Vec<AccountData>;
    async fn to_device(&self, user: &UserId, device: &str, after: Position) -> Vec<(Position, String)>;
}

/// A real store, with the data under it and what its readers heard.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) data: Data,
    pub(super) store: Arc<Store>,
    pub(super) heard: Arc<Heard>,
}

/// Keeps the positions that a reader hears of, and of events also the position they carry.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Vec<Position>>);

impl Heard {
    pub(super) fn positions(&self) -> Vec<Position> {
        self.0.lock().unwrap().clone()
    }
}

impl CommitReader for Heard {
    fn committed(&self, batch: &[Committed], _: Position) {
        let mut heard = self.0.lock().unwrap();
        for committed in batch {
            if let maru::store::log::Record::Event(stored) = &committed.record {
                assert_eq!(stored.position(), Some(committed.position));
                heard.push(committed.position);
            }
        }
    }
}

impl Real {
    pub(super) async fn start(engine: Engine) -> Self {
        Self::open(Data::new(engine)).await.unwrap()
    }

    pub(super) async fn open(data: Data) -> Result<Self, StoreError> {
        let heard = Arc::new(Heard::default());
        let fresh = LogId(rand::random());
        let limits = CommitLimits::default();
        let reader = Arc::clone(&heard) as Arc<dyn CommitReader>;
        let store = Store::open(&data.database(), Access::Alone, fresh, limits, reader).await?;
        Ok(Self { data, store, heard })
    }

    async fn read(&self, stored: &Arc<StoredEvent>) -> Read {
        let position = stored.position().expect("what is read is durable");
        (position, stored.place, stored.event.json.to_string())
    }
}

impl Log for Real {
    async fn append(&self, changes: Vec<NewChange>) -> Vec<Stored> {
        let enqueue = |change: NewChange| {
            let changed = Change::new(change.records);
            let tied = change.tickets.into_iter().fold(changed, Change::on_head);
            self.store.log.enqueue(tied).unwrap()
        };
        let pending: Vec<_> = changes.into_iter().map(enqueue).collect();
        let mut stored = Vec::new();
        for pending in pending {
            stored.push(pending.wait().await.map_err(|error| match error {
                StoreError::Conflict(_) => NotStored::Conflict,
                StoreError::StaleHead => NotStored::StaleHead,
                error => panic!("{error}"),
            }));
        }
        stored
    }

    async fn restart(self) -> Self {
        let log_id = self.store.log.id();
        self.store.close().await;
        let opened = Self::open(self.data).await.unwrap();
        assert_eq!(opened.store.log.id(), log_id, "a restart keeps the log's id");
        opened
    }

    fn position(&self) -> Position {
        self.store.log.position()
    }

    async fn event(&self, event_id: &EventId) -> Option<Read> {
        let stored = self.store.rooms.event(event_id).await.unwrap()?;
        Some(self.read(&stored).await)
    }

    async fn timeline(&self, room: i64, from: Place, direction: Direction, limit: usize) -> Vec<String> {
        let events = self
            .store
            .rooms
            .timeline(room, from, direction, limit)
            .await
            .unwrap();
        ids(&events)
    }

    async fn state(&self, nid: StateNid) -> State {
        self.store.rooms.state(nid).await.unwrap()
    }

    async fn transaction(&self, user: &UserId, device: &str, scope: &str, id: &str) -> Option<String> {
        let found = self
            .store
            .rooms
            .transaction(user, device, scope, id)
            .await
            .unwrap();
        found.map(|event_id| event_id.to_string())
    }

    async fn memberships_of(&self, user: &UserId) -> Vec<(i64, String, Position)> {
        let found = self.store.rooms.memberships_of(user).await.unwrap();
        let each = found.into_iter();
        each.map(|stored| {
            (
                stored.membership.room,
                stored.membership.membership,
                stored.position,
            )
        })
        .collect()
    }

    async fn receipts(&self, room: i64) -> Vec<Receipt> {
        self.store.rooms.receipts_in(vec![room], None).await.unwrap()
    }

    async fn account_data(&self, user: &UserId) -> Vec<AccountData> {
        self.store.accounts.account_data_after(user, None).await.unwrap()
    }

    async fn to_device(&self, user: &UserId, device: &str, after: Position) -> Vec<(Position, String)> {
        let read = self
            .store
            .encryption
            .to_device(user, device, after, self.position(), 1_000);
        read.await.unwrap()
    }
}

impl Log for Mutex<Model> {
    async fn append(&self, changes: Vec<NewChange>) -> Vec<Stored> {
        let mut model = self.lock().unwrap();
        for change in changes {
            model.append(change);
        }
        model.commit()
    }

    async fn restart(self) -> Self {
        self.lock().unwrap().crash();
        self
    }

    fn position(&self) -> Position {
        self.lock().unwrap().position()
    }

    async fn event(&self, event_id: &EventId) -> Option<Read> {
        let (position, stored) = self.lock().unwrap().event(event_id.as_str())?;
        Some((position, stored.place, stored.event.json.to_string()))
    }

    async fn timeline(&self, room: i64, from: Place, direction: Direction, limit: usize) -> Vec<String> {
        ids(&self.lock().unwrap().timeline(room, from, direction, limit))
    }

    async fn state(&self, nid: StateNid) -> State {
        self.lock().unwrap().state(nid).unwrap()
    }

    async fn transaction(&self, user: &UserId, device: &str, scope: &str, id: &str) -> Option<String> {
        let model = self.lock().unwrap();
        model
            .transaction(user.as_str(), device, scope, id)
            .map(str::to_owned)
    }

    async fn memberships_of(&self, user: &UserId) -> Vec<(i64, String, Position)> {
        let found = self.lock().unwrap().memberships_of(user.as_str());
        let each = found.into_iter();
        each.map(|(position, membership)| (membership.room, membership.membership, position))
            .collect()
    }

    async fn receipts(&self, room: i64) -> Vec<Receipt> {
        self.lock().unwrap().receipts(room)
    }

    async fn account_data(&self, user: &UserId) -> Vec<AccountData> {
        self.lock()
            .unwrap()
            .account_data_after(user.as_str(), Position::START)
    }

    async fn to_device(&self, user: &UserId, device: &str, after: Position) -> Vec<(Position, String)> {
        self.lock().unwrap().to_device(user.as_str(), device, after)
    }
}

fn ids(events: &[Arc<StoredEvent>]) -> Vec<String> {
    events.iter().map(|stored| stored.event.id.to_string()).collect()
}

/// Runs `async fn(impl Log)` checks on SQLite, on PostgreSQL and on the model.
macro_rules! on_every_log {
    ($($check:ident),+ $(,)?) => {$(
        mod $check {
            use maru_tests::Engine;

            use crate::storage::logs::Real;

            #[tokio::test]
            async fn sqlite() {
                Box::pin(super::$check(Real::start(Engine::Sqlite).await)).await;
            }

            #[tokio::test]
            async fn postgres() {
                Box::pin(super::$check(Real::start(Engine::Postgres).await)).await;
            }

            #[tokio::test]
            async fn model() {
                Box::pin(super::$check(std::sync::Mutex::<maru_tests::model::Model>::default())).await;
            }
        }
    )+};
}
pub(super) use on_every_log;
