//! What the predefined rules look at in an event, and what they say: evaluated without going through the rules one by one,
//! because that is done for every message.

use maru_protocol::event::Draft;
use ruma::OwnedUserId;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::store::rooms::events::Notify;

/// Properties of an event that the predefined rules look at.
#[derive(Clone, Debug, Default)]
pub struct EventProperties {
    event_type: String,
    state_key: Option<String>,
    is_notice: bool,
    is_edit: bool,
    is_invite: bool,
    /// Whether it mentions the whole room; the sender may lack the power to.
    pub mentions_room: bool,
    /// Whom it mentions by name.
    pub mentions: Vec<OwnedUserId>,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default, deserialize_with = "lenient")]
    msgtype: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    membership: Option<String>,
    #[serde(default, rename = "m.mentions", deserialize_with = "lenient")]
    mentions: Option<Mentions>,
    #[serde(default, rename = "m.relates_to", deserialize_with = "lenient")]
    relates_to: Option<Relation>,
}

#[derive(Deserialize)]
struct Mentions {
    #[serde(default, deserialize_with = "lenient")]
    room: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    user_ids: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
struct Relation {
    #[serde(default, deserialize_with = "lenient")]
    rel_type: Option<String>,
}

/// What has another type than it should counts as missing.
fn lenient<'de, T: serde::de::DeserializeOwned, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(value)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

impl EventProperties {
    /// The facts of an event that is about to be sent.
    #[must_use]
    pub fn of(draft: &Draft) -> Self {
        let content: Content = serde_json::from_str(draft.content.as_str()).unwrap_or_default();
        let mentions = content.mentions.as_ref();
        let ids = mentions.and_then(|mentions| mentions.user_ids.as_ref());
        let ids = ids.into_iter().flatten();
        Self {
            event_type: draft.event_type.to_string(),
            state_key: draft.state_key.as_ref().map(ToString::to_string),
            is_notice: content
                .msgtype
                .is_some_and(|kind| kind.eq_ignore_ascii_case("m.notice")),
            is_edit: content
                .relates_to
                .and_then(|relation| relation.rel_type)
                .as_deref()
                == Some("m.replace"),
            is_invite: content.membership.as_deref() == Some("invite"),
            mentions_room: mentions.and_then(|mentions| mentions.room) == Some(true),
            mentions: ids.filter_map(|id| serde_json::from_str(id.get()).ok()).collect(),
        }
    }

    fn is(&self, event_type: &str) -> bool {
        self.event_type.eq_ignore_ascii_case(event_type)
    }

    fn is_state(&self, event_type: &str) -> bool {
        self.is(event_type) && self.state_key.as_deref() == Some("")
    }

    /// Whom it invites.
    pub(super) fn invites(&self) -> Option<OwnedUserId> {
        let subject = self
            .state_key
            .as_deref()
            .filter(|_| self.is_invite && self.is("m.room.member"));
        OwnedUserId::try_from(subject?).ok()
    }

    /// What the predefined rules say to a member who is not mentioned by name.
    pub(super) fn to_everybody(&self, may_notify_room: bool) -> Notify {
        if self.is_notice || self.is("m.room.member") {
            Notify::Nothing
        } else if (self.mentions_room && may_notify_room) || self.is_state("m.room.tombstone") {
            Notify::Highlight
        } else if self.is("m.reaction") || self.is_state("m.room.server_acl") || self.is_edit {
            Notify::Nothing
        } else if ["m.call.invite", "m.room.message", "m.room.encrypted"]
            .iter()
            .any(|kind| self.is(kind))
        {
            Notify::Notify
        } else {
            Notify::Nothing
        }
    }

    /// What they say to somebody whom it mentions by name.
    pub(super) fn to_mentioned(&self) -> Notify {
        if self.is_notice || self.is("m.room.member") {
            Notify::Nothing
        } else {
            Notify::Highlight
        }
    }

    /// What they say to somebody whom it invites.
    pub(super) fn to_invited(&self) -> Notify {
        if self.is_notice {
            Notify::Nothing
        } else {
            Notify::Notify
        }
    }
}
