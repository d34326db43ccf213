//! User names: which ones may be taken, and which account a name means.

use ruma::{OwnedUserId, UserId};

use super::Accounts;
use crate::refusal::Refusal;

impl Accounts {
    /// The id that a new account with this local part would have.
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`].
    pub(super) fn new_user_id(&self, localpart: &str) -> Result<OwnedUserId, Refusal> {
        let user_id = self.identity.user(localpart).filter(|_| is_valid(localpart));
        user_id.ok_or_else(|| {
            Refusal::InvalidUsername(
                "a user name has only a-z, 0-9 and . _ = - / +, and the whole id at most 255 characters"
                    .into(),
            )
        })
    }

    /// Checks that a user name is free (client-server API, "Account registration").
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`], [`Refusal::UserInUse`].
    pub async fn check_available(&self, localpart: &str) -> Result<OwnedUserId, Refusal> {
        let user_id = self.new_user_id(localpart)?;
        match self.store.user(&user_id).await? {
            None => Ok(user_id),
            Some(_) => Err(Refusal::UserInUse),
        }
    }

    /// The account that a name means: a whole user id of this server, or its local part. It need not exist.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<OwnedUserId> {
        let whole = UserId::parse(name).ok();
        let user_id = whole.or_else(|| self.identity.user(name))?;
        let usable = self.identity.is_local(&user_id) && !name.contains('\0');
        usable.then_some(user_id)
    }
}

fn is_valid(localpart: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
    !localpart.is_empty() && localpart.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn only_the_characters_of_the_specification_make_a_name() {
        for good in ["a", "alice", "0", "a.b_c=d-e/f+g"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "Alice", "a b", "a:b", "@a", "ä", "a\0", "a\n"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
