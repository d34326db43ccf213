//! Where peers are.

use std::{future::Future, net::SocketAddr};

use maru_protocol::PublicKey;
use ruma::ServerName;

/// A place to dial a peer at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The UDP address.
    pub address: SocketAddr,
    /// The TLS key to expect there, from the peer's newest record. Without it any key is let through to
    /// the hello, whose record must then name the key that was met.
    pub key: Option<PublicKey>,
}

/// Knows where peers are: from the configuration, from server records, from look-ups.
pub trait AddressBook: Send + Sync + 'static {
    /// Where to dial a peer, the best first; at most eight are tried. Empty when nothing is known.
    /// Asked anew before each round of dialling, so that a changed record or configuration counts at once.
    fn targets(&self, peer: &ServerName) -> impl Future<Output = Vec<Target>> + Send;
}
