//! The state of a room before one of its events, whole or as far as it differs from another one.

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::wire::{
    bounded::{list, natural},
    limits::MAX_STATE_IDS,
};

/// Asks for the state before an event. The parts of the answer carry every event of the state and of its auth
/// chain, and the records of their servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event.
    pub at: OwnedEventId,
    /// An event before which the asking server knows the state: how the other one differs from that is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<OwnedEventId>,
}

/// What an answer that carries a state begins with: how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Events of the state in the parts.
    #[serde(deserialize_with = "natural")]
    pub state: u64,
    /// Events in the parts that are there because they allow those.
    #[serde(deserialize_with = "natural")]
    pub chain: u64,
}

/// Which of the events in the parts are the state; the others are its auth chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateIds {
    /// Their ids.
    #[serde(deserialize_with = "list::<_, _, MAX_STATE_IDS>")]
    pub state: Vec<OwnedEventId>,
    /// Where only the difference is told: what else there is to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// How a state differs from the one before [`State::beside`], apart from the events that are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Events of the other state whose slots are empty in this one.
    #[serde(deserialize_with = "list::<_, _, MAX_STATE_IDS>")]
    pub gone: Vec<OwnedEventId>,
    /// How many slots are filled in this state altogether, by which the asking server sees whether both mean the same.
    #[serde(deserialize_with = "natural")]
    pub filled: u64,
}
