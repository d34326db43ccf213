//! Links over QUIC: one UDP socket for both directions, TLS 1.3 with a key on each side, ALPN `maru/1`
//! (`spec/federation.md`, "Connections"), or `maru-node/1` between the nodes of one homeserver (`spec/nodes.md`).
//!
//! - `certificate`: how a TLS key travels, and how a peer's is read.
//! - `verifier`: what either side refuses.
//! - `config`: TLS and transport parameters.
//! - `node_key`: secrets made of the TLS key, such as the key by which nodes know each other.
//! - `reset`: how a peer hears at once that we were restarted.
//! - `endpoint`: the socket, dialling and accepting.
//! - `handshakes`: how many at the same time.
//! - `link`: one connection as a [`crate::link::Link`].

mod certificate;
#[cfg(test)]
mod certificate_vectors;
mod config;
mod endpoint;
mod handshakes;
mod link;
mod node_key;
mod reset;
#[cfg(test)]
mod tests;
mod verifier;

pub use certificate::certificate;
pub use endpoint::{BoundSocket, Quic, QuicError};
