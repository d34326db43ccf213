//! Profiles: what users tell everybody about themselves.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{On, query};

/// A profile: JSON texts by the names of their fields.
pub type Profile = BTreeMap<String, String>;

/// A change of one field.
#[derive(Clone, Debug)]
pub struct ProfileChange {
    /// Whose profile.
    pub user_id: OwnedUserId,
    /// Which field.
    pub field: String,
    /// Its new JSON text; none to remove it.
    pub value: Option<String>,
    /// What the user directory looks in from now on, if that changes.
    pub search_text: Option<String>,
    /// Largest profile, in bytes of JSON.
    pub max_bytes: usize,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileChanged {
    /// The profile has the field as wanted, and had it before.
    Same,
    /// The profile has changed.
    Changed,
    /// It would be too large.
    TooLarge,
    /// There is no such user, or the account is closed.
    NoUser,
}

async fn read<'a>(on: impl Into<On<'a>>, user_id: &UserId) -> Result<Profile, StoreError> {
    let rows = query("SELECT field, value FROM profiles WHERE user_id = $1").bind(user_id.as_str());
    let rows = rows.all(on).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The size of a profile as JSON: `{"field":value,…}`. Names of fields need no escapes.
fn bytes(profile: &Profile) -> usize {
    let fields = profile.iter().map(|(field, value)| field.len() + value.len() + 4);
    fields.sum::<usize>() + 1
}

impl AccountTables {
    /// A user's profile, empty when nothing is known of the user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn profile(&self, user_id: &UserId) -> Result<Profile, StoreError> {
        read(&self.readers, user_id).await
    }

    /// Changes a field of a profile.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn change_profile(&self, change: ProfileChange) -> Result<ProfileChanged, StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let connection = &mut tx.connection;
                    let (user_id, field) = (&change.user_id, &change.field);
                    let open = query("SELECT 1 FROM users WHERE user_id = $1 AND deactivated = 0");
                    if open
                        .bind(user_id.as_str())
                        .all(&mut *connection)
                        .await?
                        .is_empty()
                    {
                        return Ok(ProfileChanged::NoUser);
                    }
                    let mut profile = read(&mut *connection, user_id).await?;
                    if profile.get(field) == change.value.as_ref() {
                        return Ok(ProfileChanged::Same);
                    }
                    match change.value {
                        Some(value) => {
                            profile.insert(field.clone(), value.clone());
                            if bytes(&profile) > change.max_bytes {
                                return Ok(ProfileChanged::TooLarge);
                            }
                            let upsert = query(
                                "INSERT INTO profiles (user_id, field, value) VALUES ($1, $2, $3) \
                             ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value",
                            );
                            let upsert = upsert.bind(user_id.as_str()).bind(field).bind(value);
                            upsert.run(connection).await?;
                        }
                        None => {
                            let delete = query("DELETE FROM profiles WHERE user_id = $1 AND field = $2");
                            delete.bind(user_id.as_str()).bind(field).run(connection).await?;
                        }
                    }
                    if let Some(text) = change.search_text {
                        let update = query("UPDATE users SET search_text = $1 WHERE user_id = $2");
                        let update = update.bind(text).bind(user_id.as_str());
                        update.run(connection).await?;
                    }
                    Ok(ProfileChanged::Changed)
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use crate::store::accounts::profiles::*;

    #[test]
    fn a_profile_is_as_large_as_its_json() {
        let mut profile = Profile::new();
        profile.insert("displayname".into(), r#""Alice""#.into());
        profile.insert("m.tz".into(), r#"{"a":1}"#.into());
        let json = r#"{"displayname":"Alice","m.tz":{"a":1}}"#;
        assert_eq!(bytes(&profile), json.len());
    }
}
