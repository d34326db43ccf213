//! Reading a room as one user may see it (who may see what is decided in `rooms/visibility.rs`).
//!
//! - [`history`]: pages of messages, context of an event. [`timestamp_to_event`]: the event at a time.
//! - [`relations`]: relations and threads. [`aggregations`]: edits, thread summaries and references bundled with events.
//! - [`state`]: state events and members.
//! - [`surroundings`]: what stands around many events at once.
//! - [`client_event_format`]: the JSON of an event with a reader's `unsigned`.
//! - [`erased`]: messages of users who had theirs erased.

pub(super) mod aggregations;
pub mod client_event_format;
pub(super) mod erased;
pub mod history;
pub mod relations;
pub(super) mod state;
pub mod surroundings;
pub(super) mod timestamp_to_event;
