//! Names of servers: a domain, or a key name that is the server's root public key itself
//! (`spec/federation.md`, "Keys and names").
//!
//! A key name is `<52 characters>.maru.alt`: 32 bytes in lower-case base32 without padding. 52
//! characters carry 260 bits; the four spare ones must be zero so that a key has one name. `.alt` is
//! reserved for names outside DNS (RFC 9476) and never looked up there.

use data_encoding::BASE32_NOPAD;
use ruma::{IdParseError, OwnedServerName, ServerName};
use thiserror::Error;

use crate::key::{KeyError, PublicKey};

/// What every key name ends with.
pub const KEY_NAME_SUFFIX: &str = ".maru.alt";

/// Length of the part before the suffix, in characters.
const KEY_LABEL_CHARACTERS: usize = 52;

/// How a server of some name is found and proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// The name is the root public key.
    Key(PublicKey),
    /// The name is a domain or an address; its key comes from a pin or from the domain's web server.
    Domain,
}

/// Why a name under [`KEY_NAME_SUFFIX`] is not a key name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ServerNameError {
    /// Not 52 characters of lower-case base32 with spare bits zero before the suffix.
    #[error("not 52 characters of lower-case base32 before {KEY_NAME_SUFFIX}")]
    NotBase32,
    /// Key names carry no port.
    #[error("a key name has no port")]
    Port,
    /// The name spells bytes that are no safe public key.
    #[error("the name is no safe key: {0}")]
    Key(#[from] KeyError),
}

impl ServerKind {
    /// What kind of name this is. Every name under `maru.alt` must be a key name.
    ///
    /// # Errors
    /// [`ServerNameError`] for a name under the suffix, in any case, that is not exactly a key name.
    pub fn of(name: &ServerName) -> Result<Self, ServerNameError> {
        let lower = name.host().to_ascii_lowercase();
        if !lower.ends_with(KEY_NAME_SUFFIX) && lower != KEY_NAME_SUFFIX[1..] {
            return Ok(Self::Domain);
        }
        if name.as_str() != name.host() {
            return Err(ServerNameError::Port);
        }
        key_of(name.as_str()).map(Self::Key)
    }
}

/// The key name of a root key.
///
/// # Errors
/// None in practice: 52 letters and digits with the suffix always are a host name.
pub fn key_name(key: &PublicKey) -> Result<OwnedServerName, IdParseError> {
    let label = BASE32_NOPAD.encode(key.as_bytes()).to_ascii_lowercase();
    OwnedServerName::try_from(format!("{label}{KEY_NAME_SUFFIX}"))
}

fn key_of(name: &str) -> Result<PublicKey, ServerNameError> {
    let label = name
        .strip_suffix(KEY_NAME_SUFFIX)
        .ok_or(ServerNameError::NotBase32)?;
    if label.len() != KEY_LABEL_CHARACTERS || label.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ServerNameError::NotBase32);
    }
    // The decoder refuses spare bits that are not zero.
    let bytes = BASE32_NOPAD
        .decode(label.to_ascii_uppercase().as_bytes())
        .map_err(|_| ServerNameError::NotBase32)?;
    Ok(PublicKey::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use proptest::prelude::*;

    fn kind(name: &str) -> Result<ServerKind, ServerNameError> {
        ServerKind::of(<&ServerName>::try_from(name).unwrap())
    }

    #[test]
    fn other_names_are_domains() {
        for name in [
            "example.org",
            "example.org:8448",
            "[::1]:80",
            "10.0.0.1",
            "xmaru.alt",
            "a.alt",
        ] {
            assert_eq!(kind(name), Ok(ServerKind::Domain), "{name}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let small_order = format!("{}{KEY_NAME_SUFFIX}", "a".repeat(52));
        assert_eq!(
            kind(&small_order),
            Err(ServerNameError::Key(KeyError::SmallOrder))
        );
        let long = format!("{}.maru.alt", "a".repeat(53));
        for name in ["maru.alt", "abc.maru.alt", "example.MARU.alt", long.as_str()] {
            assert_eq!(kind(name), Err(ServerNameError::NotBase32), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_key_has_exactly_one_name(seed in any::<[u8; 32]>(), spare in 1u8..16) {
            let key = SecretKey::from_seed(&seed).public_key();
            let name = key_name(&key).unwrap();
            prop_assert_eq!(ServerKind::of(&name), Ok(ServerKind::Key(key)));

            let text = name.as_str();
            let upper = text.to_ascii_uppercase();
            prop_assert_eq!(kind(&upper), Err(ServerNameError::NotBase32));
            let with_port = format!("{text}:1");
            prop_assert_eq!(kind(&with_port), Err(ServerNameError::Port));
            // The last character carries one bit of the key and four spare ones.
            let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
            let last = alphabet.iter().position(|c| *c == text.as_bytes()[51]).unwrap();
            let other = format!("{}{}.maru.alt", &text[..51], alphabet[last | spare as usize] as char);
            prop_assert_eq!(kind(&other), Err(ServerNameError::NotBase32));
        }
    }
}
