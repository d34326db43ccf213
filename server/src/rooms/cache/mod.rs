//! Rooms and events in memory.

pub(super) mod loading;
pub(super) mod members;
pub(super) mod room;
pub(super) mod room_cache;
