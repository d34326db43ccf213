//! Pairs of a name and a body: the one form that frames, items, requests and answers share.

use serde::{Serialize, de::DeserializeOwned};

/// What may stand behind a name.
pub trait Body: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> Body for T {}

/// Something that travels as an array of its name and its body.
pub trait Named: Serialize + DeserializeOwned {
    /// Every name that is known here.
    const NAMES: &'static [&'static str];

    /// The name of this one.
    fn name(&self) -> &'static str;
}

/// Makes an enum whose variants travel as `[name, body]`. Unknown names are errors.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $type:ident $(<$generic:ident>)? {
            $($(#[$doc:meta])* $name:literal => $variant:ident($body:ty),)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $type $(<$generic>)? {
            $($(#[$doc])* $variant($body),)*
        }

        impl $(<$generic: $crate::wire::Body>)? $crate::wire::Named for $type $(<$generic>)? {
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }
        }

        impl $(<$generic: $crate::wire::Body>)? ::serde::Serialize for $type $(<$generic>)? {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(body) => ($name, body).serialize(serializer),)*
                }
            }
        }

        impl<'de $(, $generic: $crate::wire::Body)?> ::serde::Deserialize<'de> for $type $(<$generic>)? {
            fn deserialize<R: ::serde::Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
                struct Pair<T>(::std::marker::PhantomData<T>);

                impl<'de $(, $generic: $crate::wire::Body)?> ::serde::de::Visitor<'de> for Pair<$type $(<$generic>)?> {
                    type Value = $type $(<$generic>)?;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("an array of a name and a body")
                    }

                    fn visit_seq<A: ::serde::de::SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                        use ::serde::de::Error;
                        let missing = || A::Error::custom("a name without a body");
                        let name: $crate::wire::Text<{ $crate::wire::limits::MAX_NAME_BYTES }> =
                            pair.next_element()?.ok_or_else(missing)?;
                        match &*name {
                            $($name => Ok($type::$variant(pair.next_element()?.ok_or_else(missing)?)),)*
                            unknown => Err(A::Error::unknown_variant(unknown, <Self::Value as $crate::wire::Named>::NAMES)),
                        }
                    }
                }

                deserializer.deserialize_tuple(2, Pair(::std::marker::PhantomData))
            }
        }
    };
}

/// Makes an enum of bare names, which travel as text. Unknown names are errors.
macro_rules! names {
    (
        $(#[$meta:meta])*
        pub enum $type:ident {
            $($(#[$doc:meta])* $name:literal => $variant:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$doc])* $variant,)*
        }

        impl $type {
            /// Every name that is known here.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name as it travels.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The one of this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = $crate::wire::Text::<{ $crate::wire::limits::MAX_NAME_BYTES }>::deserialize(deserializer)?;
                Self::from_name(&name)
                    .ok_or_else(|| ::serde::de::Error::unknown_variant(&name, Self::NAMES))
            }
        }
    };
}

pub(crate) use {named, names};
