//! What lives in memory only and passes: who is typing, who is present. A restart forgets it, and tells devices so a
//! little later.
//!
//! Each node knows all of it: what its own clients do, and what the other nodes say of theirs. What is known here first is
//! told to the others ([`NodeSender`]); the node that speaks with other homeservers tells those too ([`EduSender`]).

mod edu_sender;
mod node_listener;
mod node_messages;
mod node_sender;
mod people;
mod presence;
mod remote_presence;
mod typing;

pub use edu_sender::{EduSender, News};
pub use node_listener::NodeListener;
pub use node_sender::{NodeSender, Outlet};
pub use presence::{Presence, PresenceLimits, Shown};
pub use remote_presence::RemotePresence;
pub use typing::Typing;
