//! The user directory: finding people whom one may know of (client-server API, "User Directory").

use ruma::{OwnedUserId, UserId};

use super::Accounts;
use crate::refusal::Refusal;

/// Most users found at once.
const MOST: u64 = 100;

/// Longest term, in bytes.
const TERM_BYTES: usize = 256;

/// Somebody who was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUser {
    /// The user.
    pub user_id: OwnedUserId,
    /// How the user is called.
    pub display_name: Option<String>,
    /// Where the user's picture is.
    pub avatar_url: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The users.
    pub users: Vec<DirectoryUser>,
    /// Whether there are more.
    pub limited: bool,
}

impl Accounts {
    /// Finds users by a part of their local part or display name, whatever the case: those who share a room with
    /// `caller`, and those in rooms of the public directory.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an impossible term.
    pub async fn search_users(
        &self,
        caller: &UserId,
        term: &str,
        limit: u64,
    ) -> Result<DirectoryPage, Refusal> {
        if term.len() > TERM_BYTES || term.contains('\0') {
            let text = format!("a search term has at most {TERM_BYTES} bytes, none of them NUL");
            return Err(Refusal::invalid(text));
        }
        let term = self.bare(term).to_lowercase();
        if term.is_empty() {
            return Ok(DirectoryPage::default());
        }
        let limit = i64::try_from(limit.clamp(1, MOST)).unwrap_or(1);
        let mut found = self.store.search_users(caller, &term, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let limited = found.len() > wanted;
        found.truncate(wanted);
        let text = |json: Option<String>| serde_json::from_str(&json?).ok();
        let users = found.into_iter().map(|user| DirectoryUser {
            user_id: user.user_id,
            display_name: text(user.displayname),
            avatar_url: text(user.avatar_url),
        });
        Ok(DirectoryPage {
            users: users.collect(),
            limited,
        })
    }

    /// The term without the parts of a user id that all users here have in common.
    fn bare<'t>(&self, term: &'t str) -> &'t str {
        let term = term.trim();
        let term = term.strip_prefix('@').unwrap_or(term);
        let server = self.identity.name().as_str();
        let cut = term.strip_suffix(server).and_then(|term| term.strip_suffix(':'));
        cut.unwrap_or(term)
    }
}
