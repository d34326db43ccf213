//! Pools over real QUIC on loopback, with a small homeserver in memory behind each.

mod connecting;
mod flow;
mod hostile;
mod requests;
mod support;
