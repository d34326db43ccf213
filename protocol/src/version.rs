//! The room versions we speak: 10, 11 and 12 (specification, "Room versions"), 12 by default.

use std::fmt;

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};
use serde::Deserialize;

use crate::canonical::Content;

/// A room version whose rules we know. Rooms of other versions cannot be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RoomVersion {
    /// Integer power levels, restricted joins with knocking.
    V10,
    /// Revised redaction rules; the creator is the sender of the create event.
    V11,
    /// The room id is the hash of the create event, creators stand above power levels, and state
    /// resolution 2.1.
    #[default]
    V12,
}

impl RoomVersion {
    /// The version of new rooms.
    pub const DEFAULT: Self = Self::V12;

    /// Every version we know, oldest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// The version of an id such as `12`, if we know it.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == id)
    }

    /// The version that a create event gives its room, if we know it. One that says nothing means version 1.
    pub fn of_room(create_content: &Content) -> Option<Self> {
        #[derive(Deserialize)]
        struct Create {
            room_version: String,
        }
        let create: Create = serde_json::from_str(create_content.as_str()).ok()?;
        Self::from_id(&create.room_version)
    }

    /// The id as clients and create events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "10",
            Self::V11 => "11",
            Self::V12 => "12",
        }
    }

    /// The id as ruma's type.
    pub fn id(self) -> RoomVersionId {
        match self {
            Self::V10 => RoomVersionId::V10,
            Self::V11 => RoomVersionId::V11,
            Self::V12 => RoomVersionId::V12,
        }
    }

    /// The rules as ruma's table.
    pub fn rules(self) -> &'static RoomVersionRules {
        match self {
            Self::V10 => const { &RoomVersionRules::V10 },
            Self::V11 => const { &RoomVersionRules::V11 },
            Self::V12 => const { &RoomVersionRules::V12 },
        }
    }

    /// Whether the room id is the hash of the create event (12), instead of a name with a server part.
    /// Such a create event has no `room_id`, and is named by no `auth_events`.
    pub fn room_id_is_hash(self) -> bool {
        self.rules().authorization.room_create_event_id_as_room_id
    }

    /// Whether the creators of a room stand above every power level (12).
    pub fn creators_are_privileged(self) -> bool {
        self.rules().authorization.explicitly_privilege_room_creators
    }

    /// Whether the creator is named by `content.creator` (10) instead of being the sender.
    pub fn create_names_creator(self) -> bool {
        !self.rules().authorization.use_room_create_sender
    }

    /// Whether a redaction names its target in `content` (11 and later) instead of at the top.
    pub fn redacts_in_content(self) -> bool {
        self.rules().redaction.content_field_redacts
    }
}

impl fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_specification_says() {
        for version in RoomVersion::ALL {
            assert_eq!(RoomVersion::from_id(version.as_str()), Some(version));
            assert_eq!(version.id().as_str(), version.as_str());
            assert!(version.rules().authorization.strict_canonical_json);
        }
        assert_eq!(RoomVersion::from_id("9"), None);
        let of_room = |json| RoomVersion::of_room(&Content::parse(json).unwrap());
        assert_eq!(of_room(r#"{"room_version":"11"}"#), Some(RoomVersion::V11));
        assert_eq!([of_room(r#"{"room_version":11}"#), of_room("{}")], [None; 2]);
        let (v10, v11, v12) = (RoomVersion::V10, RoomVersion::V11, RoomVersion::V12);
        assert!(v10.create_names_creator() && !v11.create_names_creator());
        assert!(!v10.redacts_in_content() && v11.redacts_in_content() && v12.redacts_in_content());
        assert!(!v11.room_id_is_hash() && v12.room_id_is_hash());
        assert!(!v11.creators_are_privileged() && v12.creators_are_privileged());
    }
}
