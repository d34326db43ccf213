//! What lives in memory only and passes: who is typing, who is present. A restart forgets it, and tells devices so a
//! little later.

mod edu_sender;
mod presence;
mod remote_presence;
mod typing;

pub use edu_sender::{EduSender, News};
pub use presence::{Presence, PresenceLimits, Shown};
pub use remote_presence::RemotePresence;
pub use typing::Typing;
