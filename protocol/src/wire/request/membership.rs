//! Coming into a room and leaving it, through a server that is in it.
//!
//! Nothing that a peer hands out is ever signed as it stands: `make_membership` answers with fields, from
//! which the asking server builds and signs its own event.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    limits::{MAX_AUTH_EVENTS, MAX_PREV_EVENTS},
    record::SignedRecord,
    wire::{
        bounded::{Json, Text, list, natural},
        limits::{MAX_EVENTS, MAX_EXTREMITIES, MAX_NAME_BYTES, MAX_RECORDS, MAX_STATE_IDS},
        named::names,
    },
};

/// Most room versions that a request names.
const MAX_VERSIONS: usize = 50;

names! {
    /// The memberships that a user asks for through another server.
    pub enum Membership {
        /// To be in the room.
        "join" => Join,
        /// To leave it, or to decline an invitation.
        "leave" => Leave,
        /// To ask for an invitation.
        "knock" => Knock,
    }
}

/// Asks for what is needed to build a membership event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeMembership {
    /// The room.
    pub room_id: OwnedRoomId,
    /// A user of the asking server.
    pub user_id: OwnedUserId,
    /// What the user wants.
    pub membership: Membership,
    /// The room versions that the asking server knows.
    #[serde(deserialize_with = "list::<_, _, MAX_VERSIONS>")]
    pub versions: Vec<Text<MAX_NAME_BYTES>>,
}

/// What is needed to build a membership event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The version of the room.
    pub version: Text<MAX_NAME_BYTES>,
    /// The create event of the room.
    pub create: Json,
    /// The events that authorise the membership event.
    #[serde(deserialize_with = "list::<_, _, MAX_AUTH_EVENTS>")]
    pub auth_events: Vec<Json>,
    /// The forward extremities of the room.
    #[serde(deserialize_with = "list::<_, _, MAX_PREV_EVENTS>")]
    pub prev_events: Vec<OwnedEventId>,
    /// The depth of the new event.
    #[serde(deserialize_with = "natural")]
    pub depth: u64,
    /// In a restricted room: the user, of the answering server, whose power admits the join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorised_by: Option<OwnedUserId>,
}

/// Hands over the signed membership event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMembership {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event as canonical JSON.
    pub event: Json,
}

/// The membership event is accepted. The parts before carried, for a join, every event of the state
/// and of its auth chain, and the records of their servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The event with every signature that it needs.
    pub event: Json,
    /// The ids of the state before the event. Empty unless it is a join.
    #[serde(deserialize_with = "list::<_, _, MAX_STATE_IDS>")]
    pub state: Vec<OwnedEventId>,
    /// The forward extremities of the room with the event in it.
    #[serde(deserialize_with = "list::<_, _, MAX_EXTREMITIES>")]
    pub extremities: Vec<OwnedEventId>,
    /// For a knock: what the room lets the knocking user see, as stripped state events.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_EVENTS>"
    )]
    pub stripped_state: Vec<Json>,
}

/// Invites a user of the server that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The version of the room.
    pub version: Text<MAX_NAME_BYTES>,
    /// The invitation, signed by the inviting server.
    pub event: Json,
    /// What the room lets the invited user see, as stripped state events.
    #[serde(deserialize_with = "list::<_, _, MAX_EVENTS>")]
    pub stripped_state: Vec<Json>,
    /// Records of servers that are in the room, so that any of them can be reached for the join.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_RECORDS>"
    )]
    pub records: Vec<SignedRecord>,
}

/// The invitation has been taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The event with the signature of the invited user's server added.
    pub event: Json,
}
