//! Local users as rooms show them: whether they exist, and the parts of their profile that member events carry.

use std::collections::HashMap;

use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Row, query};

/// A local user as member events show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Whether the account is closed.
    pub deactivated: bool,
    /// `displayname` of the profile.
    pub display_name: Option<String>,
    /// `avatar_url` of the profile.
    pub avatar_url: Option<String>,
}

/// Local users by their ids.
pub type People = HashMap<OwnedUserId, Person>;

impl AccountTables {
    /// The users of these ids who have an account here, in one query.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn people<'u>(
        &self,
        users: impl IntoIterator<Item = &'u UserId>,
    ) -> Result<People, StoreError> {
        let users: Vec<String> = users.into_iter().map(ToString::to_string).collect();
        let rows = query(
            "SELECT users.user_id, users.deactivated, profiles.field, profiles.value FROM users \
             LEFT JOIN profiles ON profiles.user_id = users.user_id \
             AND profiles.field IN ('displayname', 'avatar_url') WHERE users.user_id = ANY($1)",
        );
        let rows = rows.bind(users).all(&self.readers).await?;
        let mut people = People::with_capacity(rows.len());
        for row in &rows {
            add(&mut people, row)?;
        }
        Ok(people)
    }
}

fn add(people: &mut People, row: &Row) -> Result<(), StoreError> {
    let user_id = row
        .get::<String>(0)?
        .try_into()
        .map_err(|error| StoreError::corrupt("users", error))?;
    let person = people.entry(user_id).or_default();
    person.deactivated = row.get(1)?;
    // A value that is no text is shown nowhere.
    let value = row.get::<Option<String>>(3)?;
    let value = value.and_then(|json| serde_json::from_str::<String>(&json).ok());
    match row.get::<Option<String>>(2)?.as_deref() {
        Some("displayname") => person.display_name = value,
        Some("avatar_url") => person.avatar_url = value,
        _ => {}
    }
    Ok(())
}
