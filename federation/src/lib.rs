//! Peers: how one homeserver reaches another over QUIC and keeps its log flowing (`spec/federation.md`).
//!
//! This crate knows nothing of rooms, users or SQL. It moves what the server hands it, and asks the server through one
//! trait for everything it cannot know.
//!
//! - [`homeserver`]: what is asked of the server.
//! - [`address_book`]: where peers are.
//! - [`link`]: one connection, whatever carries it; [`quic`] over UDP.
//! - [`peer`]: what is said over a connection, as a pure state machine.
//! - [`pool`]: keeps peers connected, and everything between them flowing.
//! - [`limits`]: every bound. `places`: how many may do something at once, from one place.

pub mod address_book;
pub mod homeserver;
pub mod limits;
pub mod link;
pub mod peer;
mod per_ip_limit;
pub mod pool;
pub mod quic;

pub use address_book::{AddressBook, Target};
pub use homeserver::Homeserver;
pub use pool::Pool;
