//! JSON from strangers that is kept or passed on as it came: what it may be.
//!
//! It is what an event may be ([`crate::canonical`]), but for numbers with a fraction, which clients use in what never
//! becomes an event (the order of a tag). What this lets through can be read back by every reader: nothing nests too deep
//! for it, no key comes twice, no number is beyond what a double holds exactly or at all, no surrogate stands alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::canonical::{Key, deeper_than};
use crate::limits::{MAX_INTEGER, MAX_JSON_DEPTH};

/// Why a text is not taken.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is no JSON, or says something that no reader of JSON can hold (a number beyond all doubles, half a character).
    #[error("not JSON: {0}")]
    NotJson(serde_json::Error),
    /// Arrays and objects nest deeper than in any event.
    #[error("nested more than {MAX_JSON_DEPTH} levels deep")]
    TooDeep,
    /// A repeated key, or an integer beyond 2^53 - 1.
    #[error("{0}")]
    Odd(serde_json::Error),
}

/// Checks one JSON value and nothing after it. Reads the text twice and keeps nothing of it; keys of one object are held
/// until its end.
///
/// # Errors
/// [`JsonError`], see there.
pub fn check(json: &[u8]) -> Result<(), JsonError> {
    // Measured first, because the reader below descends by recursion.
    if deeper_than(json, MAX_JSON_DEPTH) {
        // What is passed over is read without recursion.
        let read = serde_json::from_slice::<IgnoredAny>(json);
        return Err(read.map_or_else(JsonError::NotJson, |_| JsonError::TooDeep));
    }
    let checked = serde_json::from_slice::<Checked>(json);
    checked.map(drop).map_err(|error| match error.is_data() {
        true => JsonError::Odd(error),
        false => JsonError::NotJson(error),
    })
}

/// A value that was checked and let go.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated keys and without integers beyond 2^53 - 1")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Checked, E> {
        self.visit_u64(value.unsigned_abs())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Checked, E> {
        if value > MAX_INTEGER.unsigned_abs() {
            return Err(E::custom("integer beyond 2^53 - 1"));
        }
        Ok(Checked)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Checked, E> {
        // An integer that is too long for 64 bits is read as a fraction without one.
        if value.fract() == 0.0 && value.abs() > MAX_INTEGER as f64 {
            return Err(E::custom("integer beyond 2^53 - 1"));
        }
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while let Some(Checked) = items.next_element()? {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Checked, A::Error> {
        let mut keys: Vec<Cow<'de, str>> = Vec::new();
        while let Some((Key(key), Checked)) = entries.next_entry()? {
            keys.push(key);
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(A::Error::custom("repeated key"));
        }
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::canonical::canonicalise;

    fn nested(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    #[test]
    fn plain_json_is_taken() {
        for good in [
            "{}",
            "null",
            r#"{"a":{"b":[1,-1,true,null,"c"]},"b":0.25,"c":1e-3,"d":1e3}"#,
            r#"{"order":0.1,"a\u0000b":"\u0000","pair":"\ud83d\ude00"}"#,
            "[9007199254740991,-9007199254740991]",
            &nested(MAX_JSON_DEPTH),
        ] {
            check(good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
    }

    #[test]
    fn what_a_reader_may_stumble_over_is_refused() {
        for (bad, is_json) in [
            (r#"{"a":1,"a":2}"#, true),
            (r#"{"x":[{"a":1,"\u0061":2}]}"#, true),
            ("9007199254740992", true),
            ("-9007199254740992", true),
            ("123456789012345678901234567890", true),
            ("1e300", true),
            (&nested(MAX_JSON_DEPTH + 1), true),
            (&nested(1_000_000), true),
            (&"[".repeat(1_000_000), false),
            ("1e999", false),
            (r#""\ud800""#, false),
            (r#"{"\udc00":1}"#, false),
            ("\"a\u{0}b\"", false),
            ("{} {}", false),
            ("", false),
        ] {
            let shown = &bad[..bad.len().min(40)];
            match check(bad.as_bytes()) {
                Err(JsonError::NotJson(_)) => assert!(!is_json, "{shown}"),
                Err(_) => assert!(is_json, "{shown}"),
                Ok(()) => panic!("{shown} is taken"),
            }
        }
        assert!(matches!(check(b"\"\xff\""), Err(JsonError::NotJson(_))));
    }

    proptest! {
        #[test]
        fn every_canonical_text_is_taken(text in "[\\[\\]{}:,\"ab\\\\0-9. eE-]{0,30}") {
            if canonicalise(&text, MAX_JSON_DEPTH).is_ok() {
                prop_assert!(check(text.as_bytes()).is_ok());
            }
            if check(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }
}
