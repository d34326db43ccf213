//! The vocabulary and the rules of Maru: what an event is, who may send it, and how replicas agree.
//!
//! Everything here is pure. No function reads a clock, draws a random number, touches a file or a
//! socket, or waits: callers pass in seeds, times and the events they have loaded. That is why a
//! simulation can run a hundred servers in one thread and always come to the same end.
//!
//! Where to read on:
//!
//! - [`server_name`] and [`key`]: who a server is. A name may be the public key itself.
//! - [`event`]: one entry of a room's history, its JSON, hash, signature and id.
//! - [`version`]: the room versions we speak (10, 11, 12) and what differs between them.
//! - [`auth`]: which events are allowed, and which state the decision reads.
//! - [`resolve`]: how the states of two forks become one.
//! - [`ingest`]: what becomes of an event that another server sent.
//! - [`gap`]: fetching the events that a replica lacks.
//! - [`join_decision`]: how a replica goes on to a join that another server has accepted.
//! - [`destinations`]: which servers an event is for.
//! - [`log_paging`]: what a peer is sent of a log, a page at a time.
//! - [`visibility`]: who may see an event.
//! - [`cursor`]: how far a reader of the log has come, and the tokens that clients carry.
//! - [`record`]: what a server says of itself, signed.
//! - [`json`]: what JSON may be that is no event and is kept as it came.
//! - [`wire`]: frames and messages between servers.
//! - [`limits`]: every size that is a rule.
//!
//! The rules follow the Matrix specification v1.19 except where `spec/` says otherwise: rooms may
//! allow events of 1 MiB, and every server checks signatures strictly and one by one.

pub mod auth;
pub mod canonical;
pub mod cursor;
pub mod destinations;
pub mod event;
pub mod gap;
pub mod ingest;
pub mod join_decision;
pub mod json;
pub mod key;
pub mod limits;
pub mod log_paging;
pub mod record;
pub mod resolve;
pub mod server_name;
pub mod state;
#[cfg(test)]
mod test_room;
pub mod version;
pub mod visibility;
pub mod wire;

pub use auth::{PowerLevel, PowerLevels, SlotHash, StateSlot};
pub use canonical::Content;
pub use cursor::{EphemeralCounts, LogId, PageToken, Place, Position, SinceToken};
pub use event::Event;
pub use key::{KeyId, PublicKey, SecretKey, Signature, SigningKey};
pub use record::{ServerRecord, SignedRecord, VerifiedRecord};
pub use server_name::ServerKind;
pub use version::RoomVersion;
