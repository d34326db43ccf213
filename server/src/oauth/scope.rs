//! Scopes: what a client asks for (client-server API, "OAuth 2.0 API", "Scope"). A client is given all of the client API or
//! nothing, and chooses the id of the device that it becomes.

use super::{ErrorCode, OAuthError};

/// All of the client API.
const API: [&str; 2] = [
    "urn:matrix:client:api:*",
    "urn:matrix:org.matrix.msc2967.client:api:*",
];

/// What the id of a device follows.
const DEVICE: [&str; 2] = [
    "urn:matrix:client:device:",
    "urn:matrix:org.matrix.msc2967.client:device:",
];

/// Longest device id, in bytes.
const DEVICE_ID_BYTES: usize = 255;

/// What a client is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// The id of the device that it becomes.
    pub(super) device_id: String,
    /// What was asked for and is known, in the client's own spelling.
    pub(super) granted: String,
}

impl Scope {
    /// Reads what is asked for. What is not known is left out (RFC 6749, section 3.3).
    pub(super) fn read(text: &str) -> Result<Self, OAuthError> {
        let invalid = |why: &str| OAuthError::new(ErrorCode::InvalidScope, why);
        let mut granted: Vec<&str> = Vec::new();
        let (mut has_api, mut device_id) = (false, None);
        for token in text.split(' ') {
            let device = DEVICE.iter().find_map(|prefix| token.strip_prefix(prefix));
            if API.contains(&token) {
                has_api = true;
            } else if let Some(device) = device {
                if !is_device_id(device) {
                    return Err(invalid("this is no device id"));
                }
                if device_id.is_some_and(|other| other != device) {
                    return Err(invalid("a client becomes one device"));
                }
                device_id = Some(device);
            } else {
                continue;
            }
            if !granted.contains(&token) {
                granted.push(token);
            }
        }
        if !has_api {
            return Err(invalid("the scope of the client API is missing"));
        }
        let device_id = device_id.ok_or_else(|| invalid("the scope of a device is missing"))?;
        Ok(Self {
            device_id: device_id.to_owned(),
            granted: granted.join(" "),
        })
    }
}

/// Whether a client may choose this id: characters that need no encoding in an address.
fn is_device_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    !text.is_empty() && text.len() <= DEVICE_ID_BYTES && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known_and_the_rest_is_left_out() {
        let new = Scope::read("urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ").unwrap();
        assert_eq!(new.device_id, "ABCDEFGHIJ");
        let old = "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:ABCDEFGHIJ";
        let read = Scope::read(&format!("openid {old} email {old}")).unwrap();
        assert_eq!(read.granted, old);
        let both = Scope::read(&format!("{old} {}", new.granted)).unwrap();
        assert_eq!(both.device_id, "ABCDEFGHIJ");
    }

    #[test]
    fn what_no_client_can_be_given_is_refused() {
        for bad in [
            "",
            "openid",
            "urn:matrix:client:api:*",
            "urn:matrix:client:device:ABC",
            "urn:matrix:client:api:read urn:matrix:client:device:ABC",
            "urn:matrix:client:api:* urn:matrix:client:device:",
            "urn:matrix:client:api:* urn:matrix:client:device:a/b",
            "urn:matrix:client:api:* urn:matrix:client:device:a%20b",
            "urn:matrix:client:api:* urn:matrix:client:device:A urn:matrix:client:device:B",
        ] {
            let refused = Scope::read(bad).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidScope, "{bad}");
        }
        let long = "x".repeat(256);
        assert!(
            Scope::read(&format!(
                "urn:matrix:client:api:* urn:matrix:client:device:{long}"
            ))
            .is_err()
        );
    }
}
