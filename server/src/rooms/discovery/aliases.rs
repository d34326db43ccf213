//! Names of rooms (client-server API, "Room aliases").

use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::visibility::HistoryVisibility;
use ruma::{OwnedRoomAliasId, RoomAliasId, UserId};
use serde_json::{Map, Value};

use crate::appservice_registrations::Registrations;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::{Appender, Room, RoomRepository, Sender, UnknownNames};
use crate::store::Store;
use crate::store::StoreError;
use crate::store::rooms::NewAlias;

/// Aliases of rooms.
#[derive(Debug)]
pub struct Aliases {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) appender: Arc<Appender>,
    pub(in crate::rooms) services: Arc<Registrations>,
    pub(in crate::rooms) unknown_names: Arc<UnknownNames>,
}

impl Aliases {
    /// The alias with this local part on this server.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] when it makes no alias.
    pub fn local_alias(&self, localpart: &str) -> Result<OwnedRoomAliasId, Refusal> {
        let bad = || Refusal::invalid(format!("{localpart:?} cannot be the name of a room"));
        if localpart.is_empty()
            || localpart.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':')
        {
            return Err(bad());
        }
        RoomAliasId::parse(format!("#{localpart}:{}", self.identity.name())).map_err(|_| bad())
    }

    /// The room that an alias of this server names. Where none does, the application service is asked whose the alias would be.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it names none.
    pub async fn room_of(&self, alias: &RoomAliasId) -> Result<Arc<Room>, Refusal> {
        match self.repository.room_of_alias(alias).await {
            Err(Refusal::NotFound(_)) if self.unknown_names.is_alias_made(alias).await => {
                self.repository.room_of_alias(alias).await
            }
            found => found,
        }
    }

    /// Names a room.
    ///
    /// # Errors
    /// [`Refusal::AliasTaken`], [`Refusal::Exclusive`] for a name that is an application service's alone, or
    /// [`Refusal::Forbidden`] for somebody who is not in the room.
    pub async fn add(&self, alias: &RoomAliasId, room: &Room, creator: &UserId) -> Result<(), Refusal> {
        if alias.server_name() != self.identity.name() {
            return Err(Refusal::invalid(format!("{alias} belongs to another server")));
        }
        self.local_alias(alias.alias())?;
        check_may_make(&self.services, alias, creator)?;
        if !room.is_joined(creator) {
            return Err(Refusal::forbidden("only those who are in a room may name it"));
        }
        let alias = NewAlias {
            alias: alias.to_owned(),
            room: room.nid,
            creator: creator.to_owned(),
        };
        match self.store.rooms.add_alias(alias).await {
            Err(StoreError::Conflict(_)) => Err(Refusal::AliasTaken),
            result => Ok(result?),
        }
    }

    /// Takes a name from a room, also out of the event that lists the room's names.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::Forbidden`] for somebody who neither made it nor may change the room's
    /// names.
    pub async fn remove(&self, alias: &RoomAliasId, user_id: &UserId) -> Result<(), Refusal> {
        let unknown = || Refusal::not_found(format!("{alias} names no room here"));
        if alias.as_str().contains('\0') {
            return Err(unknown());
        }
        let (stored, creator) = self.store.rooms.room_of_alias(alias).await?.ok_or_else(unknown)?;
        let room = self
            .repository
            .room_by_nid(stored.nid)
            .await?
            .ok_or_else(unknown)?;
        let may_change = room.is_joined(user_id)
            && self
                .repository
                .power_levels(&room)
                .await?
                .may_send(user_id, "m.room.canonical_alias", true);
        let admin = self
            .store
            .accounts
            .user(user_id)
            .await?
            .is_some_and(|user| user.admin);
        if creator != user_id && !may_change && !admin {
            return Err(Refusal::forbidden("this name was made by somebody else"));
        }
        self.store.rooms.remove_alias(alias).await?;
        if may_change {
            self.unlist_alias(&room, alias, user_id).await?;
        }
        Ok(())
    }

    /// A room's names on this server, for those who may look into the room.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for others.
    pub async fn of_room(&self, room: &Room, user_id: &UserId) -> Result<Vec<OwnedRoomAliasId>, Refusal> {
        if !room.is_joined(user_id)
            && self.repository.history_visibility(room).await? != HistoryVisibility::WorldReadable
        {
            return Err(Refusal::forbidden("you are not in that room"));
        }
        Ok(self.store.rooms.aliases_of(room.nid).await?)
    }

    /// Removes a name from `m.room.canonical_alias`.
    async fn unlist_alias(
        &self,
        room: &Arc<Room>,
        alias: &RoomAliasId,
        user_id: &UserId,
    ) -> Result<(), Refusal> {
        let state = &room.head().state;
        let Some(listed) = self
            .repository
            .state_event(state, "m.room.canonical_alias", "")
            .await?
        else {
            return Ok(());
        };
        let content: Map<String, Value> = listed.event.content_as().unwrap_or_default();
        let Some(content) = without_alias(content, alias.as_str()) else {
            return Ok(());
        };
        let content = Content::of(&content).map_err(Refusal::internal)?;
        self.appender
            .set_state(room, Sender::now(user_id), "m.room.canonical_alias", "", content)
            .await?;
        Ok(())
    }
}

/// Checks that a name is no application service's alone, or that of the user.
///
/// # Errors
/// [`Refusal::Exclusive`].
pub(in crate::rooms) fn check_may_make(
    services: &Registrations,
    alias: &RoomAliasId,
    user_id: &UserId,
) -> Result<(), Refusal> {
    if services.may_make_alias(alias, user_id) {
        return Ok(());
    }
    Err(Refusal::Exclusive(
        "this alias is reserved for an application service".into(),
    ))
}

/// The content of `m.room.canonical_alias` without an alias; `None` when it does not name it.
fn without_alias(mut content: Map<String, Value>, alias: &str) -> Option<Map<String, Value>> {
    let before = content.clone();
    if content.get("alias").and_then(Value::as_str) == Some(alias) {
        content.remove("alias");
    }
    if let Some(others) = content.get_mut("alt_aliases").and_then(Value::as_array_mut) {
        others.retain(|other| other.as_str() != Some(alias));
    }
    (content != before).then_some(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::rooms::discovery::aliases::*;

    #[test]
    fn an_alias_is_taken_out_wherever_it_stands() {
        let content = |value: Value| value.as_object().cloned().unwrap();
        let listed = content(json!({ "alias": "#a:x", "alt_aliases": ["#a:x", "#b:x"] }));
        assert_eq!(
            without_alias(listed.clone(), "#a:x"),
            Some(content(json!({ "alt_aliases": ["#b:x"] })))
        );
        assert_eq!(without_alias(listed, "#c:x"), None);
    }
}
