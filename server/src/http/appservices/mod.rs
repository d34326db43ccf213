//! What application services ask for themselves, and what is asked of them (client-server API, "Third-party networks";
//! Application Service API, "Client-Server API Extensions").

pub(super) mod ping;
pub(super) mod third_party;
