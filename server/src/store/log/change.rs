//! What a change is made of: records that stand or fall together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use serde::{Deserialize, Serialize};

use crate::store::accounts::account_data::AccountData;
use crate::store::encryption::to_device::ToDevice;
use crate::store::federation::destination_intervals::Interest;
use crate::store::federation::inbox::Received;
use crate::store::federation::peer_messages::{Delivered, HeardMessage, PeerMessage};
use crate::store::rooms::events::{EarlyRedaction, NewTransaction, Redaction, StoredEvent};
use crate::store::rooms::gaps::GapChange;
use crate::store::rooms::notifications::NewNotification;
use crate::store::rooms::receipts::{Receipt, WaitingReceipt};
use crate::store::rooms::state::NewState;
use crate::store::rooms::{Membership, NewAlias, NewRoom, RoomHead};
use crate::token_hash::TokenHash;

/// One durable fact.
#[derive(Clone, Debug)]
pub enum Record {
    /// A room that this server did not know.
    Room(NewRoom),
    /// An event, with what this server knows of it.
    Event(Arc<StoredEvent>),
    /// An outlier finds its place: its row makes room for the event after, which has the same number.
    Placed(EventNid),
    /// A gap in a timeline opens, moves or closes.
    Gap(GapChange),
    /// A room state that events refer to.
    State(NewState),
    /// The room's new head.
    Head(RoomHead),
    /// A membership in the room's current state.
    Membership(Membership),
    /// The content of an event goes.
    Redaction(Redaction),
    /// A redaction whose target is not here yet.
    EarlyRedaction(EarlyRedaction),
    /// A client's transaction id and the event it became.
    Transaction(NewTransaction),
    /// What a user's own push rules say of an event.
    Notification(NewNotification),
    /// A server's interest in a room begins or ends with the event before.
    Interest(Interest),
    /// What a peer sent.
    Received(Received),
    /// What waited under this number in the inbox (inbox.nid) is dealt with.
    Ingested(i64),
    /// A name for a room.
    Alias(NewAlias),
    /// A read receipt.
    Receipt(Receipt),
    /// A user's private data.
    AccountData(AccountData),
    /// A message to one device.
    ToDevice(ToDevice),
    /// The devices or keys of this user changed.
    DeviceList(DeviceListChange),
    /// A message to a device of another server.
    PeerMessage(PeerMessage),
    /// A peer has everything up to a position: what was kept for it goes.
    Delivered(Delivered),
    /// A message of a peer is passed on with the records beside this one.
    HeardMessage(HeardMessage),
    /// A receipt of a peer's user for an event that is not here yet.
    WaitingReceipt(WaitingReceipt),
    /// Sessions of a user have ended.
    SessionsEnded(SessionsEnded),
    /// A device has more or fewer keys left on the server.
    KeyCounts(DeviceName),
    /// A user's messages are erased.
    Erased(Erased),
    /// Something is known of another server that was not: a record, a root key, what the admin says of it.
    KnownServer(ruma::OwnedServerName),
}

/// Sessions of a user have ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionsEnded {
    /// Whose.
    pub user_id: ruma::OwnedUserId,
    /// Their access tokens.
    pub tokens: Vec<TokenHash>,
}

/// A device of a user of this server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceName {
    /// Whose.
    pub user_id: ruma::OwnedUserId,
    /// Which.
    pub device_id: String,
}

/// A user's messages are erased.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Erased {
    /// Whose.
    pub user_id: ruma::OwnedUserId,
    /// Where the log stood.
    pub at: Position,
}

/// A user's devices or keys changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceListChange {
    /// Whose.
    pub user_id: ruma::OwnedUserId,
    /// Whether it is a user of this server.
    pub own: bool,
    /// Users of this server who share a room with that user, and the user; or the one who alone can see what changed.
    pub tell: Arc<[ruma::OwnedUserId]>,
    /// Whether only the one who is told can see what changed.
    pub for_one: bool,
    /// Other servers that share a room with a user of this server; empty for a user of another one.
    pub servers: Arc<[ruma::OwnedServerName]>,
}

impl Record {
    /// Whether it takes a position of its own. The others describe the record before them.
    pub(super) fn takes_position(&self) -> bool {
        matches!(
            self,
            Self::Event(_)
                | Self::Redaction(_)
                | Self::Receipt(_)
                | Self::AccountData(_)
                | Self::ToDevice(_)
                | Self::DeviceList(_)
                | Self::PeerMessage(_)
        )
    }

    /// Whether peers may hear of it, and it is no event.
    pub(in crate::store) fn is_for_peers(&self) -> bool {
        match self {
            Self::Receipt(receipt) => receipt.own,
            Self::DeviceList(change) => change.own && !change.for_one,
            Self::PeerMessage(_) => true,
            _ => false,
        }
    }

    /// Roughly how many bytes it adds to a commit.
    fn bytes(&self) -> usize {
        128 + match self {
            Self::Event(stored) => stored.event.json.len(),
            Self::State(state) => state.entries.len(),
            Self::Redaction(redaction) => redaction.event.json.len(),
            Self::Received(received) => received.rows.iter().map(|row| row.arrived.json.len()).sum(),
            Self::AccountData(data) => data.content.len(),
            Self::ToDevice(message) => message.json.len(),
            Self::PeerMessage(message) => message.content.len(),
            Self::Membership(membership) => membership.stripped_state.as_ref().map_or(0, String::len),
            _ => 0,
        }
    }
}

/// Ties a change to the room head it was built on: when an earlier change on that head failed, this one must too.
#[derive(Clone, Debug)]
pub struct HeadTicket {
    /// The generation at building time.
    pub built_on: u64,
    /// The room's generation now; the writer raises it when a change on the room fails.
    pub current: Arc<AtomicU64>,
}

impl HeadTicket {
    pub(in crate::store) fn is_stale(&self) -> bool {
        self.current.load(Ordering::Acquire) != self.built_on
    }

    pub(in crate::store) fn fail(&self) {
        let raised = self.built_on + 1;
        let _ = self
            .current
            .compare_exchange(self.built_on, raised, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Has everything fail that has been built on the room until now.
    pub(in crate::store) fn outdate(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }
}

/// Records that are stored together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub(in crate::store) records: Vec<Record>,
    pub(in crate::store) tickets: Vec<HeadTicket>,
}

impl Change {
    /// A change of these records.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        Self {
            records,
            tickets: Vec::new(),
        }
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Ties the change to a room's head.
    #[must_use]
    pub fn on_head(mut self, ticket: HeadTicket) -> Self {
        self.tickets.push(ticket);
        self
    }

    pub(in crate::store) fn bytes(&self) -> usize {
        self.records.iter().map(Record::bytes).sum()
    }

    /// The rows of the inbox that it deals with.
    pub(in crate::store) fn ingested(&self) -> Vec<i64> {
        let records = self.records.iter();
        let ingested = records.filter_map(|record| match record {
            Record::Ingested(nid) => Some(*nid),
            _ => None,
        });
        ingested.collect()
    }

    pub(in crate::store) fn is_stale(&self) -> bool {
        self.tickets.iter().any(HeadTicket::is_stale)
    }
}

impl From<Record> for Change {
    fn from(record: Record) -> Self {
        Self::new(vec![record])
    }
}
