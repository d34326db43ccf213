//! Sync: the response of a device's next `/sync`, which holds what it has not seen yet.
//!
//! One loop serves the long-poll and the WebSocket. It looks at the user's [`UserInbox`](crate::live::UserInbox) first: while
//! that reaches back to the device's cursor, nothing is read from the database. Otherwise, or when the user's own
//! memberships changed, the window between the cursor and now is gathered from the database. Both ways fill the same
//! [`window::Window`], and each kind of data in the response has its own file.
//!
//! - [`session`]: the loop of one device. [`window`]: what is new between two positions; [`memory_window`] fills it from
//!   memory, [`database_window`] from the database.
//! - [`joined`], [`left`], [`stripped`]: rooms by the user's membership. [`state`], [`lazy_members`], [`members`]: their state.
//! - [`unread`]: unread counts. [`ephemeral`], [`presence`], [`device_lists`], [`to_device`]: the other kinds of data.
//! - [`filter`], [`shown`]: filters, and what they leave. [`timeline_cache`]: timelines written once for many devices.
//! - [`sliding`]: sliding sync, over the same windows.
//! - [`echo_hold`]: the sender's own device waits for the answer to its request. [`answer`]: the JSON.

mod answer;
mod database_window;
mod deadline;
mod device_lists;
mod echo_hold;
mod ephemeral;
mod filter;
mod joined;
mod lazy_members;
mod left;
mod members;
mod memory_window;
mod presence;
mod session;
mod shown;
pub mod sliding;
mod state;
mod stripped;
mod timeline_cache;
mod to_device;
mod unread;
mod window;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use maru_protocol::cursor::{EphemeralCounts, Position, SinceToken};

pub use answer::SyncResponse;
pub use device_lists::DeviceLists;
pub use echo_hold::Sending;
pub use filter::{EventFilter, Filter, KnownFilters};
pub use session::Session;

use crate::accounts::Caller;
use crate::clock::Clock;
use crate::ephemeral::{Presence, Typing};
use crate::keys::Keys;
use crate::live::{Notifier, Passing};
use crate::push::Push;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::log::{Committed, Mirror, Record};
use crate::store::{Store, StoreError};

/// Devices whose to-device cursor and lazily loaded members are remembered, two generations of this many.
const DEVICES: usize = 20_000;

/// How long a device waits for this node to come as far as the one that gave it its cursor.
const REACHING: Duration = Duration::from_secs(5);

/// Everything that sync needs to work.
#[derive(Debug)]
pub struct Sync {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    notifier: Arc<Notifier>,
    clock: Arc<Clock>,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    keys: Arc<Keys>,
    push: Arc<Push>,
    nothing_kept: to_device::NothingKept,
    lazily_loaded: lazy_members::LazyMembers,
    /// The same of connections of sliding sync.
    sliding_members: lazy_members::LazyMembers,
    connections: sliding::Connections,
    unanswered: Arc<echo_hold::Unanswered>,
    timelines: timeline_cache::TimelineCache,
    /// Filters of devices that listen.
    pub filters: KnownFilters,
}

/// Where the data of an answer comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The database.
    pub store: Arc<Store>,
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// Who is listening.
    pub notifier: Arc<Notifier>,
    /// The time.
    pub clock: Arc<Clock>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
    /// Keys of devices.
    pub keys: Arc<Keys>,
    /// Push rules.
    pub push: Arc<Push>,
}

/// The part of a room in which its state is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatePart {
    /// `state`: as it was before the timeline.
    #[default]
    Before,
    /// `state_after`: as it is after the timeline.
    After,
    /// The same by the name that it had before the specification took it up: clients that ask by it read nothing else.
    AfterUnstable,
}

impl StatePart {
    /// The part's name in a room's object.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "state",
            Self::After => "state_after",
            Self::AfterUnstable => "org.matrix.msc4222.state_after",
        }
    }

    /// Whether the state is that after the timeline.
    pub(crate) fn is_after(self) -> bool {
        self != Self::Before
    }
}

/// Request of a device for a sync: its filter, and the form of the response.
#[derive(Clone, Debug, Default)]
pub struct SyncRequest {
    /// What it wants to hear of.
    pub filter: Arc<Filter>,
    /// Whether to send whole states although there is a cursor.
    pub full_state: bool,
    /// Where a room's state stands, and as of when.
    pub state: StatePart,
    /// Members that stand first in the answer's JSON object, each with a comma after it: how a transport tells its
    /// frames apart.
    pub opening: &'static str,
}

impl Sync {
    /// Sync over the log.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self {
            store: sources.store,
            rooms: sources.rooms,
            notifier: sources.notifier,
            clock: sources.clock,
            typing: sources.typing,
            presence: sources.presence,
            keys: sources.keys,
            push: sources.push,
            nothing_kept: to_device::NothingKept::new(DEVICES),
            lazily_loaded: lazy_members::LazyMembers::new(DEVICES),
            sliding_members: lazy_members::LazyMembers::new(DEVICES),
            connections: sliding::Connections::new(),
            unanswered: Arc::default(),
            timelines: timeline_cache::TimelineCache::new(),
            filters: KnownFilters::default(),
        }
    }

    /// A session of a device that has seen everything up to `since` (`None`: nothing). A cursor of another log, or one
    /// that is ahead of this log, is gone: the session starts over. One that another node has given is waited for, until
    /// this node has come that far too.
    ///
    /// # Errors
    /// When the database does not answer, or this node is far behind others.
    pub async fn session(
        &self,
        caller: Caller,
        since: Option<SinceToken>,
        wish: SyncRequest,
    ) -> Result<Session<'_>, Refusal> {
        let since = match since {
            Some(since) if self.is_gone(&since).await? => None,
            since => since,
        };
        Ok(Session::new(self, caller, since, wish))
    }

    /// Notes that a device begins to send an event, of which it is to hear after the answer: to be held until the response
    /// is handed on.
    #[must_use]
    pub fn sending(&self, caller: &Caller) -> Sending {
        Sending::begin(&self.unanswered, &self.notifier, caller)
    }

    /// Whether a cursor belongs to another log, or is ahead of this one.
    async fn is_gone(&self, cursor: &SinceToken) -> Result<bool, Refusal> {
        if cursor.log_id != self.store.log.id() {
            return Ok(true);
        }
        if cursor.position <= self.notifier.position() {
            return Ok(false);
        }
        if !self.store.log.has_reached(cursor.position).await? {
            return Ok(true);
        }
        self.reach(cursor.position).await?;
        Ok(false)
    }

    /// Waits until this node has handed out the log up to a position that it has reached.
    async fn reach(&self, position: Position) -> Result<(), Refusal> {
        self.store.log.hint(position);
        let reached = tokio::time::timeout(REACHING, self.notifier.reached(position)).await;
        reached.map_err(|_| Refusal::Unavailable("this node is behind the others".into()))
    }

    /// Whose devices changed after one cursor and up to another, and who shares no room with the caller any more. When
    /// the first is gone, everybody may have changed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_lists(
        &self,
        caller: &Caller,
        from: SinceToken,
        to: SinceToken,
    ) -> Result<DeviceLists, Refusal> {
        let since = if self.is_gone(&from).await? {
            Position::START
        } else {
            from.position
        };
        let window = database_window::window(
            self,
            caller,
            Some(since),
            to.position.min(self.notifier.position()),
            &Passing::default(),
            &SyncRequest::default(),
            &HashSet::new(),
        )
        .await?;
        device_lists::of(self, caller, &window).await
    }

    fn token(&self, position: Position, ephemeral: EphemeralCounts) -> SinceToken {
        SinceToken {
            log_id: self.store.log.id(),
            position,
            ephemeral,
        }
    }

    /// Drops the to-device messages that the device's cursor acknowledges; one that is gone acknowledges nothing. Costs
    /// a transaction only when the device has moved past messages.
    async fn acknowledge(&self, caller: &Caller, cursor: SinceToken) -> Result<(), Refusal> {
        if self.nothing_kept.is_known_for(caller) || self.is_gone(&cursor).await? {
            return Ok(());
        }
        let asked = self.nothing_kept.ask();
        let (user_id, device_id) = (&caller.user_id, &caller.device_id);
        let everything = Position(i64::MAX);
        let oldest = self
            .store
            .encryption
            .to_device(user_id, device_id, Position::START, everything, 1)
            .await?;
        match oldest.first() {
            None => self.nothing_kept.remember(caller, asked),
            Some((position, _)) if *position <= cursor.position => {
                self.store
                    .encryption
                    .acknowledge_to_device(user_id, device_id, cursor.position)
                    .await?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Mirror for Sync {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        for committed in records {
            if let Record::ToDevice(message) = &committed.record {
                let device = Caller::on_device(message.user_id.clone(), message.device_id.clone());
                self.nothing_kept.gave(&device);
            }
        }
        Box::pin(ready(Ok(())))
    }
}
