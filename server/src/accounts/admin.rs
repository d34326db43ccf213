//! What the admin does with accounts, and what their owners may do to the whole of theirs.

use ruma::{OwnedUserId, UserId};

use super::{Accounts, Share, password};
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::devices::Devices;
use crate::store::accounts::users::StoredUser;

/// Accounts read at once for a list.
const PAGE: i64 = 1000;

/// Why nothing became of what was asked for an account.
fn nothing_done(proved: Option<Credentials>) -> Refusal {
    match proved {
        Some(_) => Refusal::outdated_proof(),
        None => Refusal::not_found("there is no such account"),
    }
}

impl Accounts {
    /// Makes an account without asking for anything.
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`], [`Refusal::UserInUse`], [`Refusal::WeakPassword`].
    pub async fn create_user(
        &self,
        localpart: &str,
        password: String,
        admin: bool,
    ) -> Result<OwnedUserId, Refusal> {
        self.check_new_password(&password)?;
        let user_id = self.check_available(localpart).await?;
        self.make(user_id.clone(), password, Share::Admin, admin, None)
            .await?;
        Ok(user_id)
    }

    /// Gives an account another password and logs these of its devices out. Whatever the old password could still have
    /// become is over. The owner has proved to be that; the admin need not.
    ///
    /// # Errors
    /// [`Refusal::WeakPassword`], [`Refusal::NotFound`] when there is no such account, [`Refusal::Forbidden`] when what
    /// was proved does not hold any more.
    pub async fn set_password(
        &self,
        user_id: &UserId,
        password: String,
        proved: Option<Credentials>,
        log_out: Devices,
    ) -> Result<(), Refusal> {
        self.check_new_password(&password)?;
        let share = match proved {
            Some(_) => Share::Account(user_id.to_owned()),
            None => Share::Admin,
        };
        let hash = self.passwords.hash(share, password).await?;
        let set = self.end_sessions(user_id, |store, user_id| async move {
            let set = store
                .accounts
                .set_password(&user_id, hash, proved, log_out)
                .await?;
            Ok(set.map(|ended| (ended, ())))
        });
        set.await?.ok_or_else(|| nothing_done(proved))
    }

    /// Checks a password that is to be set.
    pub(super) fn check_new_password(&self, password: &str) -> Result<(), Refusal> {
        password::check_strength(password, self.rules.password_characters)
    }

    /// Closes an account for good: nobody can log in to it, its devices are logged out, its profile is gone, and it
    /// leaves its rooms. With `erase`, those who come into these rooms later do not read what it said.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such account, [`Refusal::Forbidden`] when what was proved does not hold any
    /// more.
    pub async fn deactivate(
        &self,
        user_id: &UserId,
        proved: Option<Credentials>,
        erase: bool,
    ) -> Result<(), Refusal> {
        let closed = self.end_sessions(user_id, |store, user_id| async move {
            let closed = store.accounts.deactivate_user(&user_id, proved, erase).await?;
            Ok(closed.map(|closed| (closed.ended, closed.at)))
        });
        let at = closed.await?.ok_or_else(|| nothing_done(proved))?;
        if erase {
            self.rooms.erased.note(user_id.to_owned(), at);
        }
        self.leave_rooms(user_id).await
    }

    /// Leaves every room. A room that cannot be left is passed over: the account is closed all the same.
    async fn leave_rooms(&self, user_id: &UserId) -> Result<(), Refusal> {
        for membership in self.store.rooms.memberships_of(user_id).await? {
            let membership = membership.membership;
            if !matches!(&*membership.membership, "join" | "invite" | "knock") {
                continue;
            }
            let Some(room) = self.rooms.repository.room_by_nid(membership.room).await? else {
                continue;
            };
            let left = self.rooms.memberships.leave(&room, user_id, None);
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
                .accounts
                .users_after(after.as_deref().unwrap_or(""), PAGE)
                .await?;
            if page.is_empty() {
                return Ok(users);
            }
            users.extend(page);
        }
    }
}
