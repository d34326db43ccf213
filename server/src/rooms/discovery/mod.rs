//! Rooms from outside: aliases, the public directory, summaries, spaces.

pub(super) mod aliases;
pub(super) mod directory;
pub(super) mod hierarchy;
pub(super) mod stripped_state;
pub(super) mod summary;
