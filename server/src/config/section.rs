//! How a section of the configuration is written down once, and walked by everything that needs its keys.
//!
//! A key's name, type, default and meaning stand in one place, in [`keys`](super::keys). The file reader, the
//! environment, `maru config show` and the reference in `spec/operations.md` all walk the same tree.

use super::Setting;

/// One key met on a walk through the configuration.
pub struct Key<'a> {
    /// The full name as in the file, sections joined by dots: `limits.upload_bytes`.
    pub path: String,
    /// What the key is for, one line of plain text.
    pub meaning: String,
    /// Its present value.
    pub value: &'a mut dyn Value,
}

impl Key<'_> {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("MARU_{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// A value whose type is not known to the walker.
pub trait Value {
    /// Replaces the value by what the text says.
    ///
    /// # Errors
    ///
    /// A sentence fragment that says what was expected.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// The value as it would stand in the file, secrets hidden; `None` when it is unset.
    fn shown(&self) -> Option<toml::Value>;
}

impl<T: Setting> Value for T {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = T::read(text)?;
        Ok(())
    }

    fn shown(&self) -> Option<toml::Value> {
        self.show()
    }
}

/// A part of the configuration tree: a key, or a section of keys.
pub trait Node {
    /// Calls `each` for every key at or below this node, in the order in which they are written.
    fn walk(&mut self, path: &str, meaning: &str, each: &mut dyn FnMut(Key<'_>));
}

impl<T: Setting> Node for T {
    fn walk(&mut self, path: &str, meaning: &str, each: &mut dyn FnMut(Key<'_>)) {
        each(Key {
            path: path.to_owned(),
            meaning: meaning.trim().to_owned(),
            value: self,
        });
    }
}

/// The path of `name` within the section at `path`.
pub(super) fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Defines a section: a struct with defaults, whose doc comments are also the reference.
///
/// `name: Type = default;` is a key, or a section below when `Type` is one. A section that is used several times
/// (a rate) hands its own meaning down, so the doc comment of such a field says what is limited.
macro_rules! section {
    ($(#[doc = $about:literal])+ pub struct $section:ident {
        $($(#[doc = $meaning:literal])+ $name:ident: $kind:ty = $default:expr;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $section {
            $($(#[doc = $meaning])+ pub $name: $kind,)+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl $crate::config::section::Node for $section {
            fn walk(
                &mut self,
                path: &str,
                _meaning: &str,
                each: &mut dyn FnMut($crate::config::section::Key<'_>),
            ) {
                $($crate::config::section::Node::walk(
                    &mut self.$name,
                    &$crate::config::section::below(path, stringify!($name)),
                    concat!($($meaning),+),
                    each,
                );)+
            }
        }
    };
}
pub(super) use section;
