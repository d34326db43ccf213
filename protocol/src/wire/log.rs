//! The items of a `log` frame: what the sender's log holds for this peer.

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{
    bounded::{Json, Octets, Text, id, list, natural},
    limits::{MAX_CURSOR_BYTES, MAX_EXTREMITIES},
    named::named,
};
use crate::limits::MAX_ID_BYTES;

/// How far a log is read: bytes of the sender's own making, opaque to everybody else.
pub type Cursor = Octets<MAX_CURSOR_BYTES>;

named! {
    /// One thing of the sender's log.
    pub enum LogItem {
        /// An event of a user of the sender.
        "event" => Event(Event),
        /// Events were left out, because too many wait: fetch what leads to these extremities.
        "skipped" => Skipped(Skipped),
        /// A message from a device to a device.
        "to_device" => ToDevice(ToDevice),
        /// The devices or keys of a user of the sender have changed; ask for them when they are needed.
        "device_list" => DeviceList(DeviceList),
        /// How far a user of the sender has read.
        "receipt" => Receipt(Receipt),
    }
}

/// An event of a user of the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The room, which the event's own JSON need not say.
    pub room_id: OwnedRoomId,
    /// The event as canonical JSON with its signatures, without `unsigned`.
    pub json: Json,
}

/// Events of one room were left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The sender's forward extremities there: what was left out lies before them.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub extremities: Vec<OwnedEventId>,
}

/// A message from a device to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDevice {
    /// Unique at the sender: a receiver that has seen it drops the second one.
    pub message_id: Text<MAX_ID_BYTES>,
    /// Who sends it, a user of the sending server.
    pub sender: OwnedUserId,
    /// Whose device it is for, a user of the receiving server.
    pub user_id: OwnedUserId,
    /// The device, or `*` for all of them.
    #[serde(deserialize_with = "id")]
    pub device_id: OwnedDeviceId,
    /// The type of the message.
    pub event_type: Text<MAX_ID_BYTES>,
    /// Its content, a JSON object.
    pub content: Json,
}

/// The devices or keys of a user have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// A user of the sender.
    pub user_id: OwnedUserId,
}

/// How far a user has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The room.
    pub room_id: OwnedRoomId,
    /// A user of the sender.
    pub user_id: OwnedUserId,
    /// `m.read`; private receipts never leave their server.
    pub receipt_type: Text<MAX_ID_BYTES>,
    /// The event that was read.
    pub event_id: OwnedEventId,
    /// The thread: an event id, `main`, or none for the whole room.
    #[serde(default)]
    pub thread: Option<Text<MAX_ID_BYTES>>,
    /// When, in milliseconds since 1970.
    #[serde(deserialize_with = "natural")]
    pub ts: u64,
}

impl LogItem {
    /// At least as many bytes as the item takes in a frame: what windows are planned with.
    pub fn weight(&self) -> usize {
        /// Names, keys and lengths of any item's own.
        const OVERHEAD: usize = 192;
        /// The length before a text in a list.
        const HEAD: usize = 9;
        OVERHEAD
            + match self {
                Self::Event(event) => event.room_id.as_str().len() + event.json.len(),
                Self::Skipped(skipped) => {
                    let ids = skipped.extremities.iter().map(|id| id.as_str().len() + HEAD);
                    skipped.room_id.as_str().len() + ids.sum::<usize>()
                }
                Self::ToDevice(message) => {
                    message.message_id.len()
                        + message.sender.as_str().len()
                        + message.user_id.as_str().len()
                        + message.device_id.as_str().len()
                        + message.event_type.len()
                        + message.content.len()
                }
                Self::DeviceList(change) => change.user_id.as_str().len(),
                Self::Receipt(receipt) => {
                    receipt.room_id.as_str().len()
                        + receipt.user_id.as_str().len()
                        + receipt.receipt_type.len()
                        + receipt.event_id.as_str().len()
                        + receipt.thread.as_ref().map_or(0, |thread| thread.len())
                }
            }
    }
}
