//! What a server tells of its users and rooms: profiles, aliases, public rooms, spaces.
//!
//! Bodies that clients are shown unchanged travel as the JSON that the client-server API gives them.

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    limits::MAX_ID_BYTES,
    wire::{
        bounded::{Json, Text, list},
        limits::{MAX_ROOMS, MAX_SERVERS},
    },
};

/// Asks for the profile of a user of the server that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The user.
    pub user_id: OwnedUserId,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserProfile {
    /// A JSON object such as `{"displayname":"Ada"}`.
    pub profile: Json,
}

/// Asks which room an alias of the server that is asked stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The alias.
    pub alias: OwnedRoomAliasId,
}

/// The room behind an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    #[serde(deserialize_with = "list::<_, _, MAX_SERVERS>")]
    pub servers: Vec<OwnedServerName>,
}

/// Asks for the public rooms of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRooms {
    /// Most rooms; the answering server may give fewer.
    pub limit: u32,
    /// The `next` or `previous` of an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Text<MAX_ID_BYTES>>,
    /// Words that the name, topic or alias must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Text<MAX_ID_BYTES>>,
}

/// Some public rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomList {
    /// One JSON object for each room, as in `chunk` of `GET /publicRooms`.
    #[serde(deserialize_with = "list::<_, _, MAX_ROOMS>")]
    pub rooms: Vec<Json>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Text<MAX_ID_BYTES>>,
    /// Where the page before begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Text<MAX_ID_BYTES>>,
    /// About how many rooms there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Asks for a space and its children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The space.
    pub room_id: OwnedRoomId,
    /// Only children that are marked as suggested.
    pub suggested_only: bool,
}

/// A space and its children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The space, as an entry of `rooms` in `GET /hierarchy`.
    pub room: Json,
    /// Its children, in the same form.
    #[serde(deserialize_with = "list::<_, _, MAX_ROOMS>")]
    pub children: Vec<Json>,
    /// Children that the asking server may not see.
    #[serde(deserialize_with = "list::<_, _, MAX_ROOMS>")]
    pub inaccessible: Vec<OwnedRoomId>,
}
