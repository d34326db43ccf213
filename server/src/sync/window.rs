//! What happened between a cursor and now, as far as it concerns one device: the raw material of an answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maru_protocol::cursor::Position;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::rooms::Room;
use crate::store::accounts::account_data::AccountData;
use crate::store::rooms::StoredMembership;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::Receipt;

/// What happened between a cursor and now.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Where it starts; none for a first sync.
    pub(super) since: Option<Position>,
    /// Where it ends.
    pub(super) until: Position,
    /// Whether the device asks for whole states, though it has a cursor.
    pub(super) full_state: bool,
    /// Whether it comes from the database rather than from the user's inbox.
    pub(super) gathered: bool,
    /// Joined rooms with something new, by local number.
    pub(super) joined: BTreeMap<i64, JoinedWindow>,
    /// Rooms that the user was invited to or has knocked on.
    pub(super) outside: Vec<StoredMembership>,
    /// Rooms that the user is no longer in.
    pub(super) left: Vec<LeftWindow>,
    /// Global account data.
    pub(super) account_data: Vec<AccountData>,
    /// Users whose presence changed.
    pub(super) presence: Vec<OwnedUserId>,
    /// Messages to this device, oldest first.
    pub(super) to_device: Vec<String>,
    /// Users whose devices changed.
    pub(super) device_lists: Vec<OwnedUserId>,
    /// The transaction ids of events that this device sent.
    pub(super) sent: HashMap<OwnedEventId, String>,
}

impl Window {
    /// About as long as its timelines will be when they are written, in bytes.
    pub(super) fn expected_bytes(&self) -> usize {
        let timelines = self.joined.values().map(|joined| &joined.timeline);
        let events = timelines.flatten().map(|stored| stored.event.json.len());
        events.sum::<usize>() + 256 * self.joined.len()
    }
}

/// What happened in a room that the user is in, or was in until it ends.
#[derive(Debug)]
pub(super) struct JoinedWindow {
    /// The room.
    pub(super) room: Arc<Room>,
    /// The position up to which the device has it; the beginning where it knows nothing of it.
    pub(super) after: Position,
    /// Whether the device knows nothing of it yet.
    pub(super) entire: bool,
    /// The event by which the user left; none for a room that the user is in.
    pub(super) end: Option<Arc<StoredEvent>>,
    /// The newest events, oldest first.
    pub(super) timeline: Vec<Arc<StoredEvent>>,
    /// Whether there are more between the cursor and the timeline.
    pub(super) limited: bool,
    /// State events after the cursor that the timeline does not show, oldest first; the last of each slot.
    pub(super) skipped_state: Vec<Arc<StoredEvent>>,
    /// New receipts.
    pub(super) receipts: Vec<Receipt>,
    /// New account data of the room.
    pub(super) account_data: Vec<AccountData>,
    /// Whether somebody started or stopped typing.
    pub(super) typing: bool,
    /// Whether the unread counts may have changed.
    pub(super) unread: bool,
}

impl JoinedWindow {
    /// Nothing new in a room.
    pub(super) fn of(room: Arc<Room>) -> Self {
        Self {
            room,
            after: Position::START,
            entire: false,
            end: None,
            timeline: Vec::new(),
            limited: false,
            skipped_state: Vec::new(),
            receipts: Vec::new(),
            account_data: Vec::new(),
            typing: false,
            unread: false,
        }
    }

    /// Whether there is nothing new.
    pub(super) fn is_idle(&self) -> bool {
        !self.entire
            && self.timeline.is_empty()
            && self.receipts.is_empty()
            && self.account_data.is_empty()
            && self.skipped_state.is_empty()
            && !self.limited
            && !self.typing
    }

    /// All state events in it, oldest first.
    pub(super) fn state_events(&self) -> impl Iterator<Item = &Arc<StoredEvent>> {
        self.skipped_state
            .iter()
            .chain(self.timeline.iter().filter(|stored| stored.event.is_state()))
    }
}

/// What happened in a room up to the user's leaving.
#[derive(Debug)]
pub(super) struct LeftWindow {
    /// The room's id.
    pub(super) room_id: OwnedRoomId,
    /// What the user may know of it; none for one whom it never let in.
    pub(super) seen: Option<JoinedWindow>,
    /// The event that ended it, for a room of which no more is sent.
    pub(super) leave: Arc<StoredEvent>,
}

impl LeftWindow {
    /// The newest events up to the leave, oldest first.
    pub(super) fn timeline(&self) -> &[Arc<StoredEvent>] {
        match &self.seen {
            Some(seen) => &seen.timeline,
            None => std::slice::from_ref(&self.leave),
        }
    }
}
