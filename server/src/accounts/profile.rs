//! Profiles: a few fields about a user that everybody may read, two of which show in every room of the user.

use ruma::UserId;
use serde_json::{Map, Value};

use super::Accounts;
use crate::refusal::Refusal;
use crate::store::accounts::profiles::{ProfileChange, ProfileChanged};

/// Largest profile, in bytes of JSON (client-server API, "Profiles").
const MAX_BYTES: usize = 64 * 1024;

/// Longest name of a field, in bytes.
const FIELD_BYTES: usize = 255;

/// Longest display name, in characters: it is repeated in every room.
const NAME_CHARACTERS: usize = 256;

/// Longest avatar address, in bytes.
const AVATAR_BYTES: usize = 1024;

/// The fields that membership events repeat.
const IN_ROOMS: [&str; 2] = ["displayname", "avatar_url"];

/// Checks the name of a field (common namespaced identifier grammar).
fn check_field(field: &str) -> Result<(), Refusal> {
    if field.len() > FIELD_BYTES {
        let text = format!("the name of a profile field has at most {FIELD_BYTES} bytes");
        return Err(Refusal::KeyTooLarge(text));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    if !field.starts_with(|c: char| c.is_ascii_lowercase()) || !field.chars().all(allowed) {
        let text = "the name of a profile field begins with a-z and has only a-z, 0-9 and _ - .";
        return Err(Refusal::invalid(text));
    }
    Ok(())
}

/// Checks what a field is set to. An empty name or avatar means none.
fn check_value(field: &str, value: Value) -> Result<Option<Value>, Refusal> {
    let Value::String(text) = &value else {
        return match field {
            "displayname" | "avatar_url" => Err(Refusal::BadJson(format!("{field} is not a string"))),
            _ => Ok(Some(value)),
        };
    };
    match field {
        "displayname" if text.chars().count() > NAME_CHARACTERS || text.contains('\0') => {
            Err(Refusal::invalid(format!(
                "a display name has at most {NAME_CHARACTERS} characters, none of them NUL"
            )))
        }
        "avatar_url" if text.len() > AVATAR_BYTES || text.contains('\0') => Err(Refusal::invalid(format!(
            "an avatar's address has at most {AVATAR_BYTES} bytes, none of them NUL"
        ))),
        "displayname" | "avatar_url" if text.is_empty() => Ok(None),
        _ => Ok(Some(value)),
    }
}

impl Accounts {
    /// A user's profile.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such user.
    pub async fn profile(&self, user_id: &UserId) -> Result<Map<String, Value>, Refusal> {
        let profile = self.store.accounts.profile(user_id).await?;
        if profile.is_empty() {
            let user = self.store.accounts.user(user_id).await?;
            if user.is_none_or(|user| user.deactivated) {
                return Err(Refusal::not_found("there is no such user"));
            }
        }
        let read = |(field, value): (String, String)| Ok((field, serde_json::from_str(&value)?));
        let fields: Result<_, serde_json::Error> = profile.into_iter().map(read).collect();
        fields.map_err(Refusal::internal)
    }

    /// Sets a field of a user's profile, or removes it. A new display name or avatar is told to the user's rooms
    /// before this returns.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`], [`Refusal::KeyTooLarge`], [`Refusal::ProfileTooLarge`].
    pub async fn set_profile_field(
        &self,
        user_id: &UserId,
        field: &str,
        value: Option<Value>,
    ) -> Result<(), Refusal> {
        check_field(field)?;
        let value = value.map_or(Ok(None), |value| check_value(field, value))?;
        let search_text = (field == "displayname").then(|| {
            let name = value.as_ref().and_then(Value::as_str).unwrap_or_default();
            format!("{} {name}", user_id.localpart()).to_lowercase()
        });
        let change = ProfileChange {
            user_id: user_id.to_owned(),
            field: field.to_owned(),
            value: value.map(|value| value.to_string()),
            search_text,
            max_bytes: MAX_BYTES,
        };
        match self.store.accounts.change_profile(change).await? {
            ProfileChanged::Same => Ok(()),
            ProfileChanged::Changed if IN_ROOMS.contains(&field) => {
                self.rooms.profile_propagation.propagate(user_id).await
            }
            ProfileChanged::Changed => Ok(()),
            ProfileChanged::TooLarge => Err(Refusal::ProfileTooLarge(format!(
                "a profile has at most {MAX_BYTES} bytes"
            ))),
            ProfileChanged::NoUser => Err(Refusal::not_found("there is no such user")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_by_the_grammar() {
        for good in ["displayname", "avatar_url", "m.tz", "org.example.zone-2_b"] {
            assert!(check_field(good).is_ok(), "{good}");
        }
        for bad in ["", "Displayname", "1a", ".a", "a b", "ä", "a\0"] {
            assert!(matches!(check_field(bad), Err(Refusal::InvalidParam(_))), "{bad}");
        }
        assert!(check_field(&"a".repeat(255)).is_ok());
        assert!(matches!(
            check_field(&"a".repeat(256)),
            Err(Refusal::KeyTooLarge(_))
        ));
    }

    #[test]
    fn names_and_avatars_are_short_strings() {
        assert_eq!(check_value("displayname", json!("")).unwrap(), None);
        assert_eq!(
            check_value("displayname", json!("Bob 🦊")).unwrap(),
            Some(json!("Bob 🦊"))
        );
        assert!(check_value("displayname", json!("x".repeat(257))).is_err());
        assert!(check_value("displayname", json!("a\0b")).is_err());
        assert!(check_value("displayname", json!(7)).is_err());
        assert!(check_value("avatar_url", json!("x".repeat(1025))).is_err());
        assert_eq!(check_value("org.example", json!([1])).unwrap(), Some(json!([1])));
    }
}
