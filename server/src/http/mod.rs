//! HTTP: the listener, and the translation between the client API and the domain.

pub mod client_address;
mod connection;
pub mod listener;
pub mod request_log;
pub mod tls;
