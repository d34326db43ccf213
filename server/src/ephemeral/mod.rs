//! What lives in memory only and passes: who is typing, who is present. A restart forgets it harmlessly.

mod presence;
mod typing;

pub use presence::{Presence, PresenceLimits};
pub use typing::Typing;
