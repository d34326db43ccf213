//! Live delivery: what has just become durable goes to whoever is listening.
//!
//! It is an optimisation of reading the log, never a second truth: an [`UserInbox`] that overflows or is gone costs its
//! user a read of the database and nothing else.
//!
//! - [`commit_listeners`]: what happens after a commit, in order. [`node_follower`]: after one of another node.
//!   [`notifier`]: wakes sessions, hands out ephemeral changes.
//! - [`user_stream_cache`]: the newest records of a listening user. [`unread`]: the user's unread counts with them.
//! - [`recent_events_cache`]: the newest local events for peers. [`peer_wakeups`]: which peers have something to come.
//! - [`event_waiters`]: receipts that wait for their event. [`changes`]: ephemeral changes by counter.

mod changes;
mod commit_listeners;
mod event_waiters;
mod node_follower;
mod notifier;
mod peer_wakeups;
mod recent_events_cache;
mod unread;
mod user_stream_cache;

pub use commit_listeners::CommitListeners;
pub use event_waiters::EventWaiters;
pub use node_follower::NodeFollower;
pub use notifier::{Notifier, Passing};
pub use peer_wakeups::PeerWakeups;
pub use recent_events_cache::{NewForPeer, RecentEvents};
pub use unread::RoomUnread;
pub use user_stream_cache::{Delivery, Fresh, Item, UserInbox};
