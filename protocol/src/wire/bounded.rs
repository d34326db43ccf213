//! Texts, byte strings and lists with a limit that is checked while they are read.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Unexpected, Visitor},
};

use super::limits::MAX_JSON_BYTES;
use crate::{
    cursor::LogId,
    key::{KeyId, PublicKey, Signature},
    limits::{MAX_ID_BYTES, MAX_INTEGER},
};

/// JSON inside a frame: at most [`MAX_JSON_BYTES`], shared and not parsed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(pub Arc<str>);

/// A text of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(Box<str>);

/// A byte string of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Octets<const MAX: usize>(Box<[u8]>);

impl<const MAX: usize> Text<MAX> {
    /// The text, cut at the last whole character within the limit: for reasons, where the end may be lost.
    pub fn cut(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(MAX)].into())
    }

    /// The text if it is within the limit.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= MAX).then(|| Self(text.into()))
    }
}

impl<const MAX: usize> Octets<MAX> {
    /// The bytes if they are within the limit.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX).then(|| Self(bytes.into()))
    }
}

impl Deref for Json {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Deref for Octets<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Arc<str>> for Json {
    fn from(json: Arc<str>) -> Self {
        Self(json)
    }
}

impl From<Json> for Arc<str> {
    fn from(json: Json) -> Self {
        json.0
    }
}

impl From<&str> for Json {
    fn from(json: &str) -> Self {
        Self(json.into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<const MAX: usize> fmt::Debug for Octets<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<const MAX: usize> Serialize for Octets<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::<_, _, MAX_JSON_BYTES>(deserializer, |text| Some(Self(text.into())))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::<_, _, MAX>(deserializer, |text| Some(Self(text.into())))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Octets<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        octets(deserializer, Self::new)
    }
}

impl Serialize for LogId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        octets(deserializer, |bytes| bytes.try_into().ok().map(Self))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        octets(deserializer, |bytes| Self::from_slice(bytes).ok())
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        octets(deserializer, |bytes| bytes.try_into().ok().map(Self))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::<_, _, MAX_ID_BYTES>(deserializer, |text| text.parse().ok())
    }
}

/// Reads an identifier of at most [`MAX_ID_BYTES`]: for types that do not bound themselves.
pub(crate) fn id<'de, D: Deserializer<'de>, T: for<'t> TryFrom<&'t str>>(
    deserializer: D,
) -> Result<T, D::Error> {
    text::<_, _, MAX_ID_BYTES>(deserializer, |text| T::try_from(text).ok())
}

/// Reads a number of at most 2^53 - 1, which every language and every database can hold.
pub(crate) fn natural<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number > MAX_INTEGER.unsigned_abs() {
        return Err(D::Error::invalid_value(
            Unexpected::Unsigned(number),
            &"a number below 2^53",
        ));
    }
    Ok(number)
}

/// Reads a list of at most `MAX` things. It grows with what is really there.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX.saturating_add(1), &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Reads a text of at most `MAX` bytes and makes something of it.
fn text<'de, D, T, const MAX: usize>(deserializer: D, make: fn(&str) -> Option<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bounded<T, const MAX: usize>(fn(&str) -> Option<T>);

    impl<T, const MAX: usize> Visitor<'_> for Bounded<T, MAX> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text of at most {MAX} bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            if text.len() > MAX {
                return Err(E::invalid_length(text.len(), &self));
            }
            (self.0)(text).ok_or_else(|| E::custom(format_args!("no {}", short_name::<T>())))
        }
    }

    deserializer.deserialize_str(Bounded::<T, MAX>(make))
}

/// Reads a byte string and makes something of it.
fn octets<'de, D, T>(deserializer: D, make: fn(&[u8]) -> Option<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bounded<T>(fn(&[u8]) -> Option<T>);

    impl<T> Visitor<'_> for Bounded<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the bytes of a {}", short_name::<T>())
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
            (self.0)(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
        }
    }

    deserializer.deserialize_bytes(Bounded(make))
}

/// The last part of a type's name, for messages.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}
