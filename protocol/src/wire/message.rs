//! The frames of a log stream, in the order in which a connection uses them.

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use super::{
    bounded::{list, natural},
    limits::{MAX_EXTREMITIES, MAX_EXTREMITY_ROOMS, MAX_LOG_ITEMS},
    log::{Cursor, LogItem},
    named::named,
};
use crate::{cursor::LogId, record::SignedRecord};

named! {
    /// A frame of a log stream.
    pub enum Message {
        /// Who speaks: the first frame of either side.
        "hello" => Hello(Hello),
        /// The other's hello is accepted, and this is how far its log is stored here.
        "ready" => Ready(Ready),
        /// Items of the sender's log.
        "log" => Log(Log),
        /// Items of the receiver's log are durable here.
        "stored" => Stored(Stored),
        /// Where the sender's replicas of shared rooms end.
        "extremities" => Extremities(Extremities),
        /// A newer record of the sender.
        "record" => Record(Record),
    }
}

/// Who speaks. The acceptor says it first, the dialler once it has judged the acceptor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The name of the server that speaks.
    pub name: OwnedServerName,
    /// The server that it means to reach. A dialler always says so, an acceptor never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<OwnedServerName>,
    /// Its newest record.
    pub record: SignedRecord,
    /// The id of its log.
    pub log_id: LogId,
}

/// How far the other's log is stored here, and how much of it may be in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The place in the other's log up to which everything is durable here; none at first.
    pub received: Option<Received>,
    /// Most items of the other's log in frames that are not yet acknowledged.
    pub items: u32,
    /// Most bytes of such frames, each with its length.
    pub bytes: u32,
}

/// A place in a log of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Which log.
    pub log_id: LogId,
    /// Where in it.
    pub cursor: Cursor,
}

/// Items of the sender's log, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Counts the log frames that this side sends on this connection: 1, 2, 3 and so on.
    #[serde(deserialize_with = "natural")]
    pub number: u64,
    /// What the log holds for the receiver. May be empty, which only moves the cursor.
    #[serde(deserialize_with = "list::<_, _, MAX_LOG_ITEMS>")]
    pub items: Vec<LogItem>,
    /// The place after the last item.
    pub cursor: Cursor,
}

/// Everything of the receiver's log up to a frame is durable here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The number of that frame.
    #[serde(deserialize_with = "natural")]
    pub number: u64,
}

/// Where the sender's replicas of shared rooms end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremities {
    /// Some of the shared rooms.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITY_ROOMS>")]
    pub rooms: Vec<RoomExtremities>,
}

/// Where the sender's replica of one room ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomExtremities {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The accepted events that no accepted event names as previous.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub extremities: Vec<OwnedEventId>,
}

/// A newer record of the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The record, with a higher sequence number than the one said before.
    pub record: SignedRecord,
}
