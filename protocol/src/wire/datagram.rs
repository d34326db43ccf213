//! Datagrams: what is worth nothing when it is late. Each is a frame without its length.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{
    bounded::Text,
    limits::MAX_TEXT_BYTES,
    named::{named, names},
};

named! {
    /// What may be lost.
    pub enum Datagram {
        /// A user types, or has stopped.
        "typing" => Typing(Typing),
        /// A user is there, or not.
        "presence" => Presence(Presence),
    }
}

/// A user types in a room, or has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// The room.
    pub room_id: OwnedRoomId,
    /// A user of the sender.
    pub user_id: OwnedUserId,
    /// Whether the user types.
    pub typing: bool,
    /// For how long this holds unless it is said again, in milliseconds; receivers cap it at two minutes.
    pub lifetime_ms: u32,
}

/// A user is there, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// A user of the sender.
    pub user_id: OwnedUserId,
    /// Which.
    pub presence: PresenceState,
    /// How long ago the user was last active, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_ago_ms: Option<u64>,
    /// Whether the user is active this moment.
    #[serde(default)]
    pub currently_active: bool,
    /// What the user says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<Text<MAX_TEXT_BYTES>>,
    /// For how long this holds unless it is said again, in milliseconds; receivers cap it at ten minutes.
    pub lifetime_ms: u32,
}

names! {
    /// Whether a user is there.
    pub enum PresenceState {
        /// There.
        "online" => Online,
        /// There, but idle.
        "unavailable" => Unavailable,
        /// Not there.
        "offline" => Offline,
    }
}
