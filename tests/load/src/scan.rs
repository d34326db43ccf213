//! Reading one field out of JSON without parsing the rest, for the paths where the driver's own time counts.

use std::str;

use memchr::memmem::Finder;

use crate::error::LoadError;

/// Finds the value of one string field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    name: &'static str,
    finder: Finder<'static>,
}

impl Field {
    /// `quoted` is the field's name in its quotation marks.
    pub(crate) fn new(quoted: &'static str) -> Self {
        Self {
            name: quoted,
            finder: Finder::new(quoted),
        }
    }

    /// The first value of the field, if it is a string without escapes: ids and cursors never have any.
    pub(crate) fn of<'a>(&self, json: &'a [u8]) -> Result<&'a str, LoadError> {
        let missing = || {
            let start = String::from_utf8_lossy(json.get(..200).unwrap_or(json)).into_owned();
            LoadError::Protocol(format!("no field {} in {start}", self.name))
        };
        let at = self.finder.find(json).ok_or_else(missing)? + self.name.len();
        let rest = json.get(at..).unwrap_or_default().trim_ascii_start();
        let rest = rest.strip_prefix(b":").ok_or_else(missing)?.trim_ascii_start();
        let value = rest.strip_prefix(b"\"").ok_or_else(missing)?;
        let end = memchr::memchr(b'"', value).ok_or_else(missing)?;
        value
            .get(..end)
            .and_then(|value| str::from_utf8(value).ok())
            .ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_with_and_without_spaces() {
        let field = Field::new("\"event_id\"");
        assert_eq!(field.of(br#"{"event_id":"$a"}"#).unwrap(), "$a");
        assert_eq!(
            field.of(b"{\"x\":1, \"event_id\" :\n \"$b\", \"y\": 2}").unwrap(),
            "$b"
        );
        for wrong in [
            &br#"{"event":"$a"}"#[..],
            br#"{"event_id":7}"#,
            br#"{"event_id":"$a"#,
            b"",
        ] {
            assert!(field.of(wrong).is_err());
        }
    }
}
