//! From sockets to HTTP: listening, TLS, limits on connections, and what an idle connection gives back.

pub mod client_address;
pub(super) mod connection;
pub(super) mod idle_connections;
pub mod listener;
pub mod tls;
pub(super) mod write_timeout;
