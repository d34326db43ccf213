//! How far users have read: receipts, public, private and by thread, and the fully-read marker (client-server API,
//! "Receipts" and "Fully read markers").

mod remote;

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::Place;
use ruma::{EventId, OwnedEventId, RoomId, UserId};

use crate::clock::Clock;
use crate::live::EventWaiters;
use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};
use crate::store::Store;
use crate::store::accounts::account_data::AccountData;
use crate::store::log::{Change, Record};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::Receipt;
use crate::tasks::Tasks;

pub use remote::{HeardReceipt, WAIT_MS};

/// The type of account data that holds the fully-read marker.
const FULLY_READ: &str = "m.fully_read";

/// Which part of a room a receipt is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thread {
    /// All of it.
    Unthreaded,
    /// What belongs to no thread.
    Main,
    /// The thread under this event.
    Root(OwnedEventId),
}

impl Thread {
    /// The thread of a stored name: an event id, `main`, or empty for all of the room.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Unthreaded),
            "main" => Some(Self::Main),
            root => root.try_into().ok().map(Self::Root),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Unthreaded => "",
            Self::Main => "main",
            Self::Root(root) => root.as_str(),
        }
    }

    fn may_hold(&self, stored: &StoredEvent) -> bool {
        match (self, &stored.thread) {
            (Self::Unthreaded, _) | (_, None) => true,
            (Self::Main, Some(_)) => false,
            (Self::Root(root), Some(thread)) => root == thread,
        }
    }
}

/// A mark of how far somebody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `m.read`: everybody in the room sees it.
    Public(Thread),
    /// `m.read.private`: the user's own devices see it.
    Private(Thread),
    /// `m.fully_read`: the user's own devices see it, and it counts nothing.
    FullyRead,
}

/// Everything that receipts need to work.
#[derive(Debug)]
pub struct Receipts {
    clock: Arc<Clock>,
    store: Arc<Store>,
    rooms: Arc<RoomRepository>,
    awaited: Arc<EventWaiters>,
    tasks: Arc<Tasks>,
}

impl Receipts {
    /// Receipts over a store; `awaited` hears of its commits.
    #[must_use]
    pub fn new(
        clock: Arc<Clock>,
        store: Arc<Store>,
        rooms: Arc<RoomRepository>,
        awaited: Arc<EventWaiters>,
        tasks: Arc<Tasks>,
    ) -> Self {
        Self {
            clock,
            store,
            rooms,
            awaited,
            tasks,
        }
    }

    /// Sets marks of a user in a room, all or none. A mark never moves back: one that would is left where it is.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the user is not in the room, [`Refusal::NotFound`] when an event is not,
    /// [`Refusal::InvalidParam`] when an event belongs to another thread.
    pub async fn set(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        marks: Vec<(Mark, OwnedEventId)>,
    ) -> Result<(), Refusal> {
        let room = self.rooms.room(room_id).await?;
        if !room.is_joined(user_id) {
            return Err(Refusal::forbidden("you are not in this room"));
        }
        let now: HashMap<_, _> = self
            .store
            .rooms
            .receipts_of(user_id, vec![room.nid])
            .await?
            .into_iter()
            .map(|receipt| ((receipt.receipt_type, receipt.thread), receipt.place))
            .collect();
        let mut change = Change::default();
        for (mark, event_id) in marks {
            let (stored, place) = self.find(&room, &event_id).await?;
            let (receipt_type, thread) = match mark {
                Mark::Public(thread) => ("m.read", thread),
                Mark::Private(thread) => ("m.read.private", thread),
                Mark::FullyRead => {
                    if self
                        .fully_read(user_id, &room)
                        .await?
                        .is_none_or(|before| before < place)
                    {
                        change.push(fully_read(user_id, &room, &event_id));
                    }
                    continue;
                }
            };
            if !thread.may_hold(&stored) {
                return Err(Refusal::invalid("the event does not belong to that thread"));
            }
            let key = (receipt_type.to_owned(), thread.as_str().to_owned());
            if now.get(&key).is_some_and(|before| *before >= place) {
                continue;
            }
            change.push(Record::Receipt(Receipt {
                room: room.nid,
                user_id: user_id.to_owned(),
                receipt_type: key.0,
                thread: key.1,
                event_id,
                place,
                ts: i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX),
                own: true,
            }));
        }
        if !change.is_empty() {
            self.store.log.append(change).await?;
        }
        Ok(())
    }

    /// An event of the room's timeline and its place.
    async fn find(&self, room: &Room, event_id: &EventId) -> Result<(Arc<StoredEvent>, Place), Refusal> {
        let unknown = || Refusal::not_found("the room has no such event");
        let stored = self
            .store
            .rooms
            .event(event_id)
            .await?
            .filter(|stored| stored.room == room.nid);
        let stored = stored.ok_or_else(unknown)?;
        let place = stored.place.ok_or_else(unknown)?;
        Ok((stored, place))
    }

    /// Where the user's fully-read marker stands.
    async fn fully_read(&self, user_id: &UserId, room: &Room) -> Result<Option<Place>, Refusal> {
        #[derive(serde::Deserialize)]
        struct Content {
            event_id: OwnedEventId,
        }
        let stored = self
            .store
            .accounts
            .account_data(user_id, room.nid, FULLY_READ)
            .await?;
        let content = stored.and_then(|data| serde_json::from_str::<Content>(&data.content).ok());
        match content {
            Some(content) => Ok(self
                .store
                .rooms
                .event(&content.event_id)
                .await?
                .and_then(|stored| stored.place)),
            None => Ok(None),
        }
    }
}

fn fully_read(user_id: &UserId, room: &Room, event_id: &EventId) -> Record {
    Record::AccountData(AccountData {
        user_id: user_id.to_owned(),
        room: room.nid,
        data_type: FULLY_READ.to_owned(),
        content: serde_json::json!({ "event_id": event_id }).to_string(),
    })
}
