//! Whom a user ignores (client-server API, "Ignoring Users").

use std::collections::{HashMap, HashSet};

use ruma::OwnedUserId;

/// The account data that lists them.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// The users in the content of an `m.ignored_user_list`; what is no user id is passed over.
pub fn ignored_users(content: &str) -> HashSet<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        ignored_users: HashMap<String, serde::de::IgnoredAny>,
    }
    let listed = serde_json::from_str::<Content>(content)
        .map(|content| content.ignored_users)
        .unwrap_or_default();
    listed
        .into_keys()
        .filter_map(|name| OwnedUserId::try_from(name).ok())
        .collect()
}
