//! What lives in memory only and passes: who is typing, who is present. A restart forgets it, and tells devices so a
//! little later.

mod elsewhere;
mod outlet;
mod presence;
mod typing;

pub use elsewhere::Elsewhere;
pub use outlet::{News, Outlet};
pub use presence::{Presence, PresenceLimits, Shown};
pub use typing::Typing;
