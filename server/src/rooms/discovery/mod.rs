//! Rooms as those outside find them.
//!
//! - [`aliases`]: names of rooms. [`directory`]: the published ones.
//! - [`hierarchy`]: previews and spaces, and who may see them. [`summary`]: the summary of a room.
//! - [`stripped_state`]: the state that comes with an invitation.

pub(super) mod aliases;
pub(super) mod directory;
pub(super) mod hierarchy;
pub(super) mod stripped_state;
pub(super) mod summary;
