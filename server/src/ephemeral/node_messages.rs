//! What nodes tell each other of typing and presence, as JSON. What is read is checked as if a stranger had said it.

use ruma::presence::PresenceState;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::presence::STATUS_BYTES;

/// A thing that one node tells all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum NodeMessage {
    /// A node has begun to listen: it wants to be told all.
    Hello,
    /// A member types, or has stopped.
    Typing(TypingSaid),
    /// How a user of this homeserver is.
    Presence(PresenceSaid),
    /// How a user of another homeserver is.
    RemotePresence(RemotePresenceSaid),
    /// What another homeserver said of its users holds no longer.
    ServerGone {
        /// The homeserver.
        server_name: OwnedServerName,
    },
    /// What a newer program says.
    #[serde(other)]
    Unknown,
}

/// A member types, or has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TypingSaid {
    /// Where.
    pub(super) room_id: OwnedRoomId,
    /// Who.
    pub(super) user_id: OwnedUserId,
    /// For how much longer; 0 for who has stopped.
    pub(super) left_ms: u32,
}

/// How a user of this homeserver is, by what one node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PresenceSaid {
    /// Who.
    pub(super) user_id: OwnedUserId,
    /// Whether the user is there.
    pub(super) state: PresenceState,
    /// What the user says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    /// When that was set, in milliseconds since 1970; 0 for never.
    #[serde(default)]
    pub(super) status_at: u64,
    /// How long ago the user was active.
    pub(super) active_ago_ms: u64,
    /// How long ago the last heartbeat was that the node knows of.
    pub(super) heartbeat_ago_ms: u64,
    /// Whether the user has set it so just now, whatever devices do.
    #[serde(default)]
    pub(super) by_hand: bool,
}

/// How a user of another homeserver is, by what that said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemotePresenceSaid {
    /// Who.
    pub(super) user_id: OwnedUserId,
    /// Whether the user is there.
    pub(super) state: PresenceState,
    /// What the user says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    /// How long ago the user was active.
    pub(super) active_ago_ms: u64,
    /// For how long this holds.
    pub(super) lifetime_ms: u64,
}

impl NodeMessage {
    /// Reads what another node said; none where it says nothing that could be.
    pub(super) fn read(json: &str) -> Option<Self> {
        let message: Self = serde_json::from_str(json).ok()?;
        let (state, status) = match &message {
            Self::Presence(said) => (&said.state, &said.status),
            Self::RemotePresence(said) => (&said.state, &said.status),
            _ => return Some(message),
        };
        let is_known = matches!(
            state,
            PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline
        );
        let fits = status.as_ref().is_none_or(|status| status.len() <= STATUS_BYTES);
        (is_known && fits).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_is_not_read_and_what_is_newer_is_passed_over() {
        let read = |value: serde_json::Value| NodeMessage::read(&value.to_string());
        assert_eq!(
            read(json!({ "is": "hello", "more": 1 })),
            Some(NodeMessage::Hello)
        );
        assert_eq!(
            read(json!({ "is": "tea", "sugar": 2 })),
            Some(NodeMessage::Unknown)
        );
        let typing = |room: &str, user: &str, left: i64| {
            read(json!({ "is": "typing", "room_id": room, "user_id": user, "left_ms": left }))
        };
        assert!(typing("!room:example.org", "@alice:example.org", 1).is_some());
        assert!(typing("room", "@alice:example.org", 1).is_none());
        assert!(typing("!room:example.org", "alice", 1).is_none());
        assert!(typing("!room:example.org", "@alice:example.org", -1).is_none());
        let presence = |state: &str, status: String| {
            read(json!({
                "is": "presence", "user_id": "@alice:example.org", "state": state, "status": status,
                "active_ago_ms": 0, "heartbeat_ago_ms": 0,
            }))
        };
        assert!(presence("online", "x".repeat(STATUS_BYTES)).is_some());
        assert!(presence("online", "x".repeat(STATUS_BYTES + 1)).is_none());
        assert!(presence("dancing", String::new()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_read(
            status in prop::option::of(".{0,100}"), numbers in any::<(u64, u64, u64)>(), by_hand in any::<bool>(),
        ) {
            let (status_at, active_ago_ms, heartbeat_ago_ms) = numbers;
            let said = NodeMessage::Presence(PresenceSaid {
                user_id: ruma::user_id!("@alice:example.org").to_owned(),
                state: PresenceState::Unavailable,
                status,
                status_at,
                active_ago_ms,
                heartbeat_ago_ms,
                by_hand,
            });
            prop_assert_eq!(NodeMessage::read(&serde_json::to_string(&said).unwrap()), Some(said));
        }
    }
}
