//! What is kept for and of other servers.

pub mod destination_intervals;
pub mod inbox;
pub(super) mod known_peers;
pub mod outgoing;
pub(super) mod own_events;
pub mod peer_messages;
pub mod remote_devices;
pub mod server_records;
