//! State events that clients set, checked by their type before they are appended. The rules of the room are checked apart
//! from this; events of other servers never pass these checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::visibility::Membership;
use ruma::{OwnedRoomAliasId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::refusal::Refusal;
use crate::rooms::{Appender, Memberships, Room, RoomRepository, Sender};
use crate::store::rooms::events::StoredEvent;

/// A room has one create event, the first.
pub(in crate::rooms) fn created_once() -> Refusal {
    Refusal::forbidden("a room is created once")
}

/// State events as clients set them, each checked by its type.
#[derive(Debug)]
pub struct StateSender {
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) appender: Arc<Appender>,
    pub(in crate::rooms) memberships: Arc<Memberships>,
}

impl StateSender {
    /// Checks the content of a state event by its type.
    pub(in crate::rooms) async fn check_state(
        &self,
        room: &Room,
        event_type: &str,
        content: &Content,
    ) -> Result<(), Refusal> {
        match event_type {
            "m.room.canonical_alias" => self.check_aliases(room, content).await,
            "m.room.power_levels" => check_power_levels(content),
            _ => Ok(()),
        }
    }

    /// Every alias that is new in the event must name this room.
    async fn check_aliases(&self, room: &Room, content: &Content) -> Result<(), Refusal> {
        let aliases = CanonicalAlias::read(content)
            .map_err(|_| Refusal::invalid("alias and alt_aliases must be room aliases"))?;
        let present = self
            .repository
            .state_event(&room.head().state, "m.room.canonical_alias", "")
            .await?;
        let present = present.and_then(|stored| CanonicalAlias::read(&stored.event.content).ok());
        let present = present.unwrap_or_default();
        for alias in aliases
            .all()
            .filter(|alias| !present.all().any(|known| known == *alias))
        {
            let named = match self.repository.room_of_alias(alias).await {
                Ok(named) => named.nid == room.nid,
                Err(Refusal::NotFound(_)) => false,
                Err(refusal) => return Err(refusal),
            };
            if !named {
                return Err(Refusal::BadAlias(format!("{alias} does not name this room")));
            }
        }
        Ok(())
    }

    /// A membership that is set like any other state. Joining and inviting mean the same as through their endpoints.
    pub(in crate::rooms) async fn set_membership(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        state_key: &str,
        content: Content,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let Sender { user_id, .. } = sender;
        let target = <&UserId>::try_from(state_key)
            .map_err(|_| Refusal::BadJson("the state key of a membership is a user id".into()))?;
        let fields: Map<String, Value> = content
            .get()
            .map_err(|error| Refusal::BadJson(error.to_string()))?;
        let membership = fields.get("membership").and_then(Value::as_str);
        let membership = membership.and_then(|name| name.parse::<Membership>().ok());
        match membership {
            None => Err(Refusal::BadJson("membership must be a known one".into())),
            Some(Membership::Join) if target == user_id && !room.is_joined(user_id) => {
                self.memberships.join_with(room, sender, None, fields).await
            }
            Some(Membership::Invite) => {
                self.memberships.invitable([target]).await?;
                self.memberships.set_member(room, sender, target, fields).await
            }
            Some(_) => self.memberships.set_member(room, sender, target, fields).await,
        }
    }

    /// Sets a piece of the room's state. What is set already stays as it is.
    ///
    /// # Errors
    /// What the rules or limits say.
    pub async fn set_state(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        event_type: &str,
        state_key: &str,
        content: Content,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        match event_type {
            "m.room.create" => Err(super::send_state::created_once()),
            "m.room.member" => self.set_membership(room, sender, state_key, content).await,
            _ => {
                self.check_state(room, event_type, &content).await?;
                self.appender
                    .set_state(room, sender, event_type, state_key, content)
                    .await
            }
        }
    }
}

/// `m.room.canonical_alias`.
#[derive(Debug, Default, Deserialize)]
pub(in crate::rooms) struct CanonicalAlias {
    alias: Option<OwnedRoomAliasId>,
    #[serde(default)]
    alt_aliases: Vec<OwnedRoomAliasId>,
}

impl CanonicalAlias {
    /// Reads the content of the event. An empty `alias` is none, as clients have always written it.
    pub(in crate::rooms) fn read(content: &Content) -> Result<Self, serde_json::Error> {
        let mut fields: Map<String, Value> = content.get()?;
        if fields.get("alias").and_then(Value::as_str) == Some("") {
            fields.remove("alias");
        }
        serde_json::from_value(Value::Object(fields))
    }

    /// Every alias that it names.
    pub(in crate::rooms) fn all(&self) -> impl Iterator<Item = &OwnedRoomAliasId> {
        self.alias.iter().chain(&self.alt_aliases)
    }
}

/// Power levels are whole numbers, and belong to users and event types.
fn check_power_levels(content: &Content) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Levels {
        #[serde(rename = "ban")]
        _ban: Option<i64>,
        #[serde(rename = "kick")]
        _kick: Option<i64>,
        #[serde(rename = "redact")]
        _redact: Option<i64>,
        #[serde(rename = "invite")]
        _invite: Option<i64>,
        #[serde(rename = "state_default")]
        _state_default: Option<i64>,
        #[serde(rename = "events_default")]
        _events_default: Option<i64>,
        #[serde(rename = "users_default")]
        _users_default: Option<i64>,
        #[serde(rename = "users")]
        _users: Option<BTreeMap<OwnedUserId, i64>>,
        #[serde(rename = "events")]
        _events: Option<BTreeMap<String, i64>>,
        #[serde(rename = "notifications")]
        _notifications: Option<BTreeMap<String, i64>>,
    }
    let checked = content.get::<Levels>();
    checked
        .map(drop)
        .map_err(|error| Refusal::BadJson(format!("not power levels: {error}")))
}

#[cfg(test)]
mod tests {
    use crate::rooms::append::send_state::*;

    fn content(json: &str) -> Content {
        Content::parse(json).unwrap()
    }

    #[test]
    fn power_levels_are_integers_of_user_ids() {
        for good in [
            "{}",
            r#"{"users":{"@a:x":100},"events":{"m.room.name":50},"ban":50}"#,
        ] {
            assert!(check_power_levels(&content(good)).is_ok(), "{good}");
        }
        let bad = [
            r#"{"users":{"a":1}}"#,
            r#"{"ban":"50"}"#,
            r#"{"events":[]}"#,
            r#"{"users":{"@a:x":"1"}}"#,
        ];
        for bad in bad {
            assert!(check_power_levels(&content(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_alias_is_none() {
        let aliases = CanonicalAlias::read(&content(r##"{"alias":"","alt_aliases":["#a:x"]}"##)).unwrap();
        assert_eq!(
            aliases.all().map(|alias| alias.as_str()).collect::<Vec<_>>(),
            ["#a:x"]
        );
        assert!(CanonicalAlias::read(&content(r#"{"alias":"a"}"#)).is_err());
    }
}
