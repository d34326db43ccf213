//! Live delivery: hands what has just become durable to whoever is listening.
//!
//! It is an optimisation of reading the log, never a second truth: an [`Inbox`] that overflows or is gone costs its
//! user a read of the database and nothing else.

mod awaited;
mod changes;
mod destinations;
mod hub;
mod inbox;
mod readers;
mod tail;
mod unread;

pub use awaited::Awaited;
pub use destinations::Destinations;
pub use hub::{Hub, Passing};
pub use inbox::{Delivery, Fresh, Inbox, Item};
pub use readers::Readers;
pub use tail::{NewForPeer, Tail};
pub use unread::RoomUnread;
