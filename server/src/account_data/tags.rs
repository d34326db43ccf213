//! Tags of rooms: account data of type `m.tag` (client-server API, "Room tagging").

use ruma::events::tag::{TagEventContent, TagInfo, TagName, Tags};
use ruma::{RoomId, UserId};

use super::ClientData;
use crate::refusal::Refusal;

/// The type of account data that holds a room's tags.
const TAG: &str = "m.tag";

/// Tags of one room.
const TAGS_PER_ROOM: usize = 100;

/// Longest tag, in bytes, by the specification.
const TAG_BYTES: usize = 255;

impl ClientData {
    /// A room's tags.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for a room that the user has nothing to do with.
    pub async fn tags(&self, user_id: &UserId, room_id: &RoomId) -> Result<Tags, Refusal> {
        let room = self.room(user_id, room_id).await?;
        let stored = self.store.accounts.account_data(user_id, room.nid, TAG).await?;
        Ok(read(stored.as_ref().map(|data| data.content.as_str())))
    }

    /// Gives a room a tag.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for a tag that is too long, [`Refusal::ResourceLimitExceeded`] for too many,
    /// [`Refusal::TooLarge`] when the user's account data together would be.
    pub async fn set_tag(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        tag: String,
        info: TagInfo,
    ) -> Result<(), Refusal> {
        if tag.is_empty() || tag.len() > TAG_BYTES {
            return Err(Refusal::invalid(format!("a tag has 1 to {TAG_BYTES} bytes")));
        }
        self.change_tags(user_id, room_id, move |tags| {
            tags.insert(TagName::from(tag), info);
            if tags.len() > TAGS_PER_ROOM {
                let why = format!("a room has at most {TAGS_PER_ROOM} tags");
                return Err(Refusal::ResourceLimitExceeded(why));
            }
            Ok(())
        })
        .await
    }

    /// Takes a tag off a room, if it has it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for a room that the user has nothing to do with.
    pub async fn remove_tag(&self, user_id: &UserId, room_id: &RoomId, tag: String) -> Result<(), Refusal> {
        self.change_tags(user_id, room_id, move |tags| {
            tags.remove(&TagName::from(tag));
            Ok(())
        })
        .await
    }

    async fn change_tags(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        change: impl FnOnce(&mut Tags) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let room = self.room(user_id, room_id).await?;
        let quota = Some(self.quota);
        let changed = self
            .store
            .accounts
            .change_account_data(user_id, room.nid, TAG, quota, move |stored| {
                let mut tags = read(stored.as_deref());
                change(&mut tags)?;
                serde_json::to_string(&TagEventContent::new(tags)).map_err(Refusal::internal)
            })
            .await??;
        self.written(changed)
    }
}

/// Tags as a client left them; what cannot be read counts as none.
fn read(content: Option<&str>) -> Tags {
    content
        .and_then(|content| serde_json::from_str::<TagEventContent>(content).ok())
        .map(|content| content.tags)
        .unwrap_or_default()
}
