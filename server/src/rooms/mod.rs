//! Rooms: what happens in them and who may see it.
//!
//! [`Room`] holds one room's heads; [`append::event_builder`] builds events on a head; [`Rooms::append`] is the one way by which a local
//! event enters a room. The other files are one kind of action each.

mod append;
mod cache;
mod create;
mod discovery;
pub mod ingest;
mod membership;
pub mod room_locks;
pub mod server_visibility;
pub mod timeline;
mod upgrade;
pub mod visibility;

use std::sync::Arc;

use maru_protocol::auth::{PowerLevels, StateSlot};
use maru_protocol::state::State;
use ruma::OwnedServerName;

pub use append::Effects;
pub use append::transactions::Transaction;
pub use cache::room::Room;
pub use cache::room_cache::RoomCache;
pub use create::{NewRoomRequest, Preset, StateDraft};
pub use discovery::directory::{DirectoryPage, DirectoryQuery, PageToken};
pub use discovery::hierarchy::{TreeChild, TreeRoom};

use crate::clock::Clock;
use crate::fair_semaphore::FairSemaphore;
use crate::identity::Identity;
use crate::push::Push;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// Everything that rooms need to work.
#[derive(Debug)]
pub struct Rooms {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    table: Arc<RoomCache>,
    push: Arc<Push>,
    /// Longest `body` of a local message, in characters.
    message_characters: usize,
    /// Most events that the verdict on a received one may look at.
    verdict_events: usize,
    transactions: append::transactions::Transactions,
    erased: timeline::erased::Erased,
    /// Who stores received events, room by room.
    ingesting: room_locks::RoomLocks,
    /// State resolution and what else takes long, by the servers whose events need it.
    resolving: FairSemaphore<OwnedServerName>,
    /// Held while rooms are read from the database.
    loading: tokio::sync::Mutex<()>,
}

impl Rooms {
    /// Rooms over a store; `table` is the one that hears of the store's commits.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        clock: Arc<Clock>,
        store: Arc<Store>,
        table: Arc<RoomCache>,
        push: Arc<Push>,
        message_characters: usize,
        verdict_events: usize,
    ) -> Self {
        Self {
            identity,
            clock,
            store,
            table,
            push,
            message_characters,
            verdict_events,
            transactions: append::transactions::Transactions::default(),
            erased: timeline::erased::Erased::default(),
            ingesting: room_locks::RoomLocks::default(),
            resolving: FairSemaphore::new(ingest::at_once(), ingest::OF_ONE, ingest::MOST_WAITING),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// The store under the rooms.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The rooms and events in memory.
    #[must_use]
    pub fn table(&self) -> &RoomCache {
        &self.table
    }

    /// Who this server is.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The event in a slot of a state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn state_event(
        &self,
        state: &State,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StoredEvent>>, Refusal> {
        match state.get(&StateSlot::new(event_type, state_key).hash()) {
            Some(nid) => Ok(self.events(&[nid]).await?.remove(&nid)),
            None => Ok(None),
        }
    }

    /// Who may do what in a room, by its committed state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn power_levels(&self, room: &Room) -> Result<PowerLevels, Refusal> {
        let head = room.head();
        let create = self.state_event(&head.state, "m.room.create", "").await?;
        let create = create.ok_or_else(|| Refusal::internal("a room without a create event"))?;
        let levels = self.state_event(&head.state, "m.room.power_levels", "").await?;
        PowerLevels::new(
            room.version,
            &create.event,
            levels.as_ref().map(|stored| &*stored.event),
        )
        .map_err(Refusal::internal)
    }
}
