//! What one server asks of another: one bidirectional stream each, one frame of a name and a body.
//!
//! - [`membership`]: joining, leaving, knocking, inviting.
//! - [`history`]: events, missing ones, older ones, one by time.
//! - [`state`]: the state at an event.
//! - [`records`]: server records, for the history of servers that are gone.
//! - [`directory`]: profiles, aliases, public rooms, spaces.
//! - [`devices`]: devices and one-time keys, for end-to-end encryption.
//! - [`media`]: files of users.

pub mod devices;
pub mod directory;
pub mod history;
pub mod media;
pub mod membership;
pub mod records;
pub mod state;

use serde::{Deserialize, Serialize};

use super::named::{Body, named};

named! {
    /// A request.
    pub enum Request {
        /// A template for a membership event of a room that this peer is not in yet.
        "make_membership" => MakeMembership(membership::MakeMembership),
        /// The signed membership event, to be accepted into the room.
        "send_membership" => SendMembership(membership::SendMembership),
        /// An invitation of a user of the server that is asked.
        "invite" => Invite(membership::Invite),
        /// Events before some others.
        "backfill" => Backfill(history::Backfill),
        /// Events between some others.
        "missing_events" => MissingEvents(history::MissingEvents),
        /// Single events.
        "events" => Events(history::Events),
        /// The event nearest to a time.
        "timestamp" => Timestamp(history::Timestamp),
        /// The state before an event.
        "state" => State(state::State),
        /// Records of servers.
        "records" => Records(records::Records),
        /// The profile of a user.
        "profile" => Profile(directory::Profile),
        /// The room behind an alias.
        "alias" => Alias(directory::Alias),
        /// The public rooms.
        "public_rooms" => PublicRooms(directory::PublicRooms),
        /// A space and its children.
        "hierarchy" => Hierarchy(directory::Hierarchy),
        /// Devices and keys of users.
        "devices" => Devices(devices::Devices),
        /// One-time keys.
        "claim_keys" => ClaimKeys(devices::ClaimKeys),
        /// A file.
        "media" => Media(media::Media),
    }
}

/// One kind of request, and what the last frame of its answer carries.
pub trait Call: Into<Request> {
    /// The body of `done`.
    type Done: Body;
}

/// A `done` that says nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nothing {}

macro_rules! calls {
    ($($variant:ident($call:ty) -> $done:ty;)*) => {
        $(
            impl Call for $call {
                type Done = $done;
            }

            impl From<$call> for Request {
                fn from(call: $call) -> Self {
                    Self::$variant(call)
                }
            }
        )*
    };
}

calls! {
    MakeMembership(membership::MakeMembership) -> membership::Template;
    SendMembership(membership::SendMembership) -> membership::Admission;
    Invite(membership::Invite) -> membership::Invited;
    Backfill(history::Backfill) -> Nothing;
    MissingEvents(history::MissingEvents) -> Nothing;
    Events(history::Events) -> Nothing;
    Timestamp(history::Timestamp) -> history::Nearest;
    State(state::State) -> state::StateIds;
    Records(records::Records) -> Nothing;
    Profile(directory::Profile) -> directory::UserProfile;
    Alias(directory::Alias) -> directory::AliasTarget;
    PublicRooms(directory::PublicRooms) -> directory::RoomList;
    Hierarchy(directory::Hierarchy) -> directory::Space;
    Devices(devices::Devices) -> devices::DeviceLists;
    ClaimKeys(devices::ClaimKeys) -> devices::ClaimedKeys;
    Media(media::Media) -> Nothing;
}
