//! Live delivery: hands what has just become durable to whoever is listening.
//!
//! It is an optimisation of reading the log, never a second truth: an [`Inbox`] that overflows or is gone costs its
//! user a read of the database and nothing else.

mod changes;
mod commit_listeners;
mod event_waiters;
mod notifier;
mod peer_wakeups;
mod recent_events_cache;
mod unread;
mod user_stream_cache;

pub use commit_listeners::CommitListeners;
pub use event_waiters::EventWaiters;
pub use notifier::{Notifier, Passing};
pub use peer_wakeups::PeerWakeups;
pub use recent_events_cache::{NewForPeer, RecentEvents};
pub use unread::RoomUnread;
pub use user_stream_cache::{Delivery, Fresh, Inbox, Item};
