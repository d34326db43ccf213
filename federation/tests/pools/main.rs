//! Pools over real QUIC on loopback, with a small homeserver in memory behind each.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod connecting;
mod flow;
mod hostile;
mod memory;
mod requests;
mod support;
