//! Rooms and events in memory.

pub(super) mod members;
pub(super) mod room;
pub(super) mod room_cache;
pub(super) mod room_numbers;
pub(super) mod room_repository;
mod room_state;
