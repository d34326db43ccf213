//! The repository of rooms: what is in memory, and what is loaded from the database into it.
//!
//! - [`room_repository`]: rooms and events by id. [`room_state`]: current and past state, power levels, memberships.
//! - [`room`]: one room's heads and members. [`room_cache`]: all rooms in memory, kept current by commits.
//! - [`members`]: counting members in a head. [`room_numbers`]: local numbers of rooms that other servers name.

pub(super) mod members;
pub(super) mod room;
pub(super) mod room_cache;
pub(super) mod room_numbers;
pub(super) mod room_repository;
mod room_state;
