//! Canonical JSON (specification appendices, "Canonical JSON"): the one spelling of a value that
//! hashes and signatures are made over.
//!
//! Keys are sorted by code point, nothing is padded, numbers are integers of at most 2^53 - 1 in
//! absolute value. Text from strangers is checked before it is believed: floats, repeated keys and
//! nesting beyond the limit are errors, and no input overflows the stack.

use std::{borrow::Cow, fmt};

use ruma::CanonicalJsonObject;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::limits::{MAX_INTEGER, MAX_JSON_DEPTH};

/// Why a text has no canonical form.
#[derive(Debug, Error)]
pub enum CanonicalError {
    /// Arrays and objects nest deeper than the limit.
    #[error("nested more than {0} levels deep")]
    TooDeep(usize),
    /// Not JSON, or JSON with a float, a large integer or a repeated key.
    #[error("not canonical JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The value is not an object where one is needed.
    #[error("not a JSON object")]
    NotAnObject,
}

/// The canonical form of any JSON text.
///
/// # Errors
/// [`CanonicalError`], see there.
pub fn canonicalise(json: &str, max_depth: usize) -> Result<String, CanonicalError> {
    let node = Node::parse(json, max_depth)?;
    let mut out = String::with_capacity(json.len());
    node.write(&mut out);
    Ok(out)
}

/// The content of an event: a JSON object in canonical form.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Content(Box<RawValue>);

impl Content {
    /// Reads an object and brings it to canonical form.
    ///
    /// # Errors
    /// [`CanonicalError`], also for nesting that would not fit into an event.
    pub fn parse(json: &str) -> Result<Self, CanonicalError> {
        // The event's own object is one more level around the content.
        let node = Node::parse(json, MAX_JSON_DEPTH - 1)?;
        if !matches!(node, Node::Object(_)) {
            return Err(CanonicalError::NotAnObject);
        }
        let mut out = String::with_capacity(json.len());
        node.write(&mut out);
        Self::trusted(out)
    }

    /// The canonical form of anything that serialises to an object.
    ///
    /// # Errors
    /// [`CanonicalError`], as for text.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, CanonicalError> {
        Self::parse(&serde_json::to_string(value)?)
    }

    /// `{}`.
    pub fn empty() -> Self {
        // An empty object is already canonical; a null could only come from a broken reader.
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// Takes text that is known to be a canonical object; only its JSON syntax is checked.
    pub(crate) fn trusted(json: String) -> Result<Self, CanonicalError> {
        Ok(Self(RawValue::from_string(json)?))
    }

    /// Takes the content of an event from our own store.
    pub(crate) fn from_stored(raw: Box<RawValue>) -> Self {
        Self(raw)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The text as raw JSON.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// The raw JSON itself.
    pub fn into_raw(self) -> Box<RawValue> {
        self.0
    }

    /// Reads the content as a type.
    ///
    /// # Errors
    /// When the content does not fit the type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl TryFrom<&RawValue> for Content {
    type Error = CanonicalError;

    fn try_from(raw: &RawValue) -> Result<Self, CanonicalError> {
        Self::parse(raw.get())
    }
}

impl TryFrom<serde_json::Value> for Content {
    type Error = CanonicalError;

    fn try_from(value: serde_json::Value) -> Result<Self, CanonicalError> {
        Self::of(&value)
    }
}

impl TryFrom<&CanonicalJsonObject> for Content {
    type Error = CanonicalError;

    fn try_from(object: &CanonicalJsonObject) -> Result<Self, CanonicalError> {
        Self::of(object)
    }
}

/// A parsed value whose objects are sorted and free of repeated keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// Reads one JSON value and nothing after it.
    pub(crate) fn parse(json: &'a str, max_depth: usize) -> Result<Self, CanonicalError> {
        // Measured first, because the reader below descends by recursion.
        if deeper_than(json.as_bytes(), max_depth) {
            return Err(CanonicalError::TooDeep(max_depth));
        }
        Ok(serde_json::from_str(json)?)
    }

    /// The field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Node<'a>> {
        let Self::Object(fields) = self else { return None };
        let at = fields.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        fields.get(at).map(|(_, value)| value)
    }

    /// The field of an object; where there is none, it is made an empty object first.
    pub(crate) fn field_mut(&mut self, name: &str) -> Result<&mut Node<'a>, CanonicalError> {
        let Self::Object(fields) = self else {
            return Err(CanonicalError::NotAnObject);
        };
        let at = match fields.binary_search_by(|(key, _)| key.as_ref().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                fields.insert(at, (name.to_owned().into(), Self::Object(Vec::new())));
                at
            }
        };
        fields
            .get_mut(at)
            .map(|(_, value)| value)
            .ok_or(CanonicalError::NotAnObject)
    }

    /// The text of a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// Appends the canonical form.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Integer(integer) => write_integer(out, *integer),
            Self::Text(text) => write_text(out, text),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => write_object(out, fields.iter().map(|(key, value)| (&**key, value))),
        }
    }
}

/// Appends an object of fields that come in order.
pub(crate) fn write_object<'n, 'a: 'n>(
    out: &mut String,
    fields: impl Iterator<Item = (&'n str, &'n Node<'a>)>,
) {
    out.push('{');
    let mut first = true;
    for (key, value) in fields {
        if !first {
            out.push(',');
        }
        first = false;
        write_text(out, key);
        out.push(':');
        value.write(out);
    }
    out.push('}');
}

/// Appends an integer.
pub fn write_integer(out: &mut String, integer: i64) {
    let _ = fmt::Write::write_fmt(out, format_args!("{integer}"));
}

/// Appends a string with its quotes, escaping only what must be.
pub fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x09 => "\\t",
            0x0a => "\\n",
            0x0c => "\\f",
            0x0d => "\\r",
            0..=0x1f => "",
            _ => continue,
        };
        // An escaped byte is ASCII, so both ends of the plain piece are character boundaries.
        out.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + 1;
        if escape.is_empty() {
            let _ = fmt::Write::write_fmt(out, format_args!("\\u{byte:04x}"));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// Whether brackets outside strings nest deeper than `limit`.
pub(crate) fn deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for &byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// A key that borrows where it can, which `Cow` alone would not.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floats and without integers beyond 2^53 - 1")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node<'de>, E> {
        if value.unsigned_abs() > MAX_INTEGER.unsigned_abs() {
            return Err(E::custom("integer beyond 2^53 - 1"));
        }
        Ok(Node::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node<'de>, E> {
        i64::try_from(value)
            .map_err(|_| E::custom("integer beyond 2^53 - 1"))
            .and_then(|v| self.visit_i64(v))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Node::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Key(key), value)) = entries.next_entry()? {
            fields.push((key, value));
        }
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        if fields
            .windows(2)
            .any(|pair| matches!(pair, [(a, _), (b, _)] if a == b))
        {
            return Err(serde::de::Error::custom("repeated key"));
        }
        Ok(Node::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spells_as_the_specification_does() {
        for (from, to) in [
            ("{}", "{}"),
            (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (r#"{"本":2,"日":1}"#, r#"{"日":1,"本":2}"#),
            (r#"{"a":"\u65E5"}"#, r#"{"a":"日"}"#),
            (r#"{"a":null}"#, r#"{"a":null}"#),
            (r#"["\u001f\u0008\/\u007f"]"#, "[\"\\u001f\\b/\u{7f}\"]"),
            (
                "[9007199254740991,-9007199254740991]",
                "[9007199254740991,-9007199254740991]",
            ),
        ] {
            assert_eq!(canonicalise(from, 10).unwrap(), to);
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        for bad in [
            "1.0",
            "1e3",
            "-0",
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"c":2,"b":3}}"#,
            r#""\ud800""#,
            "{} {}",
            "",
            "[1,]",
        ] {
            assert!(canonicalise(bad, 10).is_err(), "{bad}");
        }
        assert!(matches!(Content::parse("[]"), Err(CanonicalError::NotAnObject)));
    }

    #[test]
    fn hostile_nesting_is_counted_and_not_followed() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(canonicalise(&deep(MAX_JSON_DEPTH), MAX_JSON_DEPTH).is_ok());
        assert!(matches!(
            canonicalise(&deep(MAX_JSON_DEPTH + 1), MAX_JSON_DEPTH),
            Err(CanonicalError::TooDeep(_))
        ));
        assert!(matches!(
            canonicalise(&"[".repeat(1 << 20), 100),
            Err(CanonicalError::TooDeep(_))
        ));
        assert!(canonicalise(r#"["[[[[\"[[[["]"#, 1).is_ok());
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-MAX_INTEGER..=MAX_INTEGER).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_ruma(value in any_json()) {
            let ours = canonicalise(&value.to_string(), 100).unwrap();
            let theirs: ruma::CanonicalJsonValue = serde_json::from_value(value).unwrap();
            prop_assert_eq!(&ours, &theirs.to_string());
            prop_assert_eq!(canonicalise(&ours, 100).unwrap(), ours);
        }

        #[test]
        fn never_panics(text in r#"[\[\]{}",:\\a0-9.e-]{0,40}"#) {
            let _ = canonicalise(&text, 8);
        }
    }
}
