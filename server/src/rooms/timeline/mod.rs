//! Reading a room: history, state, relations, and what of them a reader may see.

pub(super) mod aggregations;
pub mod client_event_format;
pub(super) mod erased;
pub mod history;
pub mod relations;
pub(super) mod state;
pub(super) mod timestamp_to_event;
