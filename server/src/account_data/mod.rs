//! Account data: what a user's clients keep with the server for each other, of the whole account or of one room
//! (client-server API, "Client config").

mod filters;
mod tags;

use std::sync::Arc;

use ruma::{RoomId, UserId};

use crate::push::{IGNORED_USERS, Push};
use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};
use crate::store::Store;
pub use crate::store::accounts::account_data::Quota;
use crate::store::accounts::account_data::{AccountData, GLOBAL, Written};

/// Types that only the server writes, through endpoints of their own.
const SERVER_CONTROLLED: [&str; 2] = ["m.fully_read", "m.push_rules"];

/// Longest type of account data, in bytes.
const TYPE_BYTES: usize = 255;

/// Largest piece of account data, in bytes.
const CONTENT_BYTES: usize = 512 * 1024;

/// Everything that account data needs to work.
#[derive(Debug)]
pub struct ClientData {
    store: Arc<Store>,
    rooms: Arc<RoomRepository>,
    push: Arc<Push>,
    /// What one user may have.
    quota: Quota,
}

impl ClientData {
    /// Account data over a store, so much of each user.
    #[must_use]
    pub fn new(store: Arc<Store>, rooms: Arc<RoomRepository>, push: Arc<Push>, quota: Quota) -> Self {
        Self {
            store,
            rooms,
            push,
            quota,
        }
    }

    /// One piece of a user's account data, of a room or (`None`) of the whole account, as a JSON object.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it was never set.
    pub async fn get(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        data_type: &str,
    ) -> Result<String, Refusal> {
        check_type(data_type)?;
        let room = self.scope(user_id, room_id).await?;
        let found = self.store.accounts.account_data(user_id, room, data_type).await?;
        found
            .map(|data| data.content)
            .ok_or_else(|| Refusal::not_found("there is no account data of this type"))
    }

    /// Sets a piece of a user's account data, of a room or (`None`) of the whole account.
    ///
    /// # Errors
    /// [`Refusal::ServerControlled`] for types that only the server writes; [`Refusal::BadJson`] when `content` is no
    /// object; [`Refusal::TooLarge`] when it is too large, or all of the user's together would be.
    pub async fn set(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        data_type: &str,
        content: &str,
    ) -> Result<(), Refusal> {
        check_type(data_type)?;
        if SERVER_CONTROLLED.contains(&data_type) {
            return Err(Refusal::ServerControlled(format!(
                "{data_type} cannot be set as account data, it has endpoints of its own"
            )));
        }
        if !content.trim_start().starts_with('{') {
            return Err(Refusal::BadJson("account data is a JSON object".into()));
        }
        if content.len() > CONTENT_BYTES {
            let why = format!("a piece of account data has at most {CONTENT_BYTES} bytes");
            return Err(Refusal::TooLarge(why));
        }
        let room = self.scope(user_id, room_id).await?;
        let data = AccountData {
            user_id: user_id.to_owned(),
            room,
            data_type: data_type.to_owned(),
            content: content.to_owned(),
        };
        self.written(self.store.accounts.set_account_data(data, self.quota).await?)?;
        if room == GLOBAL && data_type == IGNORED_USERS {
            self.push.note_owner(user_id).await?;
        }
        Ok(())
    }

    /// Refuses what was not stored because the user has too much.
    fn written(&self, written: Written) -> Result<(), Refusal> {
        let Quota { items, bytes } = self.quota;
        match written {
            Written::Stored => Ok(()),
            Written::OverQuota => Err(Refusal::TooLarge(format!(
                "your account data has at most {items} pieces and {bytes} bytes together"
            ))),
        }
    }

    /// The number under which a room's account data is kept, or that of the whole account's.
    async fn scope(&self, user_id: &UserId, room_id: Option<&RoomId>) -> Result<i64, Refusal> {
        match room_id {
            Some(room_id) => Ok(self.room(user_id, room_id).await?.nid),
            None => Ok(GLOBAL),
        }
    }

    /// A room that the user is or was in, or is asked into; of other rooms there is nothing to keep.
    async fn room(&self, user_id: &UserId, room_id: &RoomId) -> Result<Arc<Room>, Refusal> {
        let room = self.rooms.room(room_id).await?;
        if room.is_joined(user_id) || self.store.rooms.membership(room.nid, user_id).await?.is_some() {
            return Ok(room);
        }
        Err(Refusal::not_found("you are not in that room"))
    }
}

fn check_type(data_type: &str) -> Result<(), Refusal> {
    if data_type.is_empty() || data_type.len() > TYPE_BYTES || data_type.contains('\0') {
        return Err(Refusal::invalid(format!(
            "a type of account data has 1 to {TYPE_BYTES} bytes and no NUL"
        )));
    }
    Ok(())
}
