//! The state of a room before one of its events.

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::wire::{bounded::list, limits::MAX_STATE_IDS};

/// Asks for the state before an event. The parts of the answer carry every event of the state and of its auth
/// chain, and the records of their servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event.
    pub at: OwnedEventId,
}

/// Which of the events in the parts are the state; the others are its auth chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateIds {
    /// Their ids.
    #[serde(deserialize_with = "list::<_, _, MAX_STATE_IDS>")]
    pub state: Vec<OwnedEventId>,
}
