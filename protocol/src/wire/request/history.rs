//! Events of a room: older ones, missing ones, single ones, and one by time.
//!
//! The parts of these answers carry events, each list in an order that puts an event after those it names
//! as previous, and records of the servers that signed them. An event that the peer may not see is left out.

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::wire::{
    bounded::{list, natural},
    limits::{MAX_EVENT_IDS, MAX_EXTREMITIES},
    named::names,
};

/// Asks for events before some others, those included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Where to begin.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub from: Vec<OwnedEventId>,
    /// Most events; the answering server may give fewer.
    pub limit: u32,
}

/// Asks for events that lie between what is here and what has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingEvents {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Events that are here: the walk stops at them.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub earliest: Vec<OwnedEventId>,
    /// Events whose ancestors are wanted, not they themselves.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub latest: Vec<OwnedEventId>,
    /// Most events; the answering server may give fewer.
    pub limit: u32,
}

/// Asks for single events of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The events.
    #[serde(deserialize_with = "list::<_, _, MAX_EVENT_IDS>")]
    pub ids: Vec<OwnedEventId>,
}

names! {
    /// Which way to look from a time.
    pub enum Direction {
        /// Towards newer events.
        "f" => Forwards,
        /// Towards older events.
        "b" => Backwards,
    }
}

/// Asks for the event nearest to a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Milliseconds since 1970.
    #[serde(deserialize_with = "natural")]
    pub ts: u64,
    /// Which way to look.
    pub direction: Direction,
}

/// The event nearest to a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// The event.
    pub event_id: OwnedEventId,
    /// Its `origin_server_ts`.
    #[serde(deserialize_with = "natural")]
    pub ts: u64,
}
