//! How the types of settings are read and shown.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::node_name::{BadNodeName, NodeName};

/// A type that a configuration key can have.
///
/// Every value can be written as text, because every key is also an environment variable.
pub trait Setting: Sized {
    /// Reads the value from text.
    ///
    /// # Errors
    ///
    /// A sentence fragment that says what was expected.
    fn read(text: &str) -> Result<Self, String>;

    /// The value as it would stand in the file, secrets hidden; `None` when it is unset.
    fn show(&self) -> Option<toml::Value>;
}

macro_rules! whole_number {
    ($($kind:ty),+) => {$(
        impl Setting for $kind {
            fn read(text: &str) -> Result<Self, String> {
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("expected a whole number from 0 to {}", <$kind>::MAX))
            }

            fn show(&self) -> Option<toml::Value> {
                i64::try_from(*self).ok().map(toml::Value::Integer)
            }
        }
    )+};
}
whole_number!(u16, u32, u64, usize);

impl Setting for f64 {
    fn read(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
            _ => Err("expected a number greater than 0".to_owned()),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Float(*self))
    }
}

impl Setting for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err("expected on or off".to_owned()),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Boolean(*self))
    }
}

/// Any text, not empty.
impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("expected some text".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.clone()))
    }
}

impl Setting for NodeName {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: BadNodeName| error.to_string())
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

impl Setting for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("expected a path".to_owned())
        } else {
            Ok(text.into())
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.display().to_string()))
    }
}

impl Setting for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "expected an address and a port, such as 127.0.0.1:8008 or [::]:8008".to_owned())
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

/// A key that may be left unset; empty text unsets it.
impl<T: Setting> Setting for Option<T> {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Ok(None)
        } else {
            T::read(text).map(Some)
        }
    }

    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::show)
    }
}

/// A list, in text separated by commas.
impl<T: Setting> Setting for Vec<T> {
    fn read(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(T::read)
            .collect()
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.iter().filter_map(T::show).collect()))
    }
}
