//! Rooms (client-server API, "Rooms", "Events").

pub(super) mod aliases;
pub(super) mod creation;
pub(super) mod directory;
pub(super) mod history;
pub(super) mod membership;
pub(super) mod previews;
pub(super) mod relations;
pub(super) mod search;
pub(super) mod sending;
pub(super) mod state;
pub(super) mod upgrade;
