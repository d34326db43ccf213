//! What a user of this server takes along into the room that replaces another: tags, the mark of a direct chat, push
//! rules (client-server API, "Room Upgrades").

use std::sync::Arc;

use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::push::Push;
use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};
use crate::store::Store;
use crate::store::accounts::account_data::{AccountData, GLOBAL, Quota};

#[derive(Deserialize)]
struct Create {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

#[derive(Deserialize)]
struct Tombstone {
    replacement_room: OwnedRoomId,
}

/// Carrying over of a user's settings from a room to the one that replaces it.
#[derive(Debug)]
pub struct SettingsCarryOver {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) push: Arc<Push>,
}

impl SettingsCarryOver {
    /// Brings along what a user who has come into a room keeps about its predecessor. The user is in the room whatever
    /// comes of it, so a failure is for the log alone.
    pub async fn carry_over(&self, room: &Room, user_id: &UserId) {
        if let Err(error) = self.carry_over_all(room, user_id).await {
            tracing::warn!(room = %room.room_id, %user_id, %error, "settings did not follow into the new room");
        }
    }

    async fn carry_over_all(&self, room: &Room, user_id: &UserId) -> Result<(), Refusal> {
        let Some(old) = self.predecessor(room).await? else {
            return Ok(());
        };
        self.copy_tags(user_id, &old, room).await?;
        self.copy_direct(user_id, &old.room_id, &room.room_id).await?;
        self.push.carry_over(user_id, &old.room_id, &room.room_id).await
    }

    /// The room that this one replaces, where both say so.
    async fn predecessor(&self, room: &Room) -> Result<Option<Arc<Room>>, Refusal> {
        let create = self
            .repository
            .state_event(&room.head().state, "m.room.create", "")
            .await?;
        let create = create.and_then(|create| create.event.content_as::<Create>().ok());
        let Some(named) = create.and_then(|create| create.predecessor) else {
            return Ok(None);
        };
        let old = match self.repository.room(&named.room_id).await {
            Ok(old) => old,
            Err(Refusal::NotFound(_)) => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        let tombstone = self
            .repository
            .state_event(&old.head().state, "m.room.tombstone", "")
            .await?;
        let tombstone = tombstone.and_then(|stored| stored.event.content_as::<Tombstone>().ok());
        let agrees = tombstone.is_some_and(|tombstone| tombstone.replacement_room == room.room_id);
        Ok(agrees.then_some(old))
    }

    async fn copy_tags(&self, user_id: &UserId, old: &Room, new: &Room) -> Result<(), Refusal> {
        let Some(tags) = self
            .store
            .accounts
            .account_data(user_id, old.nid, "m.tag")
            .await?
        else {
            return Ok(());
        };
        if self
            .store
            .accounts
            .account_data(user_id, new.nid, "m.tag")
            .await?
            .is_some()
        {
            return Ok(());
        }
        let copy = AccountData {
            room: new.nid,
            ..tags
        };
        self.store.accounts.set_account_data(copy, Quota::NONE).await?;
        Ok(())
    }

    async fn copy_direct(&self, user_id: &UserId, old: &RoomId, new: &RoomId) -> Result<(), Refusal> {
        let stored = self
            .store
            .accounts
            .account_data(user_id, GLOBAL, "m.direct")
            .await?;
        if with_successor(stored.map(|data| data.content).as_deref(), old, new).is_none() {
            return Ok(());
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        let changed = self.store.accounts.change_account_data(
            user_id,
            GLOBAL,
            "m.direct",
            Some(Quota::NONE),
            move |stored| with_successor(stored.as_deref(), &old, &new).ok_or(()),
        );
        // Somebody else of the user's devices has made the change meanwhile, or taken the room out.
        let _changed = changed.await?;
        Ok(())
    }
}

/// Direct chats with `new` wherever `old` is among them; none where that changes nothing.
fn with_successor(content: Option<&str>, old: &RoomId, new: &RoomId) -> Option<String> {
    let mut direct: Map<String, Value> = serde_json::from_str(content?).ok()?;
    let mut changed = false;
    for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
        let has =
            |rooms: &[Value], room: &RoomId| rooms.iter().any(|known| known.as_str() == Some(room.as_str()));
        if has(rooms, old) && !has(rooms, new) {
            rooms.push(json!(new));
            changed = true;
        }
    }
    changed.then(|| Value::Object(direct).to_string())
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use crate::rooms::upgrade::settings_carry_over::*;

    #[test]
    fn a_direct_chat_stays_one_in_its_successor() {
        let (old, new) = (room_id!("!old:a.b"), room_id!("!new:a.b"));
        let with = |content: &str| with_successor(Some(content), old, new);
        let changed = with(r#"{"@b:a.b":["!x:a.b","!old:a.b"],"@c:a.b":["!y:a.b"],"odd":7}"#);
        let changed: Value = serde_json::from_str(&changed.unwrap()).unwrap();
        let wanted = json!({ "@b:a.b": ["!x:a.b", old, new], "@c:a.b": ["!y:a.b"], "odd": 7 });
        assert_eq!(changed, wanted);
        assert_eq!(with(&changed.to_string()), None, "it is there already");
        assert_eq!(with(r#"{"@b:a.b":["!x:a.b"]}"#), None);
        assert_eq!(with("[]"), None);
        assert_eq!(with_successor(None, old, new), None);
    }
}
