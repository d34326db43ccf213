//! What lives in memory only and passes: who is typing, who is present. A restart forgets it harmlessly.

mod elsewhere;
mod outlet;
mod presence;
mod typing;

pub use elsewhere::Elsewhere;
pub use outlet::{News, Outlet};
pub use presence::{Presence, PresenceLimits, Shown};
pub use typing::Typing;
