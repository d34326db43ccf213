//! The user directory: finding people whom one may know of (client-server API, "User Directory").

use ruma::{OwnedUserId, UserId};

use super::Accounts;
use crate::refusal::Refusal;
use crate::store::accounts::user_directory::FoundUser;

/// Most users found at once.
const MOST: u64 = 100;

/// Users whose rooms are looked at one by one in one search, because the caller shares none with them, and their rooms.
const LOOKED_AT: i64 = 200;
const ROOMS_LOOKED_AT: i64 = 2_000;

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
    /// `caller`, and those in rooms that anybody may join, read, or find in the public directory. Costs grow with the
    /// accounts; of those who are in no room of the caller's or the directory's, the first are looked at.
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
        let mut found = self.store.accounts.search_users(caller, &term, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut limited = found.len() > wanted;
        if !limited {
            limited = self.add_strangers(&mut found, caller, &term).await? || found.len() > wanted;
        }
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

    /// Adds those who share no room with the caller and are in one that is open to everybody; whether some were not
    /// looked at.
    async fn add_strangers(
        &self,
        found: &mut Vec<FoundUser>,
        caller: &UserId,
        term: &str,
    ) -> Result<bool, Refusal> {
        let mut strangers = self
            .store
            .accounts
            .search_strangers(caller, term, LOOKED_AT)
            .await?;
        if strangers.is_empty() {
            return Ok(false);
        }
        let names = strangers.iter().map(|user| user.user_id.to_string()).collect();
        let rooms = self
            .store
            .accounts
            .joined_rooms_of(names, ROOMS_LOOKED_AT)
            .await?;
        let open = self
            .rooms
            .summaries
            .open_among(rooms.values().flatten().copied())
            .await?;
        let is_limited = i64::try_from(strangers.len()).is_ok_and(|count| count >= LOOKED_AT);
        strangers.retain(|user| {
            let rooms = rooms.get(&user.user_id);
            rooms.is_some_and(|rooms| rooms.iter().any(|room| open.contains(room)))
        });
        found.append(&mut strangers);
        found.sort_by(|a, b| (b.begins, &a.user_id).cmp(&(a.begins, &b.user_id)));
        Ok(is_limited)
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
