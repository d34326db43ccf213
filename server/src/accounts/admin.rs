//! What the admin does with accounts, and what their owners may do to the whole of theirs.

use ruma::{OwnedUserId, UserId};

use super::{Accounts, password};
use crate::refusal::Refusal;
use crate::store::devices::Devices;
use crate::store::users::StoredUser;

/// Accounts read at once for a list.
const PAGE: i64 = 1000;

impl Accounts {
    /// Makes an account without asking for anything.
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`], [`Refusal::UserInUse`], or an empty password.
    pub async fn create_user(
        &self,
        localpart: &str,
        password: String,
        admin: bool,
    ) -> Result<OwnedUserId, Refusal> {
        password::check_usable(&password)?;
        let user_id = self.check_available(localpart).await?;
        self.make(user_id.clone(), password, admin, None).await?;
        Ok(user_id)
    }

    /// Gives an account another password and logs these of its devices out.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such account, or an empty password.
    pub async fn set_password(
        &self,
        user_id: &UserId,
        password: String,
        log_out: Devices,
    ) -> Result<(), Refusal> {
        password::check_usable(&password)?;
        let hash = self.passwords.hash(password).await?;
        if !self.store.set_password(user_id, hash).await? {
            return Err(Refusal::not_found("there is no such account"));
        }
        self.remove_devices(user_id, log_out).await
    }

    /// Closes an account for good: nobody can log in to it, its devices are logged out, its profile is gone, and it
    /// leaves its rooms. With `erase`, those who come into these rooms later do not read what it said.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such account.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<(), Refusal> {
        let Some(at) = self.store.deactivate_user(user_id, erase).await? else {
            return Err(Refusal::not_found("there is no such account"));
        };
        if erase {
            self.rooms.note_erased(user_id.to_owned(), at);
        }
        self.remove_devices(user_id, Devices::All).await?;
        self.leave_rooms(user_id).await
    }

    /// Leaves every room. A room that cannot be left is passed over: the account is closed all the same.
    async fn leave_rooms(&self, user_id: &UserId) -> Result<(), Refusal> {
        for membership in self.store.memberships_of(user_id).await? {
            let membership = membership.membership;
            if !matches!(&*membership.membership, "join" | "invite" | "knock") {
                continue;
            }
            let Some(room) = self.rooms.room_by_nid(membership.room).await? else {
                continue;
            };
            let left = self.rooms.leave(&room, user_id, None);
            if let Err(error) = left.await {
                tracing::warn!(room = %room.room_id, %error, "a closed account could not leave a room");
            }
        }
        Ok(())
    }

    /// All accounts, in the order of their ids.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list_users(&self) -> Result<Vec<StoredUser>, Refusal> {
        let mut users: Vec<StoredUser> = Vec::new();
        loop {
            let after = users.last().map(|user| user.user_id.to_string());
            let page = self
                .store
                .users_after(after.as_deref().unwrap_or(""), PAGE)
                .await?;
            if page.is_empty() {
                return Ok(users);
            }
            users.extend(page);
        }
    }
}
