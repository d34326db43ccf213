//! Budgets: what anybody may make this server do, keep or send, and how the one who does more is refused.
//!
//! Whoever causes a cost has a budget for it, and what goes over is refused to them, visibly, never taken from somebody
//! else. All budgets stand here, each as one row: how often ([`rates`]), how much ([`amounts`]), and which of them every
//! writing endpoint and every frame of a WebSocket spends ([`spending`]). Limits that nobody configures stand as constants
//! beside the code that holds them. `spec/limits.md` is written from all of these by `tests/tests/tidy/limits.rs`.

pub mod amounts;
pub mod buckets;
mod network;
pub mod rates;
mod refused;
pub mod spending;

pub use buckets::{Budgets, TooMany};
pub use network::ClientNetwork;
pub use rates::{Budget, Rate, Rates};
pub use refused::refused;

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An account of this server.
    Account,
    /// A device of an account.
    Device,
    /// An account and the address from which somebody tries to get into it.
    AccountAndAddress,
    /// A client's address; an IPv6 network of 64 bits counts as one.
    Address,
    /// A connection of a client.
    Connection,
    /// A single request.
    Request,
    /// Another homeserver.
    Peer,
    /// All together.
    Server,
}

impl By {
    /// The words for it in `spec/limits.md`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Device => "device",
            Self::AccountAndAddress => "account and address",
            Self::Address => "address",
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Peer => "homeserver",
            Self::Server => "all together",
        }
    }
}
