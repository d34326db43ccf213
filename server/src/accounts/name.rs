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
        match self.store.accounts.user(&user_id).await? {
            None => Ok(user_id),
            Some(_) => Err(Refusal::UserInUse),
        }
    }

    /// Checks that somebody who is no admin may have a user name: those that are reserved look as if the server or its
    /// admin spoke. Punctuation does not tell names apart.
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`].
    pub(super) fn check_not_reserved(&self, localpart: &str) -> Result<(), Refusal> {
        if is_reserved(localpart, &self.rules.reserved_names) {
            return Err(Refusal::InvalidUsername("this user name is reserved".into()));
        }
        Ok(())
    }

    /// Checks that somebody could register with a user name. Whoever makes the first account is an admin and may have
    /// any.
    ///
    /// # Errors
    /// [`Refusal::InvalidUsername`], [`Refusal::UserInUse`].
    pub async fn check_may_be_had(&self, localpart: &str) -> Result<(), Refusal> {
        let user_id = self.check_available(localpart).await?;
        self.check_no_service_has(&user_id)?;
        if self.store.accounts.users_after("", 1).await?.is_empty() {
            return Ok(());
        }
        self.check_not_reserved(localpart)
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

/// Whether a name is among the reserved ones; `*` at the end of one stands for any rest.
fn is_reserved(localpart: &str, reserved: &[String]) -> bool {
    let letters = |name: &str| -> String { name.chars().filter(|c| c.is_ascii_alphanumeric()).collect() };
    reserved.iter().any(|name| match name.strip_suffix('*') {
        Some(beginning) => localpart.starts_with(beginning),
        None => letters(localpart) == letters(name),
    })
}

#[cfg(test)]
mod tests {
    use super::{is_reserved, is_valid};
    use crate::config::Config;

    #[test]
    fn names_of_the_server_and_its_admin_are_reserved() {
        let reserved = Config::default().reserved_names;
        for name in [
            "admin",
            "ad.min",
            "_admin_",
            "maru",
            "server",
            "_bridge_x",
            "post-master",
        ] {
            assert!(is_reserved(name, &reserved), "{name}");
        }
        for name in ["alice", "adminton", "marut", "a_bridge", "observer"] {
            assert!(!is_reserved(name, &reserved), "{name}");
        }
        assert!(!is_reserved("admin", &[]));
    }

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
