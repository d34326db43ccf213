//! Who this server is.

use maru_protocol::key::SigningKey;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

/// The server's name and the key it signs events with.
#[derive(Debug)]
pub struct Identity {
    /// Its name, the part after the colon of its users' ids.
    pub server_name: OwnedServerName,
    /// Signs events.
    pub signing_key: SigningKey,
}

impl Identity {
    /// Whether a user belongs to this server.
    pub fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.name()
    }

    /// This server's name.
    pub fn name(&self) -> &ServerName {
        &self.server_name
    }

    /// The id of this server's user with a local part, if it makes a valid id.
    pub fn user(&self, localpart: &str) -> Option<OwnedUserId> {
        UserId::parse(format!("@{localpart}:{}", self.server_name)).ok()
    }
}
